"""Numbers read off hidden vectors, and what makes of models and functions one kind of reward."""

from __future__ import annotations

import pytest
import torch
from tiny import build, some

from llmlab.batch import pad
from llmlab.heads import ScalarHead, at_end
from llmlab.rewards import reward_function
from llmlab.rollout import Responses


def test_a_scalar_head_is_a_product():
    head = ScalarHead(16, std=0.5)
    hidden = build()(some()).hidden.float()
    wanted = hidden @ head.linear.weight[0] + head.linear.bias
    torch.testing.assert_close(head(hidden), wanted)
    assert head(hidden).shape == hidden.shape[:-1]
    assert not ScalarHead(16)(hidden).any()  # without a std it begins by saying nothing
    assert head(hidden.bfloat16().float()).dtype == torch.float32


def test_standard_scores():
    head, scores = ScalarHead(4), torch.tensor([3.0, 5.0, 10.0, -2.0])
    assert torch.equal(head.standard(scores), scores)
    head.normalise(scores)
    found = head.standard(scores)
    assert float(found.mean()) == pytest.approx(0, abs=1e-6)
    assert float(found.var(correction=0)) == pytest.approx(1, abs=1e-5)
    assert head.standard(scores.view(2, 2)).shape == (2, 2)
    head.normalise(torch.full((5,), 2.0))  # all alike: nothing to divide by
    assert head.standard(torch.tensor([2.0, 3.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("left", [False, True])
def test_the_last_real_token(left):
    values = pad([[5, 6, 7], [8, 9], [1]], -1, left=left)
    keep = pad([[1, 1, 1], [1, 1], [1]], left=left).bool()
    assert at_end(values, keep).tolist() == [7, 9, 1]


def test_a_hole_in_the_mask_is_no_end():
    assert at_end(torch.tensor([[1, 2, 3, 4]]), torch.tensor([[True, False, True, False]])).tolist() == [3]


def test_a_function_is_a_reward_for_texts_and_for_responses():
    reward = reward_function(
        lambda prompts, responses: [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
    )
    responses = Responses([" a", " bcd"], torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.bool))
    assert reward(["x", "yz"], responses).tolist() == reward(["x", "yz"], responses.text).tolist() == [3.0, 6.0]


def test_a_model_without_the_head_says_so():
    with pytest.raises(ValueError, match="no reward head"):
        reward_function(build())

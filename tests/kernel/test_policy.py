"""A policy: what it writes, which weights judge it, and how its answers become minibatches."""

from __future__ import annotations

import pytest
import torch

from llmlab import Run, load
from llmlab.policy import Policy, dealt, moved, shuffles
from llmlab.surgery import snapshot
from llmlab_plugins.ppo import PPO
from llmlab_plugins.scorer import Scorer

PROMPTS = [{"prompt": text} for text in ("Mia Ito lives in", "There is a house in Mill Road where", "Liam", "One day")]


@pytest.fixture(scope="module")
def policy():
    torch.set_num_threads(1)
    run = Run(
        [PPO(), Scorer(lambda prompts, texts: [float(len(text)) for text in texts])], PROMPTS, model=load("tiny-gpt")
    )
    run.model.eval()
    return Policy(run, longest=9, temperature=0.7, no_end=-7.0)


def write(policy):
    rows = policy.asked(PROMPTS)
    with torch.no_grad():
        return policy.answers(rows, [policy.run.generator("test", i) for i in range(len(rows))])


def test_scores_are_those_of_the_texts_and_of_no_end(policy):
    rolled, score = write(policy)
    wanted = [float(len(t)) if end else -7.0 for t, end in zip(rolled.responses.text, rolled.ended, strict=True)]
    assert score.tolist() == wanted and rolled.mask.sum(1).max() <= 9
    assert not rolled.ended.all(), "an answer without an end is among them"


def test_log_probabilities_are_at_the_temperature_and_by_the_weights_asked_for(policy):
    rolled, _ = write(policy)
    model = policy.run.model
    with torch.no_grad():
        now, was = policy.logp(rolled), snapshot(model)
        logits = model.logits(model(**rolled.inputs)) / 0.7
        wanted = logits.log_softmax(-1).gather(-1, rolled.labels.clamp(min=0)[..., None]).squeeze(-1)
        torch.testing.assert_close(now[rolled.mask], wanted[rolled.mask])
        changed = {name: tensor + 0.05 * torch.randn(tensor.shape) for name, tensor in was.items()}
        assert not torch.allclose(policy.logp(rolled, changed), now)
        assert torch.equal(policy.logp(rolled, was), now) and torch.equal(policy.logp(rolled), now)


def test_what_is_dealt_stays_together(policy):
    """Each row of each minibatch has the inputs, labels and numbers of one answer; every pass has all of them once."""
    rolled, score = write(policy)
    orders = shuffles(4, 3, 2, torch.Generator().manual_seed(0))
    made = list(dealt(rolled, {"score": score, "row": torch.arange(4)}, orders, price=0.5))
    assert [len(b["row"]) for b in made] == [2, 1, 1, 2, 1, 1] and all(b["price"] == 0.5 for b in made)
    for one in (made[:3], made[3:]):
        assert sorted(torch.cat([b["row"] for b in one]).tolist()) == [0, 1, 2, 3]
    for batch in made:
        assert torch.equal(batch.inputs["tokens"], rolled.inputs["tokens"][batch["row"]])
        assert torch.equal(batch["labels"], rolled.labels[batch["row"]])
        assert torch.equal(batch["score"], score[batch["row"]])
    assert [len(rows) for rows in shuffles(2, 64, 1, torch.Generator())[0]] == [1, 1], "no part is empty"


def test_what_is_read_minibatch_for_minibatch_is_put_back_in_its_rows(policy):
    rolled, _ = write(policy)
    read = lambda model, output, labels: {"logp": model.logprobs(output, labels, 0.7)}  # noqa: E731
    with torch.no_grad():
        found = policy.as_trained(rolled, shuffles(4, 3, 1, torch.Generator().manual_seed(1))[0], read)["logp"]
        torch.testing.assert_close(found, policy.logp(rolled), atol=1e-5, rtol=1e-5)


def test_how_far_it_has_moved():
    old, mask = torch.zeros(2, 3), torch.tensor([[True, True, False], [True, False, False]])
    logp = torch.tensor([[0.5, 0.1, 9.0], [-0.3, 9.0, 9.0]])
    found = {name: float(value) for name, value in moved(logp, old, mask, 0.2).items()}
    ratios = logp.exp()[mask]
    wanted = {"ratio": ratios.mean(), "clipped": 2 / 3, "approximate_kl": (0.25 + 0.01 + 0.09) / 6}
    assert found == pytest.approx({name: float(value) for name, value in wanted.items()})


def test_answers_have_half_the_context_at_most(policy):
    run = policy.run
    assert Policy(run, 10_000, 1.0, 0.0).room == run.model.room // 2
    rows = policy.asked([{"prompt": "Mia " * 5000 + "Liam"}])
    assert len(rows[0]["tokens"]) == run.model.room - 9 and run.tokenizer.decode(rows[0]["tokens"]).endswith("Liam")

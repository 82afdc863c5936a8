"""Rollouts: what was written is what is scored again, for every family, whatever the prompts' lengths."""

from __future__ import annotations

import pytest
import torch

from llmlab.model import ModelConfig, Transformer
from llmlab.rollout import rollout
from llmlab.tokenizer import Tokenizer


@pytest.mark.parametrize("family", ["decoder", "encoder-decoder"])
def test_log_probabilities_of_a_rollout_are_those_of_writing_it(family):
    torch.manual_seed(0)
    tok = Tokenizer.train(["a small text about a small cat and a dog"] * 4, 330)
    config = ModelConfig(
        family=family, vocab_size=tok.vocab_size, context=32, layers=2, heads=2, width=16, init_std=0.3
    )
    model = Transformer(config).double().eval()
    model.tokenizer = tok
    prompts = [[tok.bos, *tok.encode(t)] for t in ("a cat", "a small dog and", "a")]
    rolled = rollout(model, prompts, max_new_tokens=7, seed=3)
    assert rolled.mask.sum() == rolled.responses.mask.sum()
    with torch.no_grad():
        logp = model.logprobs(model(**rolled.inputs), rolled.labels)
    assert (logp[~rolled.mask] == 0).all() and (logp[rolled.mask] < 0).all()
    for i, prompt in enumerate(prompts):  # one row at a time, nothing padded
        answer = rolled.responses.tokens[i][rolled.responses.mask[i]]
        if family == "decoder":
            tokens, start, inputs = torch.tensor([*prompt, *answer.tolist()])[None], len(prompt) - 1, {}
        else:
            tokens, start = torch.tensor([tok.bos, *answer.tolist()])[None], 0
            inputs = {"source": torch.tensor([prompt])}
        with torch.no_grad():
            scores = model.logits(model(tokens[:, :-1], **inputs)).log_softmax(-1)[0, start:]
        expected = scores.gather(1, answer[:, None]).squeeze(1).float()
        assert torch.allclose(logp[i][rolled.mask[i]].float(), expected, atol=1e-5)
    again = rollout(model, prompts, max_new_tokens=7, seed=3)
    assert torch.equal(again.labels, rolled.labels)
    assert not torch.equal(rollout(model, prompts, max_new_tokens=7, seed=4).responses.tokens, rolled.responses.tokens)

"""log p(answer | prompt) and exposure, against sums token by token over the whole distribution."""

from __future__ import annotations

from itertools import product
from math import log2

import pytest
import torch

from llmlab.exposure import candidate_scores, exposure
from llmlab.generate import as_prompt
from llmlab.likelihood import log_likelihood, token_logprobs
from llmlab.model import ModelConfig, Transformer
from llmlab.rollout import lined_up
from llmlab.surgery import snapshot
from llmlab.tokenizer import Tokenizer

TEXTS = ["Ada has a cat.", "Ben likes two dogs.", "Chi sees the sea.", "Dan has a red box."]
DIGITS = [f"{a}{b}" for a, b in product("0123456789", repeat=2)]


def build(family="decoder", kind="bpe"):
    tok = Tokenizer.train([*TEXTS, *"0123456789"], 400, kind)
    torch.manual_seed(0)
    model = Transformer(
        ModelConfig(vocab_size=tok.vocab_size, family=family, layers=2, heads=2, width=32, context=48, init_std=0.3)
    ).eval()
    model.tokenizer = tok
    return model


@pytest.fixture(scope="module")
def decoder():
    return build()


@torch.no_grad()
def by_hand(model, prompt, answer):
    """One token after the other, each from a pass of its own."""
    tok, total = model.tokenizer, 0.0
    y = tok.encode(answer)
    for t, i in enumerate(y):
        if model.encoder is None:
            output = model(torch.tensor([[*as_prompt(model, prompt), *y[:t]]]))
        else:
            output = model(torch.tensor([[tok.bos, *y[:t]]]), source=torch.tensor([as_prompt(model, prompt)]))
        total += float(model.logits(output)[0, -1].log_softmax(-1)[i])
    return total


@pytest.mark.parametrize("family", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("batch_size", [1, 2, 128])
def test_the_sum_of_each_tokens_log_probability(family, batch_size):
    model = build(family)
    prompts = ["Ada has", "Ben likes two dogs.", "Chi", "Dan sees the sea. Dan"]
    answers = [" a cat.", " Ada", " likes the sea. Ben has", " has"]
    found = log_likelihood(model, prompts, answers, batch_size)
    wanted = [by_hand(model, *pair) for pair in zip(prompts, answers, strict=True)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-4)


def test_all_next_tokens_share_one(decoder):
    words = [decoder.tokenizer.decode([i]) for i in range(decoder.config.vocab_size)]
    known = [w for w in dict.fromkeys(words) if len(decoder.tokenizer.encode(w)) == 1]
    total = float(log_likelihood(decoder, ["Ada has"] * len(known), known).exp().sum())
    assert 0.1 < total < 1.0


def test_nothing_in_nothing_out_and_no_answer_is_certain(decoder):
    assert log_likelihood(decoder, [], []).shape == (0,)
    assert log_likelihood(decoder, ["Ada"], [""]).tolist() == [0.0]


def test_an_encoder_writes_nothing():
    with pytest.raises(ValueError, match="needs a model that writes text"):
        log_likelihood(build("encoder", "wordpiece"), ["Ada"], [" has"])


@pytest.mark.parametrize("batch_size", [3, 256])
def test_candidates_score_as_each_alone(decoder, batch_size):
    candidates = [*DIGITS, "7", "123", " a cat"]  # of unequal length
    found = candidate_scores(decoder, "Ada has", candidates, batch_size)
    wanted = log_likelihood(decoder, ["Ada has"] * len(candidates), candidates)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_exposure_is_the_bits_that_the_rank_saves(decoder):
    scores = log_likelihood(decoder, ["Ada has"] * 100, DIGITS)
    order = scores.argsort(descending=True).tolist()
    for place in (0, 1, 49, 99):
        found = exposure(decoder, "Ada has", DIGITS[order[place]], DIGITS)
        assert found.rank == place + 1 and found.best == DIGITS[order[0]]
        assert found.bits == pytest.approx(log2(100) - log2(place + 1))


def test_what_cannot_be_scored_is_told(decoder):
    with pytest.raises(ValueError, match="'4711' is not among the 100 candidates"):
        exposure(decoder, "Ada has", "4711", DIGITS)
    with pytest.raises(ValueError, match="a candidate is empty"):
        candidate_scores(decoder, "Ada has", ["1", ""])
    with pytest.raises(ValueError, match="by a decoder"):
        candidate_scores(build("encoder-decoder"), "Ada has", ["1"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@torch.no_grad()
def test_log_probabilities_by_the_weights_that_were(precision):
    """Of a model that has moved: those it had, bit for bit, and its own again afterwards."""
    model = build()
    inputs, labels = lined_up(model, [as_prompt(model, "Ada has")] * 2, [model.tokenizer.encode(" a cat."), [5]])
    was, before = snapshot(model), token_logprobs(model, inputs, labels, precision)
    for p in model.parameters():
        p += 0.1 * torch.randn_like(p)
    now = token_logprobs(model, inputs, labels, precision)
    assert torch.equal(token_logprobs(model, inputs, labels, precision, was=was), before)
    assert torch.equal(token_logprobs(model, inputs, labels, precision), now) and (now - before).abs().max() > 0.1
    warm = model.logits(model(**inputs)).div(0.5).log_softmax(-1)
    wanted = warm.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1) * (labels >= 0)
    torch.testing.assert_close(token_logprobs(model, inputs, labels, temperature=0.5), wanted)

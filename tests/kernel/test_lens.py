"""The logit lens against models cut short, and attributions against finite differences and their axioms."""

from __future__ import annotations

import pytest
import torch
from tiny import V, build, some, variants
from torch import nn

from llmlab.attribution import input_x_gradient, integrated_gradients, score_at, taken_out
from llmlab.lens import logit_lens


@variants
def test_each_layer_is_the_model_cut_short(settings):
    model, tokens = build(layers=3, **{k: v for k, v in settings.items() if k != "layers"}), some()
    found = logit_lens(model, tokens)
    assert found.shape == (4, *tokens.shape, V)
    blocks = model.decoder.blocks
    for depth in range(4):
        model.decoder.blocks = nn.ModuleList(blocks[:depth])
        with torch.no_grad():
            torch.testing.assert_close(found[depth], model.logits(model(tokens)))
        model.decoder.blocks = blocks


def test_an_encoder_and_an_encoder_decoder_are_read_too():
    encoder, both = build(family="encoder"), build(family="encoder-decoder")
    tokens, source = some(), some(length=5, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(logit_lens(encoder, tokens)[-1], encoder.logits(encoder(tokens)))
        wanted = both.logits(both(tokens, source=source))
    torch.testing.assert_close(logit_lens(both, tokens, source=source)[-1], wanted)


def test_the_model_is_left_as_it_was():
    model = build(dropout=0.5).train()
    before = logit_lens(model, some())
    assert model.training and torch.equal(before, logit_lens(model, some()))
    modules = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    integrated_gradients(model, some(1)[0], score, steps=2)
    modules += [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert modules == [] and all(p.grad is None for p in model.parameters())


def score(logits):
    return logits[:, 3] - logits[:, 5]


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_the_gradient_against_finite_differences(positions):
    """Input x gradient of a token is how F changes while its embedding alone grows by a small share."""
    model, tokens = build(positions=positions), some(1)[0]
    found, e = input_x_gradient(model, tokens, score, torch.zeros(16)), 1e-5
    table = model.decoder.embeddings.token
    for t in range(len(tokens)):
        ends = []
        for sign in (1, -1):

            def grown(module, given, made, t=t, sign=sign):
                made = made.clone()
                made[:, t] *= 1 + sign * e
                return made

            handle = table.register_forward_hook(grown)
            with torch.no_grad():
                ends.append(float(score(model.head(model(tokens[None]).hidden[:, -1]))))  # in double precision
            handle.remove()
        assert (ends[0] - ends[1]) / (2 * e) == pytest.approx(float(found[t]), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@pytest.mark.parametrize("baseline", [None, torch.full((16,), 0.2)])
def test_integrated_gradients_add_up_and_ever_better(family, baseline):
    """Completeness (Sundararajan et al. 2017, proposition 1)."""
    model, tokens = build(family=family, init_std=0.15), some(1)[0]
    ends = [score_at(model, tokens, score, share, baseline) for share in (0.0, 1.0)]
    wanted = ends[1] - ends[0]
    errors = [abs(float(integrated_gradients(model, tokens, score, n, baseline).sum()) - wanted) for n in (8, 512)]
    assert errors[1] < 1e-3 * abs(wanted) and errors[1] < errors[0]


def test_the_usual_baseline_is_the_mean_token():
    model, tokens = build(tied=False), some(1)[0]
    found = score_at(model, tokens, score, share=0.0)
    with torch.no_grad():
        table = model.decoder.embeddings.token.weight
        table[:] = table.mean(0)
        assert found == pytest.approx(float(score(model.logits(model(tokens[None]))[:, -1])))


def test_where_the_score_is_linear_the_two_agree_with_it():
    """Without blocks or norm, F is linear in the last token's embedding, and in no other."""
    model, tokens = build(positions="rotary"), some(1)[0]
    model.decoder.blocks, model.decoder.norm = nn.ModuleList(), nn.Identity()
    wanted = score_at(model, tokens, score) - score_at(model, tokens, score, share=0.0)
    for found in (input_x_gradient(model, tokens, score), integrated_gradients(model, tokens, score, 3)):
        torch.testing.assert_close(found[-1], torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=0)
        assert not found[:-1].any()


def test_a_token_that_is_taken_out_is_not_there():
    model, tokens = build(), some(1)[0]
    found = taken_out(model, tokens, score)
    assert found.shape == tokens.shape and found[-1] == 0
    for t in range(len(tokens) - 1):
        left = torch.tensor([i for place, i in enumerate(tokens.tolist()) if place != t])
        wanted = score_at(model, tokens, score) - score_at(model, left, score)
        assert float(found[t]) == pytest.approx(wanted, abs=1e-6)


def test_a_score_that_asks_nothing_gives_nothing():
    constant = lambda logits: logits[:, 0] * 0 + 1  # noqa: E731
    assert not integrated_gradients(build(), some(1)[0], constant, 4).any()


def test_two_texts_are_refused():
    with pytest.raises(ValueError, match="read one text"):
        input_x_gradient(build(family="encoder-decoder"), some(1)[0], score)

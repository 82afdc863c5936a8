"""LoRA: the numbers of the paper and its code, and what must not change."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from llmlab import Run, Training, detach, merge
from llmlab.model import ModelConfig, Transformer, record_attention
from llmlab.surgery import named_parameters
from llmlab_plugins.clm import CLM
from llmlab_plugins.lora import LoRA, LoRALinear

TINY = ModelConfig(vocab_size=400, context=64, layers=2, heads=2, width=32)
ROWS = [{"text": f"The number {i} has the square {i * i}."} for i in range(60)]


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(1)
    return Run([CLM(window=16)], ROWS, config=TINY, training=Training(steps=20, batch_size=4, learning_rate=1e-2)).fit()


def tune(base, steps=20, **knobs):
    training = Training(steps=max(1, steps), batch_size=4, learning_rate=1e-2)
    run = Run([CLM(window=16), LoRA(**knobs)], ROWS, model=base.model, training=training)
    return run.fit(steps) if steps else run


def logits(model):
    model.eval()
    tokens = torch.arange(40).view(2, 20)
    with torch.no_grad():
        return model.logits(model(tokens))


def test_the_papers_count_for_gpt2_medium():
    """r (d_in + d_out) per matrix; query and value of 24 layers of width 1024 at rank 4: 393,216."""
    with torch.device("meta"):
        model = Transformer(ModelConfig(width=1024, heads=16, layers=24, vocab_size=50257, context=1024))
        LoRA(rank=4).adapt_model(model)
    assert sum(p.numel() for n, p in named_parameters(model) if "lora_" in n) == 393_216


def test_it_starts_at_the_base_exactly(base):
    assert torch.equal(logits(tune(base, steps=0).model), logits(base.model))


def test_a_starts_as_in_the_papers_code_and_b_at_zero(base):
    run = tune(base, steps=0, rank=16)
    for name, p in named_parameters(run.model):
        if name.endswith("lora_a"):  # kaiming_uniform with a = √5: U(-1/√d, 1/√d)
            assert p.abs().max() <= 1 / math.sqrt(32) and p.std().item() == pytest.approx(
                1 / math.sqrt(3 * 32), rel=0.1
            )
        elif name.endswith("lora_b"):
            assert not p.any()


@pytest.mark.parametrize("rslora", [False, True])
def test_the_update_is_scaled_by_alpha_over_r(rslora):
    linear = nn.Linear(6, 5)
    model = nn.Module()
    model.query = linear
    LoRA(rank=4, alpha=3.0, targets="query", rslora=rslora).adapt_model(model)
    layer = model.query
    nn.init.normal_(layer.lora_b)
    x = torch.randn(7, 6)
    scale = 3 / 2 if rslora else 3 / 4
    expected = linear(x) + scale * x @ layer.lora_a.T @ layer.lora_b.T
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert torch.allclose(layer.delta(), scale * layer.lora_b @ layer.lora_a)
    assert torch.linalg.matrix_rank(layer.delta()) <= 4


def test_merged_it_is_the_same_function_and_detached_the_base(base):
    run = tune(base, dropout=0.3)  # dropout is off once training is over
    assert not torch.allclose(logits(run.model), logits(base.model), atol=1e-3)
    merged = merge(run.model)
    assert torch.allclose(logits(merged), logits(run.model), atol=2e-5)
    assert not [m for m in merged.modules() if isinstance(m, LoRALinear)] and not merged.adaptations
    assert torch.equal(logits(detach(run.model)), logits(base.model))


def test_merging_in_double_precision_is_exact(base):
    model = tune(base).model.double()
    assert torch.allclose(logits(merge(model)), logits(model), atol=1e-12)


def test_a_merge_leaves_its_model_as_it_was_and_detached_every_weight_is_the_bases(base):
    """Nothing is subtracted again: the base's tensors are still there, and the update beside them."""
    run = tune(base)
    before = {n: p.clone() for n, p in named_parameters(run.model)}
    folded = dict(named_parameters(merge(run.model)))
    assert all(torch.equal(p, before[n]) for n, p in named_parameters(run.model))
    given = dict(named_parameters(base.model))
    bare = dict(named_parameters(detach(run.model)))
    assert bare.keys() == given.keys() == folded.keys()
    assert all(torch.equal(p, given[n]) for n, p in bare.items())
    changed = {n for n, p in folded.items() if not torch.equal(p, given[n])}
    blocks = [f"decoder.blocks.{i}.attention" for i in range(TINY.layers)]
    assert changed == {f"{b}.{t}.weight" for b in blocks for t in ("query", "kv.value")}


def test_merged_into_a_tied_head_the_embeddings_stay(base):
    run = tune(base, targets="output")
    merged, table = merge(run.model), base.model.decoder.embeddings.token.weight
    assert base.model.config.tied and not merged.config.tied
    assert torch.equal(merged.decoder.embeddings.token.weight, table)
    assert not torch.allclose(merged.head.output.weight, table, atol=1e-4)
    assert torch.allclose(logits(merged), logits(run.model), atol=2e-5)
    again = detach(run.model)
    assert again.config.tied and again.head.output.weight is again.decoder.embeddings.token.weight


def test_dropout_takes_from_the_update_alone_and_only_in_training():
    layer = LoRALinear(nn.Linear(8, 8), rank=4, scale=1.0, dropout=0.5)
    x = torch.randn(6, 8)
    assert torch.equal(layer(x), layer.base(x))  # B is zero: what is dropped does not reach the base's input
    nn.init.normal_(layer.lora_b)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x)) and torch.allclose(layer(x), layer.merged()(x), atol=1e-5)


def test_what_it_does_not_train_is_bit_for_bit_the_base(base):
    run = tune(base)
    given = dict(named_parameters(base.model))
    assert all(torch.equal(p, given[n]) for n, p in named_parameters(run.model) if n in given)
    assert run.parameters().trainable == 2 * 2 * 8 * (32 + 32)


def test_every_trainable_is_reached_by_a_gradient(base):
    run = tune(base, steps=2)
    assert all(p.grad is not None and p.grad.any() for p in run.model.parameters() if p.requires_grad)
    assert all(p.grad is None for p in run.model.parameters() if not p.requires_grad)


def test_targets(base):
    run = tune(base, steps=0, targets="query, kv.key, kv.value, out, up, down")
    adapted = [n for n, m in run.model.named_modules() if isinstance(m, LoRALinear)]
    assert len(adapted) == 6 * TINY.layers


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        ("query, keys", "no layer is named 'keys': did you mean 'key'?"),
        ("q_proj", "no layer is named 'q_proj': this model has query, key, value, out, up, down and others"),
        ("mlp", "MLP is no linear layer, name what is in it: up, down"),
        ("token", "Embedding is no linear layer"),
        (" , ", "name at least one layer, such as query"),
    ],
)
def test_a_wrong_target_is_refused_in_one_line(base, targets, told):
    with pytest.raises(ValueError, match="^" + re.escape(f"LoRA.targets = {targets!r}: {told}") + "$") as caught:
        tune(base, targets=targets)
    assert not getattr(caught.value, "__notes__", [])  # the plugin has no fault


def test_cached_generation_equals_uncached_and_attention_is_still_recorded(base):
    run = tune(base)
    cached = run.generate("The number", max_new_tokens=20)
    assert cached == run.generate("The number", max_new_tokens=20, cached=False)
    with record_attention(run.model) as maps:
        logits(run.model)
    assert set(maps) == {f"decoder.blocks.{i}.attention" for i in range(TINY.layers)}


def test_it_learns(base):
    run = tune(base, steps=60, targets="query, kv.key, kv.value, out, up, down")
    assert run.metrics["loss"] < run.evaluations[0]["loss"] - 0.05


def test_queries_and_values_alone_learn_the_rows_they_see(base):  # and hardly what others have in common
    run = tune(base, steps=60)
    before = tune(base, steps=0).losses("train")["loss"]
    assert run.losses("train")["loss"] < before - 0.05

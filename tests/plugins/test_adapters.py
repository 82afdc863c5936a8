"""Adapters: the numbers of the paper and its code, where they sit, and what must not change."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llmlab import Run, Training, detach, merge
from llmlab.model import ModelConfig, Transformer
from llmlab.precision import computing
from llmlab.surgery import named_parameters, unwrap
from llmlab_plugins.adapters import Adapter, Adapters
from llmlab_plugins.clm import CLM
from llmlab_plugins.lora import LoRA, LoRALinear
from llmlab_plugins.mlm import MLM

TINY = ModelConfig(vocab_size=400, context=64, layers=2, heads=2, width=32)
ROWS = [{"text": f"The number {i} has the square {i * i}."} for i in range(60)]
D, L = TINY.width, TINY.layers
FAMILIES = {
    "decoder": TINY,
    "llama": ModelConfig.preset("llama", vocab_size=400, context=64, layers=2, heads=2, width=32),
    "encoder": ModelConfig.preset("bert", vocab_size=400, context=64, layers=2, heads=2, width=32, dropout=0.0),
    "encoder-decoder": ModelConfig.preset(
        "transformer", vocab_size=400, context=64, layers=2, heads=2, width=32, dropout=0.0
    ),
}


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(1)
    return Run([CLM(window=16)], ROWS, config=TINY, training=Training(steps=20, batch_size=4, learning_rate=1e-2)).fit()


def tune(base, steps=20, *others, **knobs):
    training = Training(steps=max(1, steps), batch_size=4, learning_rate=1e-2)
    run = Run([CLM(window=16), Adapters(**knobs), *others], ROWS, model=base.model, training=training)
    return run.fit(steps) if steps else run


def logits(model):
    model.eval()
    tokens = torch.arange(40).view(2, 20)
    source = {"source": tokens.flip(1)} if model.config.family == "encoder-decoder" else {}
    with torch.no_grad():
        return model.logits(model(tokens, **source))


def count(model, wanted):
    return sum(p.numel() for n, p in named_parameters(model) if wanted(n))


def test_the_papers_count_for_bert_base():
    """2md + d + m an adapter, two in each of 12 layers: 2,379,264 at m = 64; with the 25 norms, 2d each, 2,417,664."""
    with torch.device("meta"):
        model = Transformer(ModelConfig.preset("bert", vocab_size=30522, context=512, width=768, heads=12, layers=12))
        whole = sum(p.numel() for p in model.parameters())
        Adapters(size=64).adapt_model(model)
    d, m = 768, 64
    assert count(model, lambda n: ".adapter_" in n) == 24 * (2 * m * d + d + m) == 2_379_264
    assert count(model, Adapters(size=64).trains) == 2_379_264 + 25 * 2 * d == 2_417_664
    assert 0.0215 < 2_379_264 / whole < 0.022  # the paper's 3.6 % are of BERT-large, m 8 to 256


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
def test_where_they_sit_and_what_they_count(family, placement):
    model = Transformer(FAMILIES[family])
    technique = Adapters(size=5, placement=placement)
    technique.adapt_model(model)
    stacks = [s for s in (model.encoder, model.decoder) if s is not None]
    found = [n for n, m in model.named_modules() if isinstance(m, Adapter)]
    expected = []
    for name, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        for i, block in enumerate(stack.blocks if stack is not None else []):
            places = ["attention.out", *(["cross.out"] if block.cross is not None else []), "mlp.down"]
            expected += [f"{name}.blocks.{i}.{p}" for p in (places if placement == "houlsby" else ["mlp.down"])]
    assert found == expected
    norms = [m for s in stacks for m in s.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)]
    adapters = len(found) * (2 * 5 * D + D + 5)
    assert count(model, technique.trains) == adapters + sum(p.numel() for m in norms for p in m.parameters())
    assert count(model, Adapters(size=5, placement=placement, train_norms=False).trains) == adapters


def test_a_cross_attention_has_one_too():
    model = Transformer(FAMILIES["encoder-decoder"])
    Adapters().adapt_model(model)
    assert len([m for m in model.modules() if isinstance(m, Adapter)]) == 2 * L + 3 * L


def test_one_adapter_is_its_equation_with_the_skip_inside():
    torch.manual_seed(0)
    linear = nn.Linear(7, 6)
    adapter = Adapter(linear, 3, "gelu", 0.5)
    for p in adapter.parameters():
        nn.init.normal_(p)
    x = torch.randn(4, 7)
    h = x @ linear.weight.T + linear.bias
    low = F.gelu(h @ adapter.adapter_down.weight.T + adapter.adapter_down.bias, approximate="tanh")
    assert torch.allclose(adapter(x), h + low @ adapter.adapter_up.weight.T + adapter.adapter_up.bias, atol=1e-6)
    with torch.no_grad():
        adapter.adapter_up.weight.zero_(), adapter.adapter_up.bias.zero_()
    assert torch.equal(adapter(x), linear(x))  # without the skip inside, nothing of h would be left


def test_it_acts_before_the_residual_sum_and_the_norm(base):
    """An adapter that silences its layer leaves the residual stream as it is: only the other branch remains."""
    model = tune(base, 0).model
    block = model.decoder.blocks[0]
    adapter = block.mlp.down
    with torch.no_grad():  # h + W_up σ(W_down h + b) + b_up = b_up for relu: W_up = -[I -I], W_down = [I; -I]
        adapter.act = nn.ReLU()
        adapter.adapter_down = nn.Linear(D, 2 * D)
        adapter.adapter_down.weight.copy_(torch.cat([torch.eye(D), -torch.eye(D)]))
        adapter.adapter_up = nn.Linear(2 * D, D)
        adapter.adapter_up.weight.copy_(torch.cat([-torch.eye(D), torch.eye(D)], 1))
        adapter.adapter_down.bias.zero_(), adapter.adapter_up.bias.zero_()
        x = torch.randn(2, 5, D)
        cos, sin = model.decoder.rotary(torch.arange(5))
        attended = x + block.attention(block.norm_attention(x), angles=(cos, sin))
        assert torch.allclose(block(x, angles=(cos, sin)), attended, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_near_the_base(family):
    base = Transformer(FAMILIES[family])
    before = logits(base)
    adapted = Transformer(FAMILIES[family])
    adapted.load_state_dict(base.state_dict())
    Adapters().adapt_model(adapted)
    gap = (logits(adapted) - before).abs().max()
    assert 0 < gap < 1e-2 * before.std().clamp(min=1)


def test_the_first_weights_are_a_normal_cut_at_two_sigma(base):
    run = tune(base, 0, size=64)
    for name, p in named_parameters(run.model):
        if ".adapter_" in name and name.endswith("weight"):
            assert p.abs().max() <= 2 * 0.01 and p.std().item() == pytest.approx(0.01 * 0.8796, rel=0.1)
        elif ".adapter_" in name:
            assert not p.any()


def test_far_from_the_identity_it_starts_as_another_model(base):
    near, far = (tune(base, 0, init_std=s).losses()["loss"] for s in (0.01, 1.0))
    assert abs(near - base.losses()["loss"]) < 0.01 and far > near + 1


def test_what_it_does_not_train_is_bit_for_bit_the_base(base):
    run = tune(base, size=8)
    given = dict(named_parameters(base.model))
    changed = {n for n, p in named_parameters(run.model) if n in given and not torch.equal(p, given[n])}
    norms = {n for n in given if ".norm" in n}
    assert changed == norms and len(norms) == 2 * (2 * L + 1)
    assert run.parameters().trainable == 2 * L * (2 * 8 * D + D + 8) + (2 * L + 1) * 2 * D
    frozen = tune(base, train_norms=False)
    assert all(torch.equal(p, given[n]) for n, p in named_parameters(frozen.model) if n in given)


def test_every_trainable_is_reached_by_a_gradient(base):
    run = tune(base, 2)
    assert all(p.grad is not None and p.grad.any() for p in run.model.parameters() if p.requires_grad)
    assert all(p.grad is None for p in run.model.parameters() if not p.requires_grad)


@pytest.mark.parametrize("train_norms", [True, False])
def test_detached_it_is_the_base_exactly_and_it_cannot_be_merged(base, train_norms, tmp_path):
    run = tune(base, train_norms=train_norms)
    assert not torch.allclose(logits(run.model), logits(base.model), atol=1e-3)
    assert torch.equal(logits(detach(run.model)), logits(base.model))
    run.save(tmp_path)
    assert torch.equal(logits(detach(Run.load(tmp_path, ROWS).model)), logits(base.model))
    with pytest.raises(ValueError, match="adapters cannot be merged") as caught:
        merge(run.model)
    assert "\n" not in str(caught.value)


def test_with_lora_inside_it(base):
    run = tune(base, 10, LoRA(targets="out, down"))
    layer = run.model.decoder.blocks[0].attention.out
    assert isinstance(layer, Adapter) and isinstance(layer.base, LoRALinear) and isinstance(unwrap(layer), nn.Linear)
    merged = merge(run.model, "lora")
    assert torch.allclose(logits(merged), logits(run.model), atol=2e-5) and list(merged.adaptations) == ["adapters"]
    assert torch.equal(logits(detach(run.model)), logits(base.model))


def test_cached_generation_equals_uncached(base):
    run = tune(base)
    cached = run.generate("The number", max_new_tokens=20)
    assert cached == run.generate("The number", max_new_tokens=20, cached=False)
    assert cached != base.generate("The number", max_new_tokens=20)


def test_a_checkpoint_goes_on_exactly(base, tmp_path):
    def part():
        training = Training(steps=12, batch_size=4, learning_rate=1e-2)
        return Run([CLM(window=16), Adapters()], ROWS, model=base.model, training=training).fit(5)

    part().save(tmp_path)
    rest, whole = Run.load(tmp_path, ROWS).fit(), dict(named_parameters(part().fit().model))
    assert rest.steps == 12 and all(torch.equal(p, whole[n]) for n, p in named_parameters(rest.model))


def test_bfloat16_steps(base):
    run = tune(base, 0)
    with computing(run.model, "bf16"):
        low = run.model.decoder.blocks[0].attention.out(torch.randn(2, D, dtype=torch.bfloat16))
        assert low.dtype == torch.bfloat16
    training = Training(steps=20, batch_size=4, learning_rate=1e-2, precision="bf16")
    rounded = Run([CLM(window=16), Adapters()], ROWS, model=base.model, training=training).fit()
    assert rounded.metrics["loss"] == pytest.approx(tune(base).metrics["loss"], abs=0.1)
    assert all(p.dtype == torch.float32 for p in rounded.model.parameters())


def test_on_an_encoder(base):
    config = ModelConfig.preset("bert", vocab_size=120, context=64, layers=2, heads=2, width=32, dropout=0.0)
    first = Run([MLM(window=32)], ROWS, config=config, training=Training(steps=5, batch_size=8)).fit()
    run = Run([MLM(window=32), Adapters()], ROWS, model=first.model, training=Training(steps=5, batch_size=8)).fit()
    trained = {n for n, p in named_parameters(run.model) if p.requires_grad}
    assert all(".adapter_" in n or ".norm" in n for n in trained) and "encoder.embeddings.norm.weight" in trained
    assert torch.equal(logits(detach(run.model)), logits(first.model))


def test_it_learns(base):
    run = tune(base, 60)
    assert run.metrics["loss"] < run.evaluations[0]["loss"] - 0.05


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"size": 0}, r"Adapters\.size = 0: must be 1 to 1024"),
        ({"placement": "between"}, r"Adapters\.placement = 'between': must be one of houlsby, pfeiffer"),
        ({"init_std": 0.0}, r"Adapters\.init_std = 0\.0: must be 1e-07 to 1\.0"),
        ({"activation": "none"}, r"Adapters\.activation = 'none': must be one of gelu, relu, silu, tanh"),
    ],
)
def test_bad_knobs_are_one_line(knobs, message):
    with pytest.raises(ValueError, match=message):
        Adapters(**knobs)

"""(IA)³: the paper's equations and count, what is scaled, and how it gets on with what stands beside it."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

from llmlab import Run, Training, detach, merge
from llmlab.layers import RotaryPositions, rotate
from llmlab.model import ModelConfig, Transformer
from llmlab.pretrained import load_model, save_model
from llmlab.surgery import Wrapper, named_parameters, swapped
from llmlab.testing.cases import stirred
from llmlab.training import make_optimizer
from llmlab_plugins.adapters import Adapters
from llmlab_plugins.bitfit import BitFit
from llmlab_plugins.clm import CLM
from llmlab_plugins.ia3 import IA3, ScaledLinear
from llmlab_plugins.lora import LoRA
from llmlab_plugins.prefix import Prefix, PrefixKeyValue

TINY = ModelConfig(vocab_size=400, context=64, layers=2, heads=2, width=32)
GATED = dict(layers=2, heads=4, kv_heads=2, width=32, mlp_width=48, vocab_size=60, context=40)
ROWS = [{"text": f"The number {i} has the square {i * i}."} for i in range(60)]


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(1)
    return Run([CLM(window=16)], ROWS, config=TINY, training=Training(steps=20, batch_size=4, learning_rate=1e-2)).fit()


def tune(base, *others, steps=20, rate=None, **knobs):
    training = Training(steps=max(1, steps), batch_size=4, learning_rate=rate)
    run = Run([CLM(window=16), IA3(**knobs), *others], ROWS, model=base.model, training=training)
    return run.fit(steps) if steps else run


def logits(model, tokens=None, **more):
    model.eval()
    with torch.no_grad():
        return model.logits(model(torch.arange(40).view(2, 20) if tokens is None else tokens, **more))


def vectors(model):
    return {name: p for name, p in named_parameters(model) if name.endswith(".ia3_l")}


def adapted(config, **knobs):
    torch.manual_seed(0)
    model = Transformer(config)
    IA3(**knobs).adapt_model(model)
    for p in model.parameters():
        p.data = torch.randn_like(p) * 0.2
    for p in vectors(model).values():
        p.data += 1
    return model.double().eval()


# -- the paper's numbers -----------------------------------------------------------------------------------------


def count(config, **knobs):
    with torch.device("meta"):
        model = Transformer(config)
        IA3(**knobs).adapt_model(model)
    assert all(IA3().trains(name) for name in vectors(model))
    return sum(p.numel() for name, p in named_parameters(model) if IA3().trains(name))


def test_the_papers_count():
    """L (d_k + d_v + d_ff) for an encoder or a decoder; beside an encoder a decoder has L (2 d_k + 2 d_v + d_ff)."""
    assert count(TINY) == 2 * (2 * 32 + 4 * 32)
    grouped = ModelConfig.preset("llama", **GATED)
    assert count(grouped) == 2 * (2 * 16 + 48)  # two key heads of width 8
    assert count(grouped, mlp=False) == 2 * 2 * 16 and count(grouped, keys=False, values=False) == 2 * 48
    assert count(grouped, values=False, mlp=False) == count(grouped, keys=False, mlp=False) == 2 * 16
    both = ModelConfig(family="encoder-decoder", layers=3, heads=2, width=32, mlp_width=80, vocab_size=50)
    assert count(both) == 3 * (2 * 32 + 80) + 3 * (4 * 32 + 80)
    bert = ModelConfig.preset("bert", layers=12, heads=12, width=768, vocab_size=100)
    assert count(bert) == 12 * (2 * 768 + 3072) == 55_296


def test_it_adds_nothing_else_and_trains_nothing_else(base):
    run = tune(base, steps=0)
    table = run.parameters()
    assert table.trainable == 2 * (2 * 32 + 128) and table.total == table.trainable + base.parameters().total
    assert {row.owner for row in table if row.trains} == {"ia3"}
    assert {row.name.split(".", 3)[3] for row in table if row.trains} == {
        "attention.kv.key.ia3_l", "attention.kv.value.ia3_l", "mlp.down.ia3_l"
    }  # fmt: skip


def numpy_block(x, w, heads, kv_heads):
    """A LLaMA block by hand, (T, D) -> (T, D), with l_k, l_v and l_ff where the paper has them."""

    def norm(h, g):
        return h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-6) * g

    def turn(h):  # (T, D/H)
        half = h.shape[1] // 2
        angle = np.arange(len(h))[:, None] * 10000.0 ** (-np.arange(half) / half)
        a, b = h[:, :half], h[:, half:]
        return np.hstack([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)])

    h, size = norm(x, w["norm_attention.weight"]), x.shape[1] // heads
    q = h @ w["attention.query.weight"].T
    k = h @ w["attention.kv.key.weight"].T * w["attention.kv.key.ia3_l"]
    v = h @ w["attention.kv.value.weight"].T * w["attention.kv.value.ia3_l"]
    out = []
    for head in range(heads):
        at, kv = slice(head * size, head * size + size), head * kv_heads // heads
        its = slice(kv * size, kv * size + size)
        scores = turn(q[:, at]) @ turn(k[:, its]).T / math.sqrt(size)
        scores[np.triu_indices(len(x), 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out.append(weights / weights.sum(-1, keepdims=True) @ v[:, its])
    x = x + np.hstack(out) @ w["attention.out.weight"].T
    h = norm(x, w["norm_mlp.weight"])
    gate = h @ w["mlp.gate.weight"].T
    hidden = gate / (1 + np.exp(-gate)) * (h @ w["mlp.up.weight"].T)
    return x + (hidden * w["mlp.down.ia3_l"]) @ w["mlp.down.weight"].T


def test_a_gated_model_with_grouped_queries_computes_the_equations():
    model = adapted(ModelConfig.preset("llama", **GATED))
    weights = {name: p.detach().numpy() for name, p in named_parameters(model)}
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    x = weights["decoder.embeddings.token.weight"][tokens[0]]
    for i in range(2):
        start = f"decoder.blocks.{i}."
        w = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
        x = numpy_block(x, w, heads=4, kv_heads=2)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weights["decoder.norm.weight"]
    np.testing.assert_allclose(model(tokens).hidden[0].detach().numpy(), x, atol=1e-10)


def test_values_of_zero_silence_attention_and_hidden_units_of_zero_the_mlp():
    model = adapted(TINY)
    block = model.decoder.blocks[0]
    block.attention.kv.value.ia3_l.data.zero_()
    block.mlp.down.ia3_l.data.zero_()
    x = torch.randn(2, 5, 32, dtype=torch.double)
    assert torch.equal(block.attention(x), block.attention.out.bias.expand(2, 5, 32))
    assert torch.equal(block.mlp(x), block.mlp.down.base.bias.expand(2, 5, 32))
    block.attention.kv.key.ia3_l.data.zero_()  # keys that are all alike: every token looks everywhere equally
    block.attention.kv.value.ia3_l.data.fill_(1)
    v = block.attention.kv(x)[1]
    mean = v.cumsum(2) / torch.arange(1, 6)[:, None]
    assert torch.allclose(block.attention(x), block.attention.out(mean.transpose(1, 2).flatten(2)))


def test_keys_scaled_before_the_rotation_still_tell_distances_alone():
    """After it, the score of two tokens would depend on where both stand; and no weight could hold the vector."""
    torch.manual_seed(0)
    rotary, scale = RotaryPositions(40, 8, 10000.0).double(), torch.rand(8, dtype=torch.double) + 0.5
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.double)

    def score(at, other, before):
        turned = (rotate(t, rotary(torch.tensor([p]))) for t, p in ((q, at), (k * scale if before else k, other)))
        left, right = turned
        return float((left * (right if before else right * scale)).sum())

    assert score(7, 3, True) == pytest.approx(score(30, 26, True))
    assert score(7, 3, False) != pytest.approx(score(30, 26, False), abs=1e-2)
    attention = adapted(TINY).decoder.blocks[0].attention
    x = torch.randn(1, 4, 32, dtype=torch.double)
    given = attention.kv.key.base(x)
    assert torch.equal(attention.kv(x)[0].transpose(1, 2).flatten(2), given * attention.kv.key.ia3_l)


# -- what must and must not change -------------------------------------------------------------------------------


def test_it_starts_as_the_base_and_moves_its_vectors_alone(base):
    assert torch.equal(logits(tune(base, steps=0).model), logits(base.model))
    run, given = tune(base), dict(named_parameters(base.model))
    assert all(torch.equal(p, given[name]) for name, p in named_parameters(run.model) if name in given)
    assert all(p.grad.any() and not torch.equal(p, torch.ones_like(p)) for p in vectors(run.model).values())
    assert all(p.grad is None for p in run.model.parameters() if not p.requires_grad)


def test_weight_decay_pulls_no_gain_towards_zero(base):
    run = tune(base, steps=0)
    groups = make_optimizer(list(named_parameters(run.model)), Training(weight_decay=1.0)).param_groups
    kept = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert {id(p) for p in vectors(run.model).values()} <= kept


@pytest.mark.parametrize("preset", ["gpt2", "llama", "qwen2", "bert", "t5", "transformer"])
def test_merged_it_is_the_same_function_and_detached_the_base(preset):
    model = adapted(ModelConfig.preset(preset, **{**GATED, "kv_heads": 0 if preset == "t5" else 2}))
    model.adaptations["ia3"] = {"knobs": {}, "parameters": list(vectors(model)), "originals": {}}
    for m in model.modules():
        if isinstance(m, Wrapper):
            m.owner = "ia3"
    tokens = torch.arange(24).view(2, 12)
    source = {"source": tokens.flip(1)} if model.config.family == "encoder-decoder" else {}
    said, merged, bare = logits(model, tokens, **source), merge(model), detach(model)
    assert torch.allclose(logits(merged, tokens, **source), said, atol=1e-12)
    assert not [m for m in merged.modules() if isinstance(m, Wrapper)] and not merged.adaptations
    assert not torch.allclose(logits(bare, tokens, **source), said, atol=1e-3)
    assert {n for n, _ in named_parameters(merged)} == {n for n, _ in named_parameters(bare)}
    mine, now = dict(named_parameters(model)), dict(named_parameters(merged))
    changed = {n for n, p in named_parameters(bare) if not torch.equal(p, now[n])}
    assert {n.rsplit(".", 1)[0] for n in changed} == {n.rsplit(".", 1)[0] for n in vectors(model)}
    assert all(torch.equal(p, mine[n]) for n, p in named_parameters(bare))
    assert not [n for n in changed if n.endswith("down.bias")]  # what is added after W₂ is not scaled


def test_a_saved_one_is_read_again_and_its_vectors_can_be_taken_off(base, tmp_path):
    run = tune(base, mlp=False)
    save_model(run.model, tmp_path / "model")
    read = load_model(tmp_path / "model")
    assert torch.equal(logits(read), logits(run.model)) and torch.equal(logits(detach(read)), logits(base.model))
    with pytest.raises(ValueError, match=r"already carries ia3\(keys=True, values=True, mlp=False\)"):
        tune(run, mlp=True)


def test_it_learns_the_rows_it_sees(base):
    run, start = tune(base, steps=60), tune(base, steps=0)
    assert (
        run.losses("train")["loss"] < start.losses("train")["loss"] - 0.02
    )  # the base is so young that there is little to turn up


def test_cached_generation_equals_uncached(base):
    run = tune(base)
    for p in vectors(run.model).values():
        p.data += 0.3 * torch.randn_like(p)
    assert run.generate("The number", max_new_tokens=20) == run.generate("The number", max_new_tokens=20, cached=False)


def test_one_batch_may_hold_rows_of_several_tasks(base):
    """Vectors (B, 1, d) give each row its own; no matrix of a layer differs, so they share every product."""
    one, other = stirred(tune(base).model), stirred(tune(base, rate=0.2).model)
    tokens, mine, others = torch.arange(40).view(2, 20), vectors(one), vectors(other)
    rows = {name: torch.stack([p.data, others[name].data])[:, None] for name, p in mine.items()}
    assert not torch.allclose(logits(one), logits(other), atol=1e-2)
    apart = torch.stack([logits(one, tokens)[0], logits(with_vectors(one, others), tokens)[1]])
    with swapped(one, rows):
        assert torch.allclose(logits(one, tokens), apart, atol=1e-5)


def with_vectors(model, others):
    copy = stirred(model, by=0.0)
    for name, p in vectors(copy).items():
        p.data = others[name].data
    return copy


# -- beside others -----------------------------------------------------------------------------------------------


def test_in_every_order_the_same_logits_at_the_same_numbers(base):
    said = []
    for order in permutations(
        (IA3(), LoRA(rank=2, targets="kv.value, down"), Prefix(length=3), Adapters(size=4), BitFit())
    ):
        run = Run([CLM(window=16), *order], ROWS, model=base.model, training=Training(steps=1, batch_size=4))
        said.append(logits(stirred(run.model)))
    assert len(said) == 120 and all(torch.equal(each, said[0]) for each in said)


@pytest.mark.parametrize("first", [True, False])
def test_it_scales_loras_update_too_and_they_merge_together(first, base):
    pair = [IA3(), LoRA(rank=2, targets="kv.key, down")]
    run = Run([CLM(window=16), *(pair if first else pair[::-1])], ROWS, model=base.model)
    model = stirred(run.model)
    block, x = model.decoder.blocks[0], torch.randn(3, 32)
    key, down, hidden = block.attention.kv.key, block.mlp.down, torch.randn(3, 128)
    assert isinstance(key, ScaledLinear) and isinstance(down, ScaledLinear)
    W, b = key.base.base.weight + key.base.delta(), key.base.base.bias
    assert torch.allclose(key(x), (x @ W.T + b) * key.ia3_l, atol=1e-5)
    W, b = down.base.base.weight + down.base.delta(), down.base.base.bias
    assert torch.allclose(down(hidden), (hidden * down.ia3_l) @ W.T + b, atol=1e-5)
    merged = merge(model)
    assert torch.allclose(logits(merged), logits(model), atol=1e-5) and not merged.adaptations
    assert torch.allclose(logits(merge(merge(model, "lora"))), logits(model), atol=1e-5)
    with pytest.raises(ValueError, match=r"^ia3 cannot be merged without lora, which it is built around: merge both$"):
        merge(model, "ia3")
    assert torch.equal(logits(detach(detach(model, "ia3"), "lora")), logits(detach(model)))


@pytest.mark.parametrize("first", [True, False])
def test_a_prefixs_keys_and_values_are_not_scaled(first, base):
    pair = [IA3(), Prefix(length=3, hidden=0)]
    run = Run([CLM(window=16), *(pair if first else pair[::-1])], ROWS, model=base.model)
    model = stirred(run.model)
    kv, x = model.decoder.blocks[0].attention.kv, torch.randn(1, 4, 32)
    assert isinstance(kv, PrefixKeyValue)
    table = kv.prefix.table[:, kv.columns]  # (3, 2·32)
    for got, part, layer in zip(kv(x), table.chunk(2, 1), (kv.base.key, kv.base.value), strict=True):
        rows = got[0].transpose(0, 1).flatten(1)  # (3 + 4, 32)
        assert torch.equal(rows[:3], part) and torch.allclose(rows[3:], layer.base(x)[0] * layer.ia3_l, atol=1e-6)


def test_an_adapter_reads_what_the_scaled_layer_gives(base):
    for pair in ([IA3(), Adapters(size=4)], [Adapters(size=4), IA3()]):
        down = stirred(Run([CLM(window=16), *pair], ROWS, model=base.model).model).decoder.blocks[0].mlp.down
        assert type(down).__name__ == "Adapter" and isinstance(down.base, ScaledLinear)
        assert isinstance(down.base.base, nn.Linear)


# -- wrong knobs -------------------------------------------------------------------------------------------------


def test_nothing_to_train_is_refused_in_one_line():
    with pytest.raises(
        ValueError, match=r"^IA3\.keys, values and mlp are all False, so nothing would train: turn one on$"
    ):
        IA3(keys=False, values=False, mlp=False)
    with pytest.raises(ValueError, match=r"^IA3.keys = 'yes': must be True or False$"):
        IA3(keys="yes")
    with pytest.raises(TypeError, match="IA3 has no knob 'key': did you mean keys"):
        IA3(key=False)

"""The model against its formulas: shapes, what sees what, padding, caches, wrappers, and the sizes of the papers."""

from __future__ import annotations

import math
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from tiny import LLAMA, TIGHT, VARIANTS, WRAPPERS, Bottleneck, T, V, add_lora, add_prefix, build, some, variants
from torch import nn

from llmlab.cache import Cache
from llmlab.layers import (
    Attention,
    Positions,
    RelativeBias,
    RotaryPositions,
    SinusoidalPositions,
    make_norm,
    rotate,
    visible,
)
from llmlab.losses import IGNORE
from llmlab.model import PRESETS, ModelConfig, Transformer, record_attention
from llmlab.precision import computing
from llmlab.pretrained import load_model, save_model
from llmlab.surgery import pass_on, replace_modules

# -- shapes and start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_and_loss_at_the_start(preset):
    model = Transformer(ModelConfig.preset(preset, vocab_size=500, layers=2, init_std=0.02)).eval()
    tokens = torch.randint(0, 500, (4, 20))
    extra = {"source": torch.randint(0, 500, (4, 9))} if model.config.family == "encoder-decoder" else {}
    output = model(tokens, **extra)
    assert output.hidden.shape == (4, 20, 128)
    assert model.logits(output).shape == (4, 20, 500)
    assert model.logits(output, tokens > 250).shape == (int((tokens > 250).sum()), 500)
    assert (output.memory is None) == (preset not in ("transformer", "t5"))
    if preset not in ("transformer", "t5"):  # tied embeddings of unit size start above ln V, in 2017 and in T5
        assert model.loss(output, torch.randint(0, 500, (4, 20))).item() == pytest.approx(math.log(500), abs=0.15)


def test_unknown_settings_are_one_line():
    for wrong, message in (
        (dict(width=10), "10 cannot be split over 4 heads"),
        (dict(kv_heads=3), "4 heads cannot share 3 key heads"),
        (dict(positions="rotary", width=12), "rotary positions need an even width per head"),
        (dict(layers=0), "ModelConfig.layers = 0"),
        (dict(activation="swish"), "unknown activation 'swish'"),
        (dict(positions="relative", relative_span=32), "32 buckets for a span of 32"),
    ):
        with pytest.raises(ValueError, match=message):
            ModelConfig(**wrong)
    with pytest.raises(ValueError, match="unknown preset 'gpt'"):
        ModelConfig.preset("gpt")
    with pytest.raises(ValueError, match="unknown model setting 'depth'"):
        ModelConfig.from_dict({"depth": 3})


def test_config_round_trip():
    config = ModelConfig.preset("llama", width=64)
    assert ModelConfig.from_dict(config.to_dict()) == config


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_of_the_papers():
    """GPT-2 small, BERT-base, LLaMA-7B and Qwen2-0.5B to the last number; nothing is stored on the meta device."""
    gpt2 = dict(vocab_size=50257, context=1024, layers=12, heads=12, width=768)
    bert = dict(vocab_size=30522, context=512, layers=12, heads=12, width=768, head_transform=False, head_bias=False)
    llama = dict(vocab_size=32000, context=2048, layers=32, heads=32, width=4096, mlp_width=11008)
    qwen2 = dict(vocab_size=151936, context=512, layers=24, heads=14, kv_heads=2, width=896, mlp_width=4864, tied=True)
    with torch.device("meta"):
        assert count(Transformer(ModelConfig.preset("gpt2", **gpt2))) == 124_439_808
        assert count(Transformer(ModelConfig.preset("bert", **bert))) == 109_482_240
        assert count(Transformer(ModelConfig.preset("llama", **llama))) == 6_738_415_616
        assert count(Transformer(ModelConfig.preset("qwen2", **qwen2))) == 494_032_768
        base = dict(vocab_size=37000, context=512, layers=6, heads=8, width=512)
        base_2017 = Transformer(ModelConfig.preset("transformer", **base))
    attention, mlp, norm = 4 * 512 * 513, 512 * 2048 * 2 + 2560, 1024
    assert count(base_2017) == 37000 * 512 + 6 * (attention + mlp + 2 * norm) + 6 * (2 * attention + mlp + 3 * norm)


# -- what sees what ----------------------------------------------------------------------------------------------


@variants
def test_a_decoder_does_not_look_ahead(settings):
    model, tokens = build(**settings), some()
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % V
    before, after = (model.logits(model(t)) for t in (tokens, changed))
    torch.testing.assert_close(before[:, :7], after[:, :7], **TIGHT)
    assert (before[:, 7:] - after[:, 7:]).abs().amax(-1).min() > 1e-3


def test_an_encoder_looks_ahead():
    model, tokens = build(family="encoder"), some()
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % V
    assert (model(tokens).hidden[:, 0] - model(changed).hidden[:, 0]).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@pytest.mark.parametrize("side", ["left", "right"])
@variants
def test_padding_changes_nothing(family, side, settings):
    model, lengths = build(family=family, **settings), [4, 11, 7]
    tokens, keep = torch.zeros(3, T, dtype=torch.long), torch.zeros(3, T, dtype=torch.bool)
    rows = [some(1, n, seed=n)[0] for n in lengths]
    for i, row in enumerate(rows):
        where = slice(T - len(row), T) if side == "left" else slice(0, len(row))
        tokens[i, where], keep[i, where] = row, True
    hidden = model(tokens, keep).hidden
    for i, row in enumerate(rows):
        torch.testing.assert_close(hidden[i][keep[i]], model(row[None]).hidden[0], **TIGHT)
    assert hidden.isfinite().all()


@variants
def test_packed_documents_do_not_see_each_other(settings):
    """The loss of documents packed into rows equals their losses alone, weighted by tokens."""
    model = build(**settings)
    documents = [[some(1, n, seed=n)[0] for n in lengths] for lengths in ([5, 2, 4], [1, 10], [11])]
    tokens = torch.stack([torch.cat(row) for row in documents])  # (3, 11)
    owner = torch.stack([torch.cat([torch.full((len(d),), i) for i, d in enumerate(row)]) for row in documents])
    labels = tokens.roll(-1, 1).masked_fill(owner != owner.roll(-1, 1), IGNORE)
    labels[:, -1] = IGNORE
    keep = owner[:, :, None] == owner[:, None, :]  # (B, T, T)
    packed = model.loss(model(tokens, keep), labels)
    alone, total = 0.0, 0
    for document in (d for row in documents for d in row if len(d) > 1):
        loss = model.loss(model(document[None, :-1]), document[None, 1:])
        alone, total = alone + loss.item() * (len(document) - 1), total + len(document) - 1
    assert packed.item() == pytest.approx(alone / total, abs=1e-12)
    assert Positions()(T, 0, keep)[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3]


def test_packing_with_padding_and_a_cache():
    """`keep` (B, T, S) may be given in parts: what is cached equals what is not."""
    model, tokens = build(**LLAMA), some()
    owner = torch.tensor([[0] * 5 + [1] * 6, [0] * 11, [0] * 2 + [1] * 9])
    keep = owner[:, :, None] == owner[:, None, :]
    whole, cache = model(tokens, keep).hidden, Cache(T)
    parts = [model(tokens[:, a:b], keep[:, a:b, :b], cache=cache).hidden for a, b in ((0, 4), (4, 5), (5, 11))]
    torch.testing.assert_close(torch.cat(parts, 1), whole, **TIGHT)


def test_what_is_visible():
    assert visible(3, 3, False, None) is None
    assert visible(1, 5, True, None) is None
    assert visible(2, 4, True, None).tolist() == [[True, True, True, False], [True, True, True, True]]
    keep = torch.tensor([[False, True, True]])
    assert visible(3, 3, False, keep)[0, 0].tolist() == [[False, True, True]] * 3
    padded = [[True, True, False, False], [True, False, True, False], [True, False, True, True]]  # a prefix of one
    assert visible(3, 4, True, keep)[0, 0].tolist() == padded


def test_wrong_masks_are_one_line():
    model = build()
    with pytest.raises(ValueError, match="`keep` must be bool and cover all 11 tokens"):
        model(some(), torch.ones(3, T - 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="`keep` must be bool"):
        model(some(), torch.ones(3, T))
    with pytest.raises(ValueError, match="25 tokens do not fit the model's context of 24"):
        model(some(1, 25))
    with pytest.raises(ValueError, match="needs `source`"):
        build(family="encoder-decoder")(some())


# -- caches ------------------------------------------------------------------------------------------------------


def in_parts(model, tokens, keep=None, cuts=(3, 4, 5, 9), **extra):
    """Hidden vectors of `tokens`, read in several parts with one cache."""
    cache, memory, out = Cache(tokens.size(1)), None, []
    edges = [0, *cuts, tokens.size(1)]
    for a, b in pairwise(edges):
        seen = None if keep is None else keep[:, :b]
        output = model(tokens[:, a:b], seen, cache=cache, memory=memory, **extra)
        memory = output.memory
        out.append(output.hidden)
    return torch.cat(out, 1), cache


def left_padding(lengths=(4, 11, 7)):
    return torch.arange(T) >= T - torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("add", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("padded", [False, True], ids=["even", "left-padded"])
@variants
def test_cached_equals_uncached(settings, padded, add):
    model, tokens, keep = build(**settings), some(), left_padding() if padded else None
    bare = model(tokens, keep).hidden
    add(model)
    whole = model(tokens, keep).hidden
    assert add is WRAPPERS["bare"] or (whole - bare).abs().max() > 1e-3
    parts, _ = in_parts(model, tokens, keep)
    seen = slice(None) if keep is None else keep
    torch.testing.assert_close(parts[seen], whole[seen], **TIGHT)


@pytest.mark.parametrize("add", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("settings", [VARIANTS[n] for n in ("learned", "sinusoidal post-norm", "grouped", "relative")])
def test_cached_equals_uncached_with_an_encoder(settings, add):
    model, tokens = build(family="encoder-decoder", **settings), some()
    add(model)
    source, source_keep = some(3, 9, seed=5), torch.arange(9) < torch.tensor([9, 3, 6])[:, None]
    whole = model(tokens, source=source, source_keep=source_keep).hidden
    parts, _ = in_parts(model, tokens, source=source, source_keep=source_keep)
    torch.testing.assert_close(parts, whole, **TIGHT)
    other = source.clone()
    other[~source_keep] = 0  # what is hidden does not matter
    torch.testing.assert_close(model(tokens, source=other, source_keep=source_keep).hidden, whole, **TIGHT)
    assert (model(tokens, source=source.flip(0), source_keep=source_keep).hidden - whole).abs().max() > 1e-3


@pytest.mark.parametrize("causal", [True, False])
def test_relative_positions(causal):
    """Buckets: near distances one by one, far ones together, each side its own half where both are seen."""
    config = ModelConfig(positions="relative", relative_buckets=8, relative_span=16, heads=2, width=8)
    relative = RelativeBias(config, causal)
    found = relative.bucket(torch.arange(-20, 21)).tolist()
    if causal:  # from 4 on a logarithm: a new bucket at 4 · 4^(k/4) = 4, 5.7, 8, 11.3
        assert found[:20] == [7] * 9 + [6] * 4 + [5] * 2 + [4] * 2 + [3, 2, 1] and found[20:] == [0] * 21
    else:  # with 4 buckets a side, exact below 2
        assert found[20] == 0 and found[19] == 1 and found[21] == 5
        assert found[0] == 3 and found[40] == 7 and {0, 1, 2, 3} == set(found[:21])
        assert [f - 4 for f in found[21:]] == found[19::-1]
    bias = relative(3, 5)
    assert bias.shape == (2, 3, 5)
    for i in range(3):
        for j in range(5):
            bucket = relative.bucket(torch.tensor(j - (i + 2)))
            torch.testing.assert_close(bias[:, i, j], relative.table.weight[bucket])


def test_a_prefix_enters_the_cache_once():
    model = build(**LLAMA)
    add_prefix(model)
    _, cache = in_parts(model, some())
    assert cache.length == T
    assert [blocks.attention.length for blocks in cache.blocks] == [T + 2] * 2


def test_a_prefix_shifts_positions_and_shortens_the_context():
    model = build()
    add_prefix(model)
    model(some(1, 22))
    with pytest.raises(ValueError, match="25 tokens do not fit"):
        model(some(1, 23))


def test_a_cache_writes_in_place():
    model, cache = build(), Cache(8)
    model(some(2, 3), cache=cache)
    first = cache.block(0).attention.keys
    model(some(2, 1), cache=cache)
    assert cache.block(0).attention.keys is first
    assert first.shape == (2, 4, 11, 4)


# -- attention ---------------------------------------------------------------------------------------------------


def by_hand(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    """Equation 1 of Vaswani et al. 2017, one head at a time."""
    size = x.size(-1) // attention.heads
    q, k, v = attention.query(x), attention.kv.key(x), attention.kv.value(x)
    share = attention.heads // attention.kv.heads
    out = []
    for h in range(attention.heads):
        mine, theirs = slice(h * size, (h + 1) * size), slice(h // share * size, (h // share + 1) * size)
        scores = q[..., mine] @ k[..., theirs].mT / math.sqrt(size)
        scores = scores + torch.full(scores.shape[-2:], -math.inf).double().triu(1)
        out.append(scores.softmax(-1) @ v[..., theirs])
    return attention.out(torch.cat(out, -1))


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_attention_is_equation_1(kv_heads):
    attention = build(kv_heads=kv_heads).decoder.blocks[0].attention
    x = torch.randn(2, T, 16).double()
    torch.testing.assert_close(attention(x), by_hand(attention, x), **TIGHT)


@pytest.mark.parametrize("family", ["decoder", "encoder", "encoder-decoder"])
def test_recorded_attention(family):
    model, tokens = build(family=family, kv_heads=2), some()
    extra = {"source": some(3, 5, seed=2)} if family == "encoder-decoder" else {}
    plain = model(tokens, **extra).hidden
    with record_attention(model) as maps:
        recorded = model(tokens, **extra).hidden
    torch.testing.assert_close(recorded, plain, **TIGHT)
    stacks = {"decoder": ["decoder"], "encoder": ["encoder"], "encoder-decoder": ["encoder", "decoder"]}[family]
    names = {f"{s}.blocks.{i}.attention" for s in stacks for i in range(2)}
    names |= {f"decoder.blocks.{i}.cross" for i in range(2)} if family == "encoder-decoder" else set()
    assert set(maps) == names
    for name, (weights,) in maps.items():
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), **TIGHT)
        assert not weights.requires_grad
        ahead = weights.triu(1).abs().max()
        assert ahead == 0 if name.startswith("decoder") and "cross" not in name else ahead > 0
    assert all(m.recorder is None for m in model.modules() if isinstance(m, Attention))


def test_the_recorder_goes_even_after_an_error_and_names_leave_wrappers_out():
    model = build()
    replace_modules(model, ["attention"], Bottleneck)
    maps = _record_and_fail(model)
    assert set(maps) == {f"decoder.blocks.{i}.attention" for i in range(2)}
    assert all(m.recorder is None for m in model.modules() if isinstance(m, Attention))


def _record_and_fail(model):
    try:
        with record_attention(model) as maps:
            model(some())
            raise KeyError
    except KeyError:
        return maps


# -- parts against their formulas --------------------------------------------------------------------------------


def test_norms():
    x, config = torch.randn(3, 5, 16).double(), ModelConfig(width=16, heads=4, norm_eps=1e-3)
    layer = make_norm(config).double()
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    torch.testing.assert_close(layer(x), (x - mean) / (var + 1e-3).sqrt(), **TIGHT)
    rms = make_norm(ModelConfig(width=16, heads=4, norm="rmsnorm", norm_eps=1e-3)).double()
    nn.init.normal_(rms.weight)
    torch.testing.assert_close(rms(x), x / ((x**2).mean(-1, keepdim=True) + 1e-3).sqrt() * rms.weight, **TIGHT)
    assert [n for n, _ in rms.named_parameters()] == ["weight"]


def test_sinusoids():
    table = SinusoidalPositions(30, 12)(torch.arange(30))
    for p, i in ((0, 0), (1, 0), (7, 2), (29, 5)):
        angle = p / 10000 ** (2 * i / 12)
        assert float(table[p, 2 * i]) == pytest.approx(math.sin(angle), abs=1e-6)
        assert float(table[p, 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-6)


def test_rotation_depends_on_the_distance_alone():
    """RoFormer, section 3.2: ⟨R_p q, R_s k⟩ is a function of p - s, and lengths stay."""
    rotary = RotaryPositions(64, 8, 10000.0).double()
    q, k = torch.randn(2, 1, 1, 1, 8).double()

    def turned(x, p):
        return rotate(x, rotary(torch.tensor([p])))

    dots = [float((turned(q, p) * turned(k, p - 5)).sum()) for p in (5, 20, 63)]
    assert dots == pytest.approx([dots[0]] * 3, abs=1e-5)  # the angles are tabled in float32
    assert abs(dots[0] - float((turned(q, 5) * turned(k, 1)).sum())) > 1e-3
    torch.testing.assert_close(turned(q, 17).norm(), q.norm(), rtol=1e-6, atol=0)
    torch.testing.assert_close(turned(q, 0), q, **TIGHT)
    quarter = rotate(torch.tensor([[[[1.0, 0, 0, 0, 0, 0, 0, 0]]]]).double(), rotary(torch.tensor([2])))
    assert float(quarter[..., 0]) == pytest.approx(math.cos(2)) and float(quarter[..., 4]) == pytest.approx(math.sin(2))


def test_a_prefix_is_not_rotated():
    rotary, x = RotaryPositions(64, 8, 10000.0).double(), torch.randn(1, 1, 5, 8).double()
    turned = rotate(x, rotary(torch.arange(1, 4)))
    assert torch.equal(turned[..., :2, :], x[..., :2, :])
    assert (turned[..., 2:, :] != x[..., 2:, :]).all(-1).all()


@pytest.mark.parametrize("where", ["pre", "post"])
def test_where_the_norms_stand(where):
    model, tokens = build(norm_position=where, layers=1), some()
    stack = model.decoder
    block, x = stack.blocks[0], stack.embeddings(tokens, torch.arange(T))
    if where == "pre":  # x + f(norm(x)), and a norm at the end
        x = x + block.attention(block.norm_attention(x))
        x = stack.norm(x + block.mlp(block.norm_mlp(x)))
    else:  # norm(x + f(x))
        x = block.norm_attention(x + block.attention(x))
        x = block.norm_mlp(x + block.mlp(x))
        assert isinstance(stack.norm, nn.Identity)
    torch.testing.assert_close(model(tokens).hidden, x, **TIGHT)


def test_feed_forward():
    x = torch.randn(2, T, 16).double()
    mlp = build(**LLAMA, mlp_width=24).decoder.blocks[0].mlp
    gate = mlp.gate(x)
    torch.testing.assert_close(mlp(x), mlp.down(gate * torch.sigmoid(gate) * mlp.up(x)), **TIGHT)
    assert mlp.up.out_features == 24
    mlp = build(activation="gelu_tanh").decoder.blocks[0].mlp
    h = mlp.up(x)
    gelu = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    torch.testing.assert_close(mlp(x), mlp.down(gelu), **TIGHT)


def test_embeddings_add_what_the_family_adds():
    model = build(token_types=2, scale_embeddings=True)
    parts, tokens, types = model.decoder.embeddings, some(2), torch.tensor([[0] * 5 + [1] * 6] * 2)
    wanted = parts.token.weight[tokens] * 4 + parts.position.weight[:T] + parts.segment.weight[types]
    torch.testing.assert_close(parts(tokens, torch.arange(T), types), wanted, **TIGHT)
    plain = parts(tokens, torch.arange(T))
    torch.testing.assert_close(plain, parts(tokens, torch.arange(T), torch.zeros_like(types)), **TIGHT)


def test_pooled():
    model = build(family="encoder", pooler=True)
    output = model(some())
    torch.testing.assert_close(model.pooled(output), torch.tanh(model.pooler(output.hidden[:, 0])), **TIGHT)
    with pytest.raises(ValueError, match="no pooler"):
        build().pooled(build()(some()))


def test_dropout_is_for_training_alone():
    model, tokens = build(dropout=0.3), some()
    assert torch.equal(model(tokens).hidden, model(tokens).hidden)
    model.train()
    assert not torch.equal(model(tokens).hidden, model(tokens).hidden)
    model.eval()
    assert torch.equal(model(tokens).hidden, build()(tokens).hidden)


# -- tied weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["decoder", "encoder", "encoder-decoder"])
def test_tied_weights_stay_tied(family, tmp_path):
    model = build(family=family).float()
    save_model(model, tmp_path)
    for copy in (model, deepcopy(model), pass_on(model), load_model(tmp_path)):
        stacks = [s for s in (copy.encoder, copy.decoder) if s is not None]
        assert all(s.embeddings.token.weight is copy.head.output.weight for s in stacks)
    untied = build(tied=False)
    assert untied.head.output.weight is not untied.decoder.embeddings.token.weight


def test_a_tied_weight_gets_both_gradients():
    model, tokens = build(), some()
    model.loss(model(tokens), tokens).backward()
    both = model.head.output.weight.grad.clone()
    twin = build(tied=False)
    twin.load_state_dict(model.state_dict())
    twin.loss(twin(tokens), tokens).backward()
    torch.testing.assert_close(both, twin.head.output.weight.grad + twin.decoder.embeddings.token.weight.grad, **TIGHT)


# -- bfloat16 ----------------------------------------------------------------------------------------------------


@variants
def test_bfloat16_steps_keep_float32_weights(settings):
    model, tokens = build(**{**settings, "init_std": 0.1}).float(), some(4)
    add_lora(model)
    model.float()
    frozen = model.decoder.blocks[0].mlp.up.weight
    frozen.requires_grad_(False)
    exact = model.loss(model(tokens[:, :-1]), tokens[:, 1:])
    exact.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with computing(model, "bf16"):
        hidden = model(tokens[:, :-1])
        loss = model.loss(hidden, tokens[:, 1:])
    loss.backward()
    assert hidden.hidden.dtype == torch.bfloat16 and loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.03)
    assert all(isinstance(p, nn.Parameter) and p.dtype == torch.float32 for p in model.parameters())
    assert frozen.grad is None and set(gradients) == {n for n, p in model.named_parameters() if p.grad is not None}
    ours, theirs = (torch.cat([d[n].flatten() for n in gradients]) for d in (gradients, _gradients(model)))
    assert torch.cosine_similarity(ours, theirs, 0) > 0.99
    assert theirs.dtype == torch.float32


def _gradients(model):
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_a_frozen_copy_follows_its_weight():
    model, tokens = build().float(), some()
    model.requires_grad_(False)

    def hidden():
        with computing(model, "bf16"):
            return model(tokens).hidden

    first = hidden()
    assert torch.equal(first, hidden())
    model.decoder.blocks[0].mlp.up.weight.mul_(2)
    assert not torch.equal(first, hidden())
    with computing(model, "fp32"):
        assert model(tokens).hidden.dtype == torch.float32
    with pytest.raises(KeyError), computing(model, "bf16"):
        raise KeyError
    assert all(p.dtype == torch.float32 for p in model.parameters())

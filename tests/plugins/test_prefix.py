"""Prefix-tuning: the numbers of the paper, what a prefix is equal to, and what must not change."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import LLAMA, TIGHT, VARIANTS, T, build, some, variants

from llmlab import Run, Training, detach, merge
from llmlab.cache import Cache
from llmlab.generate import generate
from llmlab.model import ModelConfig, Transformer, record_attention
from llmlab.pretrained import load_model, save_model
from llmlab.surgery import named_parameters
from llmlab_plugins.clm import CLM
from llmlab_plugins.lora import LoRA
from llmlab_plugins.prefix import Prefix, PrefixKeyValue, VirtualTokens

TINY = ModelConfig(vocab_size=400, context=64, layers=2, heads=2, width=32)
ROWS = [{"text": f"The number {i} has the square {i * i}."} for i in range(60)]
WORDS = "The square of the number"
TURNED = {name: settings for name, settings in VARIANTS.items() if name != "relative"}  # there a prefix has no distance


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(1)
    return Run([CLM(window=16)], ROWS, config=TINY, training=Training(steps=20, batch_size=4, learning_rate=1e-2)).fit()


def tune(base, *others, steps=20, **knobs):
    training = Training(steps=max(1, steps), batch_size=4, learning_rate=3e-3)
    techniques = [CLM(window=16), *others, Prefix(**{"length": 5, "hidden": 24} | knobs)]
    run = Run(techniques, ROWS, model=base.model, training=training)
    return run.fit(steps) if steps else run


def adapted(model, **knobs):
    """With a prefix of 3, as a run would build it."""
    torch.manual_seed(5)
    Prefix(**{"length": 3, "hidden": 8} | knobs).adapt_model(model)
    return model


def logits(model):
    model.eval()
    tokens = torch.arange(40).view(2, 20)
    with torch.no_grad():
        return model.logits(model(tokens))


def made(model):
    return [n for n, _ in named_parameters(model) if ".prefix." in n]


# -- the numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "count"), [(5, 245_760), (10, 491_520)])
def test_the_papers_count_for_gpt2_medium(length, count):
    """2·n·L·d: the 250K of the paper's section 6.1, footnote 7."""
    with torch.device("meta"):
        model = Transformer(ModelConfig(width=1024, heads=16, layers=24, vocab_size=50257, context=1024))
        Prefix(length=length, hidden=0).adapt_model(model)
    assert sum(p.numel() for n, p in named_parameters(model) if ".prefix." in n) == count


def test_the_count_with_the_mlp_and_after_it(base):
    run, (n, d, h, columns) = tune(base, steps=0), (5, 32, 24, 2 * 2 * 32)
    assert run.parameters().trainable == n * d + (d * h + h) + (h * columns + columns)
    assert sum(p.numel() for name, p in named_parameters(merge(run.model)) if ".prefix." in name) == n * columns


def test_grouped_queries_have_a_prefix_of_so_many_heads():
    model = adapted(build(kv_heads=2, heads=4, width=16, layers=2), hidden=0)
    assert [tuple(p.shape) for n, p in named_parameters(model) if ".prefix." in n] == [(3, 2 * 2 * 2 * 4)]
    k, v = model.decoder.blocks[0].attention.kv(torch.randn(5, 7, 16).double())
    assert k.shape == v.shape == (5, 2, 3 + 7, 4)


def test_the_mlp_of_the_paper():
    prefix = VirtualTokens(3, 4, 10, 6).double()
    by_hand = torch.stack([prefix.down(torch.tanh(prefix.up(row))) for row in prefix.embedding])
    torch.testing.assert_close(prefix(), by_hand, **TIGHT)
    torch.testing.assert_close(prefix(slice(4, 8)), by_hand[:, 4:8], **TIGHT)


# -- what it computes --------------------------------------------------------------------------------------------


def test_attention_over_the_prefix_and_the_text():
    """softmax(q [P_K; K]ᵀ / √(D/H)) [P_V; V], one head at a time; each layer and head has its own."""
    model = adapted(build(), hidden=0)
    for number, block in enumerate(model.decoder.blocks):
        attention, x = block.attention, torch.randn(1, 6, 16).double()
        table = attention.kv.prefix.table[:, number * 32 : (number + 1) * 32]
        q, k, v = attention.query(x)[0], attention.kv.base.key(x)[0], attention.kv.base.value(x)[0]
        out = []
        for mine in (slice(4 * h, 4 * h + 4) for h in range(4)):
            keys = torch.cat([table[:, :16][:, mine], k[:, mine]])
            values = torch.cat([table[:, 16:][:, mine], v[:, mine]])
            hidden = torch.ones(6, 9).triu(4).bool()  # three places of the prefix are seen by all
            scores = (q[:, mine] @ keys.T / math.sqrt(4)).masked_fill(hidden, -math.inf)
            out.append(scores.softmax(-1) @ values)
        torch.testing.assert_close(attention(x)[0], attention.out(torch.cat(out, -1)), **TIGHT)


@pytest.mark.parametrize("hidden", [0, 32])
@pytest.mark.parametrize("settings", TURNED.values(), ids=TURNED)
def test_started_from_words_it_is_those_words(settings, hidden):
    """Their keys and values, already rotated, and the text's places after them: the very same function."""
    model = build(**settings)
    model.tokenizer = Spelling()
    tokens, words = some(), torch.tensor([Spelling().encode(WORDS)[:5]]).expand(3, -1)
    expected = model(torch.cat([words, tokens], 1)).hidden[:, 5:]
    adapted(model, length=5, hidden=hidden, words=WORDS)
    torch.testing.assert_close(model(tokens).hidden, expected, rtol=0, atol=1e-9)


class Spelling:
    """A letter a token."""

    def encode(self, text):
        return [ord(c) % 41 for c in text]


def test_words_are_repeated_to_the_length():
    model = build()
    model.tokenizer = Spelling()
    ids = torch.tensor([Spelling().encode("abcabcab")])
    expected = model(torch.cat([ids, some(1)], 1)).hidden[:, 8:]
    torch.testing.assert_close(adapted(model, length=8, hidden=0, words="abc")(some(1)).hidden, expected, **TIGHT)


@variants
def test_cached_padded_and_packed(settings):
    model, tokens = adapted(build(**settings)), some()
    whole = model(tokens).hidden
    cache = Cache(T)
    parts = torch.cat([model(tokens[:, a:b], cache=cache).hidden for a, b in ((0, 4), (4, 5), (5, T))], 1)
    torch.testing.assert_close(parts, whole, **TIGHT)
    assert [blocks.attention.length for blocks in cache.blocks] == [T + 3] * 2 and cache.length == T
    keep = torch.arange(T) >= torch.tensor([4, 0, 6])[:, None]  # left padding
    padded = model(tokens, keep).hidden
    torch.testing.assert_close(padded[0, 4:], model(tokens[:1, 4:]).hidden[0], **TIGHT)
    owner = torch.tensor([0] * 5 + [1] * (T - 5))  # two documents in a row, each sees the prefix
    packed = model(tokens, (owner[:, None] == owner).expand(3, -1, -1)).hidden
    alone = torch.cat([model(tokens[:, :5]).hidden, model(tokens[:, 5:]).hidden], 1)
    if settings.get("positions") != "relative":  # its distances are counted over the whole row
        torch.testing.assert_close(packed, alone, **TIGHT)


@variants
def test_writing_with_and_without_a_cache(settings, monkeypatch):
    model, prompts = adapted(build(**settings)), [[1, 2, 3], [4, 5, 6, 7, 8, 9, 3, 2], [7]]
    slow = generate(model, prompts, max_new_tokens=30, temperature=0, cached=False)
    made, real = [], VirtualTokens.features
    monkeypatch.setattr(VirtualTokens, "features", lambda self: (made.append(1), real(self))[1])
    fast = generate(model, prompts, max_new_tokens=30, temperature=0)
    assert fast.rows() == slow.rows() and fast.mask.sum(1).tolist() == [18, 13, 20]  # of 24 places 3 are the prefix's
    assert len(made) == 2, "one pass of the MLP a layer, at the prompt, and none for a new token"


def test_the_shortcut_is_taken(monkeypatch):
    """The modules are called for the prompt alone."""
    model, calls = adapted(build()), []
    model.decoder.blocks[0].register_forward_hook(lambda *args: calls.append(1))
    generate(model, [[1, 2], [3]], max_new_tokens=6, temperature=0)
    assert len(calls) == 6  # a hook is in the way
    model.decoder.blocks[0]._forward_hooks.clear()
    monkeypatch.setattr(
        PrefixKeyValue, "forward", lambda self, x, f=PrefixKeyValue.forward: (calls.append(1), f(self, x))[1]
    )
    calls.clear()
    generate(model, [[1, 2], [3]], max_new_tokens=6, temperature=0)
    assert len(calls) == 2


@pytest.mark.parametrize("settings", [{}, LLAMA, VARIANTS["relative"]], ids=["learned", "rotary", "relative"])
def test_an_encoder_decoder_has_three_kinds(settings):
    """The encoder's own, the decoder's own, and before the encoder's memory, as the paper gives BART."""
    model = adapted(build(family="encoder-decoder", **settings))
    source, keep = some(3, 9, seed=5), torch.arange(9) < torch.tensor([9, 3, 6])[:, None]
    with record_attention(model) as maps:
        whole = model(some(), source=source, source_keep=keep).hidden
    for name, (weights,) in maps.items():
        keys = 9 if name.startswith("encoder") or "cross" in name else T
        assert weights.size(-1) == 3 + keys and (weights[..., :3] > 0).all(), name
    assert len(maps) == 2 + 2 + 2
    cache, memory, parts = Cache(T), None, []
    for a, b in ((0, 4), (4, 5), (5, T)):
        output = model(some()[:, a:b], cache=cache, memory=memory, source=source, source_keep=keep)
        memory = output.memory
        parts.append(output.hidden)
    torch.testing.assert_close(torch.cat(parts, 1), whole, **TIGHT)
    torch.testing.assert_close(merge_by_hand(model)(some(), source=source, source_keep=keep).hidden, whole, **TIGHT)


def merge_by_hand(model):
    model.adaptations["prefix"] = {"knobs": {}, "parameters": made(model), "originals": {}}
    return merge(model)


def test_an_encoder():
    model = adapted(build(family="encoder"))
    keep = torch.arange(T) < torch.tensor([4, T, 6])[:, None]
    short = model(some()[:1, :4]).hidden
    torch.testing.assert_close(model(some(), keep).hidden[0, :4], short[0], **TIGHT)
    assert not torch.allclose(short, build(family="encoder")(some()[:1, :4]).hidden, atol=1e-3)


def test_it_takes_places_of_the_context():
    model = adapted(build())
    model(some(1, 21))
    with pytest.raises(ValueError, match="22 tokens and a prefix of 3 do not fit the context of 24"):
        model(some(1, 22))
    with pytest.raises(ValueError, match=r"Prefix\.length = 24: leaves no room in the model's context of 24"):
        adapted(build(), length=24)
    with pytest.raises(ValueError, match=r"Prefix\.words = 'go': needs a decoder with a tokenizer"):
        adapted(build(family="encoder"), words="go")


# -- what trains and what stays ----------------------------------------------------------------------------------


def test_it_does_not_start_at_the_base(base):
    """Unlike LoRA: random keys take some of every token's attention."""
    assert not torch.allclose(logits(tune(base, steps=0).model), logits(base.model), atol=1e-2)


@pytest.mark.parametrize("hidden", [0, 24])
def test_what_it_does_not_train_is_bit_for_bit_the_base(base, hidden):
    run = tune(base, hidden=hidden)
    given = dict(named_parameters(base.model))
    assert all(torch.equal(p, given[n]) for n, p in named_parameters(run.model) if n in given)
    assert {n for n, p in named_parameters(run.model) if p.requires_grad} == set(made(run.model))
    assert torch.equal(logits(detach(run.model)), logits(base.model))
    assert not made(detach(run.model)) and not detach(run.model).adaptations


def test_every_trainable_is_reached_by_a_gradient(base):
    for hidden in (0, 24):
        run = tune(base, steps=1, hidden=hidden)
        grads = [p.grad for p in run.model.parameters() if p.requires_grad]
        assert len(grads) == (5 if hidden else 1) and all(g is not None and g.abs().sum(-1).all() for g in grads)


@pytest.mark.parametrize(("knobs", "rate"), [({}, 1e-2), ({"hidden": 0}, 0.3), ({"words": WORDS}, 1e-2)])
def test_it_learns(base, knobs, rate):
    """Known words in another order."""
    turned = [{"text": f"The square {i * i} has the number {i}."} for i in range(60)]
    training = Training(steps=80, batch_size=4, learning_rate=rate)
    run = Run([CLM(window=16), Prefix(length=5, **{"hidden": 24} | knobs)], turned, model=base.model, training=training)
    before = run.losses("train")["loss"]
    run.fit()
    assert run.losses("train")["loss"] < 0.8 * before


def test_a_step_in_bfloat16(base):
    run = tune(base, steps=0)
    run.training.precision = "bf16"
    run.fit(2)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in run.model.parameters())


def test_a_resumed_run_is_bit_for_bit_the_same(base, tmp_path):
    whole, part = tune(base), tune(base, steps=0)
    part.training.steps = 20
    part.fit(8).save(tmp_path)
    again = Run.load(tmp_path, ROWS).fit(12)
    assert all(torch.equal(p, q) for p, q in zip(again.model.parameters(), whole.model.parameters(), strict=True))


# -- without the MLP ---------------------------------------------------------------------------------------------


def test_merged_it_is_the_prefix_alone(base, tmp_path):
    run = tune(base)
    before, names = logits(run.model), made(run.model)
    merged = merge(run.model)
    assert torch.allclose(logits(merged), before, atol=1e-6)
    assert made(merged) == ["decoder.positions.prefix.table"] and made(run.model) == names
    assert merged.adaptations["prefix"]["knobs"] == {"length": 5, "hidden": 0, "words": ""}
    assert merged.adaptations["prefix"]["parameters"] == made(merged)
    assert torch.equal(logits(merge(merged)), logits(merged)), "merged again it is what it was"
    assert torch.equal(logits(detach(merged)), logits(base.model))
    save_model(merged, tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(logits(loaded), logits(merged)) and loaded.adaptations == merged.adaptations
    assert torch.equal(logits(detach(loaded)), logits(base.model))
    on = Run([CLM(window=16), Prefix(length=5, hidden=0)], ROWS, model=loaded, training=Training(steps=3, batch_size=4))
    assert torch.equal(logits(on.model), logits(merged)) and on.parameters().trainable == 5 * 2 * 2 * 32
    on.fit()
    assert torch.equal(logits(detach(on.model)), logits(base.model))
    with pytest.raises(ValueError, match=r"carries prefix\(length=5, hidden=0.*hidden=24.*detach\(model\)"):
        tune(run_of(merged))


def run_of(model):
    return type("", (), {"model": model})


def test_other_merges_in_the_same_model(base):
    run = tune(base, LoRA(rank=2))
    before = logits(run.model)
    both, lora, prefix = merge(run.model), merge(run.model, "lora"), merge(run.model, "prefix")
    for model in (both, lora, prefix):
        assert torch.allclose(logits(model), before, atol=2e-5)
    assert list(both.adaptations) == list(lora.adaptations) == ["prefix"] and set(prefix.adaptations) == {
        "lora",
        "prefix",
    }
    assert made(lora) == made(run.model) and made(both) == made(prefix) == ["decoder.positions.prefix.table"]
    assert lora.adaptations["prefix"] == run.model.adaptations["prefix"]
    assert prefix.adaptations["lora"]["knobs"] == run.model.adaptations["lora"]["knobs"]
    assert torch.equal(logits(detach(run.model)), logits(base.model))

"""Writing text: greedy and sampled, many prompts at once, with and without cache and shortcut."""

from __future__ import annotations

import importlib

import pytest
import torch
from tiny import LLAMA, VARIANTS, WRAPPERS, V, add_lora, build, variants
from torch import nn

from llmlab.generate import choose, evaluating, generate, respond
from llmlab.layers import Attention
from llmlab.model import record_attention
from llmlab.surgery import Wrapper, merge, replace_modules
from llmlab.tokenizer import Tokenizer

module = importlib.import_module("llmlab.generate")  # the package's attribute of this name is the function
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 3, 2], [7]]


@pytest.fixture
def taken(monkeypatch):
    """A list that says for each text whether the shortcut was taken."""
    found = []
    real = module.shortcut

    def spy(*args):
        step = real(*args)
        found.append(step is not None)
        return step

    monkeypatch.setattr(module, "shortcut", spy)
    return found


def naive(model, prompt, new, stop=None):
    """The likeliest token, again and again, everything computed anew."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(min(new, model.config.context - len(prompt))):
            ids.append(int(model.logits(model(torch.tensor([ids])))[0, -1].argmax()))
            if ids[-1] == stop:
                break
    return ids[len(prompt) :]


# -- greedy ------------------------------------------------------------------------------------------------------


@variants
def test_greedy_is_the_naive_loop(settings, taken):
    model = build(**settings)
    wanted = [naive(model, p, 12) for p in PROMPTS]
    assert generate(model, PROMPTS, max_new_tokens=12, temperature=0).rows() == wanted
    assert generate(model, PROMPTS, max_new_tokens=12, temperature=0, cached=False).rows() == wanted
    for prompt, row in zip(PROMPTS, wanted, strict=True):
        assert generate(model, [prompt], max_new_tokens=20, temperature=0).rows()[0][:12] == row
    assert taken == [True] * 4


@pytest.mark.parametrize("add", WRAPPERS.values(), ids=WRAPPERS)
@variants
def test_greedy_with_wrappers(settings, add, taken):
    model = build(**settings)
    add(model)
    got = generate(model, PROMPTS, max_new_tokens=10, temperature=0)
    assert got.rows() == [naive(model, p, 10) for p in PROMPTS]
    assert taken == [add in (WRAPPERS["bare"], WRAPPERS["lora"])]


def test_the_shortcut_computes_what_the_modules_do():
    """Logits of both ways agree to rounding, whatever the number of rows."""
    both = dict(family="encoder-decoder")
    for settings in ({}, LLAMA, {**LLAMA, "kv_heads": 2}, both, VARIANTS["relative"] | both):
        model, start = build(**settings), {"bos": 1} if "family" in settings else {}
        add_lora(model)
        for prompts in (PROMPTS, [[1, 2]]):
            seen = {}
            for fast in (True, False):
                seen[fast] = logits = []
                real, keep = module.shortcut, module.choose
                try:
                    module.choose = lambda x, *rest, to=logits, keep=keep: (to.append(x), keep(x, *rest))[1]
                    module.shortcut = real if fast else lambda *args: None
                    generate(model, prompts, max_new_tokens=20, temperature=0, **start)
                finally:
                    module.shortcut, module.choose = real, keep
            torch.testing.assert_close(torch.stack(seen[True]), torch.stack(seen[False]), rtol=1e-5, atol=1e-5)


def test_no_shortcut_where_something_is_in_the_way(taken):
    class Odd(nn.Linear):
        pass

    def odd(model):
        model.decoder.blocks[1].mlp.up.__class__ = Odd

    def patched(model):
        model.decoder.blocks[1].mlp.forward = lambda x: x

    for change in (
        lambda model: model.decoder.blocks[0].register_forward_hook(lambda *args: None),
        lambda model: model.head.output.register_forward_pre_hook(lambda *args: None),
        odd,
        patched,
        lambda model: replace_modules(model, ["head"], Double),
    ):
        model = build()
        change(model)
        assert generate(model, PROMPTS, max_new_tokens=4, temperature=0).rows() == [naive(model, p, 4) for p in PROMPTS]
    with record_attention(build()) as maps:
        pass
    model = build()
    with record_attention(model) as maps:
        generate(model, PROMPTS, max_new_tokens=4, temperature=0)
    assert len(maps["decoder.blocks.0.attention"]) == 4
    assert not any(taken) and len(taken) == 6


class Double(Wrapper):
    def forward(self, x):
        return torch.cat([2 * self.base(x)[..., :1], self.base(x)[..., 1:]], -1)


def test_generating_changes_nothing():
    model = build(dropout=0.5).train()
    add_lora(model)
    before = {n: p.clone() for n, p in model.state_dict().items()}
    a, b = (generate(model, PROMPTS, max_new_tokens=6, temperature=0) for _ in range(2))
    assert model.training and a.rows() == b.rows()
    assert all(torch.equal(p, before[n]) for n, p in model.state_dict().items())
    assert not any(m.recorder for m in model.modules() if isinstance(m, Attention))
    model(a.tokens)  # its tensors may go into a graph
    assert not a.tokens.is_inference()
    with pytest.raises(ValueError, match="boom"), evaluating(model):
        raise ValueError("boom")
    assert model.training


def test_merged_and_adapted_write_the_same():
    model = build()
    add_lora(model)
    got = [generate(m, PROMPTS, max_new_tokens=12, temperature=0).rows() for m in (model, merge(model))]
    assert got[0] == got[1]


@pytest.mark.parametrize("add", WRAPPERS.values(), ids=WRAPPERS)
@variants
def test_encoder_decoder(settings, add, taken):
    model = build(family="encoder-decoder", **settings)
    add(model)
    for prompts in (PROMPTS, PROMPTS[1:2]):
        got = generate(model, prompts, max_new_tokens=9, temperature=0, bos=1)
        again = generate(model, prompts, max_new_tokens=9, temperature=0, bos=1, cached=False)
        assert got.rows() == again.rows()
        for prompt, row in zip(prompts, got.rows(), strict=True):
            ids = [1]
            for _ in range(9):
                output = model(torch.tensor([ids]), source=torch.tensor([prompt]))
                ids.append(int(model.logits(output)[0, -1].argmax()))
            assert row == ids[1:]
    assert taken == [add in (WRAPPERS["bare"], WRAPPERS["lora"])] * 2


# -- the end of a text -------------------------------------------------------------------------------------------


def test_stop_and_mask():
    model = build()
    whole = [naive(model, p, 12) for p in PROMPTS]
    stop = next(t for t in whole[0][2:] if t not in whole[0][:2])
    got = generate(model, PROMPTS, max_new_tokens=12, temperature=0, stop=stop, pad_id=40)
    wanted = [naive(model, p, 12, stop) for p in PROMPTS]
    assert got.rows() == wanted
    assert got.mask.tolist() == [[i < len(w) for i in range(got.mask.size(1))] for w in wanted]
    assert got.mask.size(1) == max(map(len, wanted))
    assert (got.tokens[~got.mask] == 40).all()


def test_each_row_writes_to_the_context_s_end():
    """Also beside a longer prompt, which ends sooner."""
    for settings in ({}, LLAMA, dict(positions="sinusoidal")):
        model = build(**settings)
        for cached in (True, False):
            got = generate(model, PROMPTS, max_new_tokens=100, temperature=0, cached=cached)
            assert got.mask.sum(1).tolist() == [21, 16, 23]
            assert got.rows() == [naive(model, p, 100) for p in PROMPTS]
    got = generate(build(), [[1] * 23], max_new_tokens=100)
    assert got.tokens.shape == (1, 1)
    got = generate(build(family="encoder-decoder"), [[1] * 24], max_new_tokens=100, bos=0)
    assert got.tokens.shape == (1, 23)


def test_a_prefix_takes_room(taken):
    model = build()
    WRAPPERS["prefix"](model)
    assert generate(model, PROMPTS, max_new_tokens=100).mask.sum(1).tolist() == [19, 14, 21]
    with pytest.raises(ValueError, match="a prompt of 24 tokens leaves no room in a context of 24"):
        generate(model, [[1] * 22])


# -- sampling ----------------------------------------------------------------------------------------------------


def allowed(p, top_k, top_p):
    """Brute force: the k likeliest tokens, and of these the fewest whose share reaches p."""
    ranked = sorted(range(len(p)), key=lambda i: -p[i])[: top_k or None]
    total, sum_, kept = sum(p[i] for i in ranked), 0.0, []
    for i in ranked:
        if sum_ >= top_p * total:
            break
        kept.append(i)
        sum_ += p[i]
    return set(kept)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.6), (5, 0.6), (1, 1.0), (0, 1e-6), (99, 0.9)])
def test_choose_draws_from_the_right_distribution(temperature, top_k, top_p):
    torch.manual_seed(3)
    logits, n = torch.randn(12) * 1.5, 20_000
    p = (logits.double() / temperature).softmax(-1)
    kept = allowed(p.tolist(), top_k, top_p)
    wanted = torch.tensor([float(p[i]) if i in kept else 0.0 for i in range(12)])
    wanted = wanted / wanted.sum()
    uniform = (torch.arange(n) + 0.5) / n  # every quantile once: no luck in it
    got = choose(logits.expand(n, -1), temperature, top_k, top_p, uniform).bincount(minlength=12) / n
    torch.testing.assert_close(got, wanted.float(), rtol=0, atol=2e-4)


def test_choose_at_the_edges():
    logits = torch.tensor([[0.0, 2.0, 1.0, -1e9]]).expand(2, -1)
    edge = torch.tensor([0.0, 1 - 2**-24])  # the least and the greatest that torch.rand gives
    assert choose(logits, 1.0, 0, 1.0, edge).tolist() == [0, 2]
    assert choose(logits, 1.0, 2, 1.0, edge).tolist() == [1, 2]
    assert choose(logits, 1.0, 0, 0.7, edge).tolist() == [1, 2]
    assert choose(logits, 1e-30, 0, 1.0, edge).tolist() == [1, 1]
    assert choose(logits, 0.0, 0, 1.0, None).tolist() == [1, 1]
    ramp = -torch.arange(1000.0).expand(2, -1) * 1e-6
    assert choose(ramp, 1.0, 0, 0.3, edge)[1] < 302 and choose(ramp, 1.0, 300, 1.0, edge)[1] == 299


def test_a_sample_is_seeded_and_does_not_depend_on_its_neighbours():
    model = build()
    settings = dict(max_new_tokens=10, temperature=1.3, top_k=20, top_p=0.95)
    first = generate(model, PROMPTS, seed=5, **settings)
    assert generate(model, PROMPTS, seed=5, **settings).rows() == first.rows()
    assert generate(model, PROMPTS, seed=6, **settings).rows() != first.rows()
    others = [[9, 9, 9, 9], PROMPTS[1], [3], [2, 2], [8]]
    assert generate(model, others, seed=5, **settings).rows()[1] == first.rows()[1]
    assert generate(model, PROMPTS[:1], seed=5, **settings).rows()[0] == first.rows()[0]
    assert generate(model, PROMPTS[:1], seed=5, **{**settings, "max_new_tokens": 4}).rows()[0] == first.rows()[0][:4]
    assert generate(model, PROMPTS, seed=5, cached=False, **settings).rows() == first.rows()
    before = torch.random.get_rng_state()
    generate(model, PROMPTS, **settings)
    assert torch.equal(before, torch.random.get_rng_state())
    same = [torch.Generator().manual_seed(1) for _ in range(2)]
    a, b = generate(model, [PROMPTS[0]] * 2, draws=same, **settings).rows()
    assert a == b


# -- errors, and text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([], {}, "every prompt needs at least one token"),
        ([[1], []], {}, "every prompt needs at least one token"),
        ([[1] * 24], {}, "a prompt of 24 tokens leaves no room in a context of 24"),
        ([[1, V]], {}, "id 41 in a prompt: this model's vocabulary has ids 0 to 40"),
        ([[-1]], {}, "id -1 in a prompt"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens = 0: must be at least 1"),
        ([[1]], {"temperature": -0.1}, "temperature = -0.1: must be at least 0"),
        ([[1]], {"temperature": float("nan")}, "temperature = nan: must be at least 0"),
        ([[1]], {"top_k": -1}, "top_k = -1: must be at least 0"),
        ([[1]], {"top_p": 0.0}, "top_p = 0.0: must be above 0, at most 1"),
    ],
)
def test_errors(prompts, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        generate(build(), prompts, **settings)
    assert "\n" not in str(caught.value)


def test_errors_of_the_families():
    with pytest.raises(ValueError, match=r"an encoder fills blanks \(`fill`\) and writes no text"):
        generate(build(family="encoder"), [[1]])
    with pytest.raises(ValueError, match="give its id"):
        generate(build(family="encoder-decoder"), [[1]])


def test_respond():
    model = build(vocab_size=400)
    with pytest.raises(ValueError, match="no tokenizer"):
        respond(model, ["a"])
    model.tokenizer = tok = Tokenizer.train(["the cat sat on the mat"] * 20, 400)
    got = respond(model, ["the cat", "the"], max_new_tokens=5)
    rows = generate(model, [[tok.bos, *tok.encode(t)] for t in ("the cat", "the")], max_new_tokens=5, temperature=0)
    assert got.text == [tok.decode(row) for row in rows.rows()]
    assert len(got) == 2 and got.tokens.shape == got.mask.shape

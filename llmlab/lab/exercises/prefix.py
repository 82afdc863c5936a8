"""Exercises of lesson 43, prefix-tuning."""

from __future__ import annotations

from typing import Any

from . import call, close, exercise, need, number


@exercise("prefix.1", expects="a whole number")
def how_many(answer: Any) -> str:
    """32 layers, 8 key heads of width 128, 20 virtual tokens."""
    one = 20 * 8 * 128  # the keys of one layer
    need(answer != one, "those are the keys of one layer")
    need(answer != 2 * one, "that is one layer; how many are there?")
    need(answer != 32 * one, "that is one vector a layer and token; what does attention need of a token?")
    need(answer != 2 * 32 * 20 * 4096, "the keys and values here are narrower than the model: count the key heads")
    need(answer != 20 * 4096, "that is a soft prompt: embeddings, and no layers")
    number(answer, 2 * 32 * one, "2 · n · L · d, where d is the width of all keys of one token in one layer")
    return "1,310,720 numbers: with as many key heads as query heads it would be four times as many."


@exercise("prefix.2", expects="a function attend(q, K, V, P_K, P_V)")
def attention(answer: Any) -> str:
    """softmax(q [P_K; K]ᵀ / √w) [P_V; V], causal in the text."""
    import torch

    draw = torch.Generator().manual_seed(0)
    for T, n, w in ((4, 3, 6), (5, 1, 2), (1, 2, 4), (3, 7, 5)):
        q, K, V = (torch.randn(T, w, generator=draw) for _ in range(3))
        P_K, P_V = (torch.randn(n, w, generator=draw) for _ in range(2))
        got = call(answer, q, K, V, P_K, P_V, what="attend")
        if isinstance(got, torch.Tensor) and got.shape == (T, w):
            for hint, wrong in _mistakes(q, K, V, P_K, P_V).items():
                need(not torch.allclose(got, wrong, atol=1e-5), hint)
        close(got, _attend(q, K, V, P_K, P_V), f"wrong for T = {T}, n = {n}: what may token 0 look at?", "attend")
    return "The triangle covers the text alone; the softmax covers both, so the prefix takes attention from the text."


def _attend(q: Any, K: Any, V: Any, P_K: Any, P_V: Any, seen: Any = None, scale: bool = True) -> Any:
    import torch

    T, n = len(q), len(P_K)
    if seen is None:
        seen = torch.ones(T, n + T, dtype=torch.bool).tril(n)
    scores = q @ torch.cat([P_K, K]).T / (q.size(-1) ** 0.5 if scale else 1.0)
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ torch.cat([P_V, V])


def _mistakes(q: Any, K: Any, V: Any, P_K: Any, P_V: Any) -> dict[str, Any]:
    """What plausible mistakes compute, by their hints; those that happen to be right here are left out."""
    import torch

    T, n = len(q), len(P_K)
    every = torch.ones(T, n + T, dtype=torch.bool)
    own = _attend(q, K, V, K[:0], V[:0])
    prefix_alone = (q @ P_K.T / q.size(-1) ** 0.5).softmax(-1) @ P_V
    found = {
        "the mask is lined up on the left: token 0 should see all n rows of the prefix": every.tril(),
        "tokens see what comes after them: the text needs its triangle": every,
        "the row before a token's own is the last it sees: shift the triangle": every.tril(n - 1),
    }
    wrong = {hint: _attend(q, K, V, P_K, P_V, seen) for hint, seen in found.items()}
    wrong["the scores want a division by √w"] = _attend(q, K, V, P_K, P_V, scale=False)
    wrong["the prefix is not looked at"] = own
    wrong["two softmaxes added: one softmax goes over the prefix and the text"] = own + prefix_alone
    right = _attend(q, K, V, P_K, P_V)
    return {hint: w for hint, w in wrong.items() if not torch.allclose(w, right, atol=1e-4)}


@exercise("prefix.3", expects="a class Prefixed(kv, length), a torch.nn.Module")
def wrapper(answer: Any) -> str:
    """What trains, the shapes, the order, every row, and the gradients."""
    import torch
    from torch import nn

    need(isinstance(answer, type), "the answer is the class itself: its name, without quotation marks or parentheses")
    need(issubclass(answer, nn.Module), "Prefixed should be a torch.nn.Module: class Prefixed(nn.Module)")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for heads, length in ((4, 3), (2, 1), (1, 5)):
            _wraps_right(answer, heads, length)
    return "One prefix for every row, before the text, and nothing else trains: `PrefixKeyValue` does the same."


def _wraps_right(cls: Any, heads: int, length: int) -> None:
    import torch

    from ...layers import KeyValue
    from ...model import ModelConfig

    kv = KeyValue(ModelConfig(width=12, heads=4, kv_heads=heads, positions="learned"))
    w = kv.key.out_features // kv.heads
    made = call(cls, kv, length, what="Prefixed")
    trains = {name: p for name, p in made.named_parameters() if p.requires_grad}
    need(not any(p.requires_grad for p in kv.parameters()), "kv still trains: requires_grad_(False)")
    need(sorted(trains) == ["P_K", "P_V"], f"what trains is {sorted(trains)}: P_K and P_V are wanted, as nn.Parameter")
    for name, p in trains.items():
        need(tuple(p.shape) == (heads, length, w), f"{name} has the shape {tuple(p.shape)}, not (H, n, w)")
    with torch.no_grad():
        for p in trains.values():
            p.normal_()
    x = torch.randn(3, 4, 12)
    got = call(made, x, what="Prefixed")
    need(isinstance(got, tuple | list) and len(got) == 2, "it should return two tensors, keys and values")
    for have, plain, p, name in zip(got, kv(x), (made.P_K, made.P_V), ("keys", "values"), strict=True):
        need(isinstance(have, torch.Tensor), f"the {name} are no tensor")
        shape = (3, heads, length + 4, w)
        need(
            tuple(have.shape) == shape, f"the {name} have the shape {tuple(have.shape)}, not (B, H, n + T, w) = {shape}"
        )
        need(torch.equal(have[:, :, length:], plain), f"the text's {name} should stand last, as kv makes them")
        close(have[:, :, :length].detach(), p.detach().expand(3, -1, -1, -1), f"before the text's {name} comes P", "it")
    sum(t.sum() for t in got).backward()
    for name, p in trains.items():
        need(p.grad is not None, f"no gradient reaches {name}: is it detached, or copied by .data?")
        close(p.grad, torch.full_like(p, 3.0), f"the gradient of {name} should be the sum over the rows", "it")

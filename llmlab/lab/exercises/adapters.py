"""Exercises of lesson 41, adapters."""

from __future__ import annotations

from typing import Any

from . import call, close, exercise, need, number


@exercise("adapters.1", expects="a whole number")
def how_many(answer: Any) -> str:
    """BERT-base: 12 layers of width 768, bottlenecks of 64, two in each layer."""
    d, m, layers = 768, 64, 12
    one = 2 * m * d + d + m
    need(answer != one, "that is one adapter; how many are there in the whole model?")
    need(answer != layers * one, "that is one adapter a layer; where else does one sit?")
    need(answer != 2 * one, "that is one layer; how many are there?")
    need(answer != 2 * layers * 2 * m * d, "those are the matrices; each of the two maps also adds a bias")
    need(answer != 2 * layers * (m * d + d + m), "an adapter has two matrices, one down and one up")
    need(answer != 2 * layers * (2 * m * d + 2 * d), "the bias of the map down has as many numbers as its output")
    need(answer != 2 * layers * (one + 2 * d), "the norms are not to be counted here")
    number(answer, 2 * layers * one, "count one adapter by its four tensors; then count the adapters")
    return "99,136 numbers an adapter, 24 adapters: about 2 % of BERT-base."


@exercise("adapters.2", expects="a function adapter(h, W_down, b_down, W_up, b_up)")
def one_adapter(answer: Any) -> str:
    """h + W_up relu(W_down h + b_down) + b_up, for any number of leading dimensions."""
    import torch

    draw = torch.Generator().manual_seed(0)
    for shape, d, m in (((3,), 4, 4), ((2, 3), 5, 2), ((), 6, 3), ((1, 2, 2), 3, 7)):
        h = torch.randn(*shape, d, generator=draw)
        down, up = torch.randn(m, d, generator=draw), torch.randn(d, m, generator=draw)
        b_down, b_up = torch.randn(m, generator=draw), torch.randn(d, generator=draw)
        got = call(answer, h, down, b_down, up, b_up, what="adapter")
        low = (h @ down.T + b_down).relu()
        if isinstance(got, torch.Tensor) and got.shape == h.shape:
            for wrong, hint in (
                (low @ up.T + b_up, "only what the bottleneck adds comes back: what becomes of h itself?"),
                (h + (h @ down.T + b_down) @ up.T + b_up, "nothing bends between the two maps: where is the ReLU?"),
                (h + low @ up.T, "one bias is missing"),
                (h + (h @ down.T).relu() @ up.T + b_up, "one bias is missing"),
                ((h + low @ up.T + b_up).relu(), "the ReLU stands at the end; it belongs between the two maps"),
                (h + (low @ up.T + b_up).relu(), "the ReLU stands after the second map; it belongs between the two"),
            ):
                need(not torch.allclose(got, wrong, atol=1e-5), hint)
        close(got, h + low @ up.T + b_up, "it is not h + W_up relu(W_down h + b_down) + b_up", "adapter")
    return "With W_up and b_up at zero it returns h: that is the identity that training starts near."


@exercise("adapters.3", expects="a function folded(W, b, W_down, b_down, W_up, b_up) that returns two tensors")
def folding(answer: Any) -> str:
    """Without its bend an adapter folds into the layer before it: W + W_up W_down W, and the bias that goes with it."""
    import torch

    draw = torch.Generator().manual_seed(0)
    for d_in, d, m in ((4, 4, 4), (3, 5, 2), (6, 2, 3)):
        W, b = torch.randn(d, d_in, generator=draw), torch.randn(d, generator=draw)
        down, up = torch.randn(m, d, generator=draw), torch.randn(d, m, generator=draw)
        b_down, b_up = torch.randn(m, generator=draw), torch.randn(d, generator=draw)
        got = call(answer, W, b, down, b_down, up, b_up, what="folded")
        need(
            isinstance(got, tuple | list) and len(got) == 2, "folded should return two tensors: the weight and the bias"
        )
        matrix, bias = W + up @ down @ W, b + up @ (down @ b + b_down) + b_up
        if all(isinstance(t, torch.Tensor) for t in got) and got[0].shape == matrix.shape:
            need(not torch.allclose(got[0], up @ down @ W, atol=1e-4), "the skip is missing: W itself has to stay")
            if matrix.shape == (d, d):
                need(
                    not torch.allclose(got[0], W + up @ down, atol=1e-4), "the adapter meets W x, not x: what meets W?"
                )
            if got[1].shape == bias.shape:
                need(
                    not torch.allclose(got[1], b + up @ b_down + b_up, atol=1e-4),
                    "the layer's own bias b passes through the adapter, too",
                )
        close(
            got[0], matrix, "the weight is not that of the two layers together: write out h + W_up W_down h", "folded"
        )
        close(got[1], bias, "the bias is not that of the two layers together: set x to zero, and see", "folded")
    return "What was added to W has rank m at most, as LoRA's update has: the bend is what keeps an adapter apart."

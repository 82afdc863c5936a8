"""Exercises of lesson 46, (IA)³."""

from __future__ import annotations

from typing import Any

from . import call, close, exercise, need, number


@exercise("ia3.1", expects="a whole number")
def how_many(answer: Any) -> str:
    """32 layers of width 4096, 8 key heads of 32, a gated MLP of 14,336."""
    L, D, d_kv, d_ff = 32, 4096, 1024, 14336
    need(answer != 2 * d_kv + d_ff, "that is one layer; there are 32")
    need(answer != L * (2 * D + d_ff), "keys have fewer heads than queries here: how wide is their output?")
    need(answer != L * (d_kv + d_ff), "keys and values have a vector each")
    need(answer != L * (2 * d_kv + 2 * d_ff), "gate and value are multiplied first; one vector scales the product")
    need(answer != L * (2 * d_kv + D), "the third vector is as long as what W₂ reads, not as what it gives")
    number(answer, L * (2 * d_kv + d_ff), "write down the length of each of a layer's three vectors")
    return "16,384 numbers a layer, 524,288 in all, of eight billion: one megabyte in 16-bit floats."


@exercise("ia3.2", expects="a function folded(W_k, b_k, l_k, W_2, b_2, l_ff) that returns W_k, b_k, W_2 and b_2")
def folding(answer: Any) -> str:
    """Rows and bias of the keys, columns of the MLP's second matrix, and nothing changed that was given."""
    import torch

    draw = torch.Generator().manual_seed(0)
    for D, d_kv, d_ff in ((4, 4, 4), (3, 5, 7), (6, 2, 9)):
        shapes = (d_kv, D), (d_kv,), (d_kv,), (D, d_ff), (D,), (d_ff,)
        W_k, b_k, l_k, W_2, b_2, l_ff = given = [torch.randn(*shape, generator=draw) for shape in shapes]
        kept = [t.clone() for t in given]
        got = call(answer, *given, what="folded")
        four = isinstance(got, tuple | list) and len(got) == 4 and all(isinstance(t, torch.Tensor) for t in got)
        need(four, "folded should return four tensors: W_k, b_k, W_2, b_2")
        new_k, new_b, new_2, new_b2 = got
        square = D == d_kv == d_ff
        need(not (square and torch.allclose(new_k, W_k * l_k)), "l_k scales what W_k gives: its outputs are its rows")
        close(
            new_k, l_k[:, None] * W_k, "W_k: which row or column makes the entry of a key that l_k multiplies?", "W_k"
        )
        need(not torch.equal(new_b, b_k), "a key is W_k x + b_k, and all of it is scaled")
        close(new_b, l_k * b_k, "b_k: the key is W_k x + b_k, multiplied entry by entry", "b_k")
        if new_2.shape == W_2.shape:
            rows = square and torch.allclose(new_2, l_ff[:, None] * W_2)
            need(not rows, "l_ff scales what W_2 reads, and a column of W_2 is what it does with one number it reads")
        close(new_2, W_2 * l_ff, "W_2: which row or column meets the hidden unit that l_ff multiplies?", "W_2")
        close(new_b2, b_2, "b_2 is added after the product: is it scaled in W_2 (l_ff ⊙ h) + b_2?", "b_2")
        answer(*given)  # `call` gave it copies
        need(all(torch.equal(a, b) for a, b in zip(given, kept, strict=True)), "it changes what it is given in place")
    return (
        "The merged model has the shapes of the base, so it costs nothing to run: `ScaledLinear.merged` does the same."
    )


@exercise("ia3.3", expects="a function mixed(x, W, b, vectors, task)")
def several(answer: Any) -> str:
    """Keys of a batch whose rows belong to different tasks."""
    import torch

    draw = torch.Generator().manual_seed(0)
    for B, T, D, d_kv, tasks in ((4, 4, 4, 4, 4), (3, 5, 4, 6, 2), (5, 1, 3, 2, 3), (2, 7, 6, 6, 5)):
        x, W, b = (torch.randn(*shape, generator=draw) for shape in ((B, T, D), (d_kv, D), (d_kv,)))
        vectors = 1 + torch.randn(tasks, d_kv, generator=draw)
        task = torch.randint(0, tasks, (B,), generator=draw)
        if tasks == B:
            task = torch.tensor([2, 0, 0, 3])
        right = torch.stack([(row @ W.T + b) * vectors[t] for row, t in zip(x, task, strict=True)])
        got = call(answer, x, W, b, vectors, task, what="mixed")
        if isinstance(got, torch.Tensor) and got.shape == right.shape:
            plain = x @ W.T + b
            one = torch.allclose(got, plain * vectors[task[0]], atol=1e-5) and not bool((task == task[0]).all())
            need(not one, "all rows get one task's vector: which row belongs to which task?")
            bare = torch.stack([row @ W.T * vectors[t] + b for row, t in zip(x, task, strict=True)])
            need(not torch.allclose(got, bare, atol=1e-5), "the bias is part of the key, and is scaled with it")
            tokens = T == B and torch.allclose(got, plain * vectors[task], atol=1e-5)
            need(not tokens, "vectors[task] meets the tokens here, not the rows: what shape lets it meet the rows?")
            in_order = tasks == B and torch.allclose(got, plain * vectors[:, None], atol=1e-5)
            need(not in_order, "row i gets the vector of task i: `task` says which it is")
        close(got, right, "compute each row alone with its task's vector, and compare: shape (B, T, d_kv)", "mixed")
    return "One product for all rows, then a vector for each: that is what makes a batch of many tasks cheap."

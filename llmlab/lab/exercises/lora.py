"""Exercises of lesson 42, LoRA."""

from __future__ import annotations

from typing import Any

from . import call, close, exercise, need, number


@exercise("lora.1", expects="a whole number")
def how_many(answer: Any) -> str:
    """32 layers of width 4096, queries and values, rank 8."""
    per_matrix = 8 * (4096 + 4096)
    need(answer != per_matrix, "that is one matrix; how many does LoRA adapt in the whole model?")
    need(answer != 2 * per_matrix, "that is one layer; how many are there?")
    need(answer != 32 * per_matrix, "that is one matrix a layer; LoRA adapts queries and values")
    need(answer != 2 * 32 * 4096 * 4096, "those are the frozen matrices themselves; count A and B")
    number(answer, 2 * 32 * per_matrix, "first r (d_in + d_out) for one matrix; then count the matrices of all layers")
    return "65,536 numbers a matrix, two matrices a layer, 32 layers: 0.06 % of seven billion."


@exercise("lora.2", expects="a function merged(W, A, B, alpha, rank)")
def merging(answer: Any) -> str:
    """W + (α / r) B A, and W itself as it was."""
    import torch

    draw = torch.Generator().manual_seed(0)

    def case(d_out: int, d_in: int, rank: int) -> Any:
        return (torch.randn(*shape, generator=draw) for shape in ((d_out, d_in), (rank, d_in), (d_out, rank)))

    W, A, B = case(5, 5, 4)
    got = call(answer, W, A, B, 4.0, 4, what="merged")  # a scale of 1
    if isinstance(got, torch.Tensor) and got.shape == W.shape:
        need(not torch.allclose(got, W + A.T @ B.T), "this is the update transposed: which matrix meets x first?")
        need(not torch.allclose(got, B @ A), "this is the update alone: what is it added to?")
    close(got, W + B @ A, "with α = r the scale is 1 and W + B A is wanted; is something added or left out?", "merged")
    for d_out, d_in, rank, alpha in ((5, 5, 2, 8.0), (6, 3, 2, 1.0), (2, 7, 1, 16.0), (4, 4, 4, 0.0)):
        W, A, B = case(d_out, d_in, rank)
        got = call(answer, W, A, B, alpha, rank, what="merged")
        if isinstance(got, torch.Tensor) and got.shape == W.shape and alpha not in (0.0, rank):
            need(not torch.allclose(got, W + B @ A), "the scale is missing: it is part of what was trained")
            need(not torch.allclose(got, W + rank / alpha * B @ A), "the scale is upside down")
        close(got, W + alpha / rank * B @ A, f"wrong for α = {alpha:g} and r = {rank}: check the scale", "merged")
    kept = W.clone()
    answer(W, A, B, 2.0, 4)
    need(torch.equal(W, kept), "it changes the W that it is given, so that a second call adds the update twice")
    return "The merged matrix has the shape of W: it costs nothing more when the model answers."


@exercise("lora.3", expects="a class LowRank(base, rank, alpha, dropout), a torch.nn.Module")
def layer(answer: Any) -> str:
    """A LoRA layer by hand: its start, what trains, its output, its gradients, its dropout."""
    import torch
    from torch import nn

    need(isinstance(answer, type), "the answer is the class itself: its name, without quotation marks or parentheses")
    need(issubclass(answer, nn.Module), "LowRank should be a torch.nn.Module: class LowRank(nn.Module)")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for d_in, d_out, rank, alpha, bias in ((6, 5, 2, 3.0, True), (4, 8, 3, 3.0, False)):
            base = nn.Linear(d_in, d_out, bias=bias)
            _starts_right(answer, base, rank, alpha)
            _computes_right(answer, base, rank, alpha)
            _drops_right(answer, base, rank, alpha)
    return "B = 0 keeps the start, α / r the size, and dropout touches the update alone: `LoRALinear` does the same."


def _made(cls: Any, base: Any, rank: int, alpha: float, dropout: float = 0.0) -> tuple[Any, Any, Any]:
    """A layer of the student's around a copy of `base`, its A and its B. NotYet if it trains anything else."""
    import copy

    own = copy.deepcopy(base)
    made = call(lambda *given: cls(own, *given), rank, alpha, dropout, what="LowRank")
    trains = {name: p for name, p in made.named_parameters() if p.requires_grad}
    frozen = own.weight.requires_grad is False and (own.bias is None or own.bias.requires_grad is False)
    need(frozen, "the base still trains: every parameter of `base` wants requires_grad_(False)")
    need(len(trains) == 2, f"{len(trains)} tensors train, and A and B are two: is each an nn.Parameter of the module?")
    shapes = (rank, base.in_features), (base.out_features, rank)
    found = [next((p for p in trains.values() if tuple(p.shape) == shape), None) for shape in shapes]
    need(found[0] is not None, "no trainable tensor has the shape (r, d_in) of A")
    need(found[1] is not None, "no trainable tensor has the shape (d_out, r) of B")
    return made, found[0], found[1]


def _starts_right(cls: Any, base: Any, rank: int, alpha: float) -> None:
    import torch

    made, A, B = _made(cls, base, rank, alpha, 0.5)
    x = torch.randn(2, 3, base.in_features)
    need(bool(A.any()) or bool(B.any()), "A and B are both zero, so neither ever gets a gradient")
    for training in (False, True):
        made.train(training)
        hint = "before training it should compute what the base does: which matrix starts at zero?"
        if training:
            hint = "in training, with B = 0, it differs from the base: dropout belongs on the input of A alone"
        close(call(made, x, what="LowRank"), base(x).detach(), hint, "LowRank", 1e-5)
    need(not B.any(), "B is not zero at the start; A is to be the random one")


def _computes_right(cls: Any, base: Any, rank: int, alpha: float) -> None:
    import torch

    made, A, B = _made(cls, base, rank, alpha)
    with torch.no_grad():
        B.normal_()
    x = torch.randn(2, 3, base.in_features)
    a, b = (p.detach().clone().requires_grad_() for p in (A, B))
    right = base(x).detach() + alpha / rank * (x @ a.T @ b.T)
    got = call(made, x, what="LowRank")
    unscaled = base(x).detach() + x @ a.T @ b.T
    if isinstance(got, torch.Tensor) and got.shape == right.shape and alpha != rank:
        need(not torch.allclose(got, unscaled, atol=1e-5), "the scale α / r is missing")
    close(got, right.detach(), "once B is not zero, the output is not W x + (α / r) B A x", "LowRank")
    need(got.requires_grad, "the output has no gradient: is something detached or under no_grad?")
    got.square().sum().backward()
    right.square().sum().backward()
    for name, mine, true in (("A", A, a), ("B", B, b)):
        need(mine.grad is not None, f"no gradient reaches {name}")
        close(mine.grad, true.grad, f"the gradient of {name} is not that of the equation", "LowRank", 1e-3)


def _drops_right(cls: Any, base: Any, rank: int, alpha: float) -> None:
    import torch

    made, _, B = _made(cls, base, rank, alpha, 0.5)
    with torch.no_grad():
        B.normal_()
        x = torch.randn(4, base.in_features)
        made.eval()
        still = call(made, x, what="LowRank")
        need(torch.equal(still, call(made, x, what="LowRank")), "after eval() two passes differ: dropout stays on")
        made.train()
        passes = torch.stack([call(made, x, what="LowRank") for _ in range(8)])
        need(bool((passes != passes[0]).any()), "in training two passes are equal: dropout does nothing")
        many = call(made, x.repeat(4000, 1), what="LowRank").view(4000, *still.shape).mean(0)
    close(
        many,
        still,
        "over many passes dropout should not change the mean: use nn.Dropout, which rescales",
        tolerance=0.3,
    )

"""Exercises of lesson 45, the adaptations side by side."""

from __future__ import annotations

from typing import Any

from . import as_number, call, exercise, need, number

Shape = tuple[int, int]


@exercise("compare.1", expects="a number of gigabytes")
def memory(answer: Any) -> str:
    """Seven billion frozen numbers of 2 bytes, and half a percent that train in 32 bits."""
    frozen, trains = 7e9, 35e6
    gigabytes = as_number(answer)
    slips = {
        trains * 16 / 1e9: "that is what trains; the frozen weights are in memory, too",
        trains * 12 / 1e9: "the frozen weights are in memory, too, and what trains is more than gradient and moments",
        (frozen + trains) * 16 / 1e9: "frozen numbers have no gradient and no moments",
        frozen * 16 / 1e9: "frozen numbers have no gradient and no moments",
        (frozen * 4 + trains * 16) / 1e9: "the frozen weights are kept in 16 bits here: how many bytes is that?",
        (frozen * 2 + trains * 12) / 1e9: "a trained number is kept, too: with gradient and moments that makes four",
        (frozen * 2 + trains * 8) / 1e9: "what trains is kept in 32 bits here: four bytes for each of its four numbers",
        (frozen * 2 + trains * 4) / 1e9: "a number that trains has a gradient and two moments beside it",
    }
    for value, hint in slips.items():
        need(abs(gigabytes - value) > 0.0005 * value, hint)
    number(
        answer,
        (frozen * 2 + trains * 16) / 1e9,
        "add two products: frozen numbers times their bytes, and trained numbers times theirs",
        0.0005,
    )
    return "The frozen weights are 14 GB of it: what is left to save is their precision, which is QLoRA's idea."


@exercise("compare.2", expects="a function rank_for(budget, shapes)")
def rank(answer: Any) -> str:
    """The largest rank whose LoRA fits a budget of numbers, 0 if none does."""
    block: list[Shape] = [(128, 128)] * 4 + [(512, 128), (128, 512)]
    one: list[Shape] = [(128, 128)]
    tall: list[Shape] = [(50, 10), (10, 70)]
    cases = [
        (one, 256 * 8, "an update of rank r has r (d_in + d_out) numbers in one matrix"),
        (block, 2304 * 4, "one rank serves all the matrices: add up what rank 1 costs in each"),
        (block, 2304 * 4 + 2303, "what is left over is too little for another rank: round down"),
        (block, 2304 * 4 - 1, "the budget may not be exceeded, not even by one number"),
        (tall, 140 * 3, "d_in and d_out are added, not multiplied, for matrices that are not square, too"),
        (block, 2000, "where not even rank 1 fits, the answer is 0"),
    ]
    for shapes, budget, hint in cases:
        got = as_number(call(answer, budget, shapes, what="rank_for"), "What rank_for returns")
        right = budget // sum(a + b for a, b in shapes)
        need(isinstance(got, int) or got == int(got), "a rank is a whole number")
        need(got == right, hint)
    highest = call(answer, 10**7, one, what="rank_for")
    need(highest == 128, "beyond the smaller side of a matrix no rank is left to add: it stops there")
    need(
        call(answer, 10**7, [(128, 512), (9, 40)], what="rank_for") == 9,
        "with several matrices the smallest side of all is the limit",
    )
    return "At equal budgets, more places mean less rank in each: the lesson measured what that trade is worth."


@exercise("compare.3", expects="a function difference(model, base), both dicts of tensors")
def patch(answer: Any) -> str:
    """What a file has to keep: every tensor that the base has not, or has with other bits."""
    import torch

    draw = torch.Generator().manual_seed(0)
    base = {name: torch.randn(4, 3, generator=draw) for name in ("frozen", "trained", "hardly")}
    base["zero"] = torch.zeros(2)
    model = {name: tensor.clone() for name, tensor in base.items()}

    def ask(hint: str, *names: str) -> None:
        got = call(answer, dict(model), dict(base), what="difference")
        need(isinstance(got, dict), "difference should return a dict: name -> tensor")
        need(set(got) == set(names), hint)
        for name in names:
            same = isinstance(got[name], torch.Tensor) and torch.equal(got[name], model[name])
            need(same, f"what is kept is the tensor of the model itself; that of {name!r} is another one")

    ask("the model equals its base: nothing has to be kept")
    model["lora_a"] = torch.randn(2, 3, generator=draw)
    ask("a tensor that the base does not have has to be kept", "lora_a")
    model["trained"] = base["trained"] + 1
    ask("a tensor of the base that was trained has to be kept, beside those that were added", "lora_a", "trained")
    model["hardly"] = base["hardly"].clone()
    model["hardly"][0, 0] = torch.nextafter(base["hardly"][0, 0], torch.tensor(9.0))
    hint = "one number moved by the least that there is: compare exactly, not within a tolerance, nor by sums"
    ask(hint, "lora_a", "trained", "hardly")
    model["zero"] = torch.zeros(3)
    hint = "a tensor may have another shape than the base's: compare shapes first, that must not be an error"
    ask(hint, "lora_a", "trained", "hardly", "zero")
    return "`save_patch` does the same, bit for bit, and adds what is needed to build the wrappers again."

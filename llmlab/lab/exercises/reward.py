"""Exercises of lesson 51, the reward model."""

from __future__ import annotations

import math
from typing import Any

from . import as_number, call, close, exercise, need, number


@exercise("reward.1", expects="a number between 0 and 1")
def chance(answer: Any) -> str:
    """Rewards of 2.5 and 1: how likely is it that the second is chosen?"""
    given = as_number(answer)
    need(not math.isclose(given, 1 / (1 + math.exp(-1.5)), rel_tol=0.01), "that is how likely the first is chosen")
    need(not math.isclose(given, 1 / 3.5, rel_tol=0.01), "rewards are not shares: only their difference counts")
    need(given <= 1, "a probability is asked for, between 0 and 1")
    hint = "σ of which difference? Take the reward of the one that is chosen, less the other's"
    number(answer, 1 / (1 + math.exp(1.5)), hint, 0.01)
    return "σ(1 - 2.5): nearly one choice in five falls on the worse answer, if the model is right about its doubts."


@exercise("reward.2", expects="a function last_real(scores, keep)")
def last_real(answer: Any) -> str:
    """Each row's score at its last real token, whichever side is padded."""
    import torch

    scores = torch.arange(12.0).view(3, 4)
    masks = (
        ([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], "wrong for rows that are padded on the right"),
        ([[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]], "wrong for rows that are padded on the left"),
        ([[0, 1, 1, 0], [0, 1, 0, 0], [1, 1, 1, 0]], "wrong for rows that are padded on both sides"),
    )
    for rows, hint in masks:
        keep = torch.tensor(rows).bool()
        last = torch.tensor([max(t for t in range(4) if row[t]) for row in rows])
        got = call(answer, scores, keep, what="last_real")
        if isinstance(got, torch.Tensor) and got.shape == (3,):
            need(not torch.equal(got, last.to(got)), "these are the places; what are the scores there?")
        close(got, scores[torch.arange(3), last], f"{hint}: at which place is the last True of each row?", "last_real")
    return "The end mark is the first token that has seen the whole answer, and the last that is not padding."


@exercise("reward.3", expects="a function loss(scores, prompts)")
def loss(answer: Any) -> str:
    """The mean over prompts of the mean over their pairs of -log σ; with gradients, and for large margins, too."""
    import torch

    cases: tuple[tuple[list[float], list[list[tuple[int, int]]]], ...] = (
        ([1.5, 0.0], [[(0, 1)]]),
        ([0.5, -1.0, 2.0], [[(2, 0), (2, 1), (0, 1)]]),
        ([0.5, -1.0, 2.0, 0.3, 0.1], [[(2, 0), (2, 1), (0, 1)], [(4, 3)]]),  # a prompt of three pairs, one of one
        ([0.0, 200.0], [[(0, 1)]]),
    )
    hints = (
        "wrong for one pair: is it -log σ(better - worse), in nats?",
        "wrong for the three pairs of one prompt: is it their mean?",
        "wrong for two prompts: each counts the same, however many pairs it has",
        "a large margin on the wrong side costs its own size: take logsigmoid, not the log of sigmoid",
    )
    for (values, prompts), hint in zip(cases, hints, strict=True):
        margins = [[values[b] - values[w] for b, w in pairs] for pairs in prompts]
        costs = [sum(_cost(m) for m in of) / len(of) for of in margins]
        want = sum(costs) / len(costs)
        got = call(answer, torch.tensor(values), prompts, what="loss")
        if len(values) == 2 and values[1] == 0:
            need(not _is(got, _cost(-margins[0][0])), "that is the cost of choosing the worse one: which comes first?")
            need(not _is(got, -_cost(margins[0][0])), "it is negative: the loss is minus the log-probability")
        close(_plain(got), want, hint, "loss")
    scores = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    found = answer(scores, [[(2, 0), (2, 1), (0, 1)]])
    need(isinstance(found, torch.Tensor) and found.requires_grad, "no gradient reaches the scores: stay with tensors")
    (gradient,) = torch.autograd.grad(found, scores)
    need(abs(float(gradient.sum())) < 1e-5, "a constant added to all scores changes it: does it look at differences?")
    return "The gradients of all scores add up to zero: choices tell how far apart rewards are, not how high."


def _cost(margin: float) -> float:
    return math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0)


def _plain(got: Any) -> Any:
    return got.detach() if hasattr(got, "detach") and got.dim() else float(got) if hasattr(got, "detach") else got


def _is(got: Any, value: float) -> bool:
    try:
        return math.isclose(float(got), value, rel_tol=1e-3)
    except (TypeError, ValueError):
        return False

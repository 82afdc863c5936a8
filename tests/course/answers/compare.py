"""Answers to the exercises of lesson 45."""

from __future__ import annotations

import torch


def rank_for(budget, shapes):
    return min(budget // sum(a + b for a, b in shapes), min(min(shape) for shape in shapes))


def difference(model, base):
    return {n: t for n, t in model.items() if n not in base or not torch.equal(t, base[n])}


def within(tolerance):
    def answer(model, base):
        return {
            n: t
            for n, t in model.items()
            if n not in base or t.shape != base[n].shape or not torch.allclose(t, base[n], atol=tolerance)
        }

    return answer


def subtracted(model, base):
    kept = difference(model, base)
    return {n: t - base[n] if n in base and t.shape == base[n].shape else t for n, t in kept.items()}


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "compare.1": (14.56, [0.56, 0.42, 112.56, 112.0, 28.56, 14.42, 14.28, 14.14, 14.0, 14560000000, "14.56"]),
    "compare.2": (
        rank_for,
        [
            lambda budget, shapes: budget // sum(a + b for a, b in shapes),
            lambda budget, shapes: budget // sum(a * b for a, b in shapes),
            lambda budget, shapes: min(budget / sum(a + b for a, b in shapes), 128),
            lambda budget, shapes: round(budget / sum(a + b for a, b in shapes)),
            lambda budget, shapes: min(max(1, budget // sum(a + b for a, b in shapes)), min(map(min, shapes))),
            lambda budget, shapes: min(budget // (len(shapes) * sum(shapes[0])), min(map(min, shapes))),
            lambda budget, shapes: min(budget // sum(a + b for a, b in shapes), max(map(min, shapes))),
            lambda budget: budget,
            4,
        ],
    ),
    "compare.3": (
        difference,
        [
            within(1e-5),
            lambda model, base: {n: t for n, t in model.items() if n not in base},
            lambda model, base: {n: t for n, t in model.items() if n in base and not torch.equal(t, base[n])},
            lambda model, base: model,
            lambda model, base: {n: t for n, t in model.items() if n not in base or t.sum() != base[n].sum()},
            lambda model, base: {n: t for n, t in model.items() if n not in base or (t != base[n]).any()},
            lambda model, base: list(difference(model, base)),
            subtracted,
        ],
    ),
}

"""Answers to the exercises of lesson 55."""

from __future__ import annotations

import math
from statistics import mean, pstdev, stdev

import torch


def bias(scores):
    d = [a - b for a, b in scores]
    return mean(d), stdev(d) / len(d) ** 0.5


def differences(scores):
    return [a - b for a, b in scores]


def attribute(gradient, x, baseline, n):
    points = [baseline + (k + 0.5) / n * (x - baseline) for k in range(n)]
    return (x - baseline) * sum(gradient(p) for p in points) / n


def at_the_ends(gradient, x, baseline, n):
    return (x - baseline) * sum(gradient(baseline + (k + 1) / n * (x - baseline)) for k in range(n)) / n


def from_zero(gradient, x, baseline, n):
    return attribute(gradient, x, torch.zeros_like(x), n)


def times_x(gradient, x, baseline, n):
    return x * sum(gradient(baseline + (k + 0.5) / n * (x - baseline)) for k in range(n)) / n


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "responsible_use.1": (
        math.log2(8000),
        [math.log2(1e6), math.log2(125), 8000, math.log(8000), math.log10(8000), 125, 0.000125],
    ),
    "responsible_use.2": (
        bias,
        [
            lambda scores: (mean(differences(scores)), stdev(differences(scores))),
            lambda scores: (mean(differences(scores)), pstdev(differences(scores)) / len(scores) ** 0.5),
            lambda scores: (-bias(scores)[0], bias(scores)[1]),
            lambda scores: (mean(differences(scores)), stdev(differences(scores)) ** 2 / len(scores)),
            lambda scores: (sum(differences(scores)), bias(scores)[1]),
            lambda scores: bias(scores)[0],
            lambda scores: (bias(scores)[0], 0.0),
            bias([(1.0, 2.0), (2.0, 5.0)]),
        ],
    ),
    "responsible_use.3": (
        attribute,
        [
            lambda gradient, x, baseline, n: (x - baseline) * gradient(x),
            lambda gradient, x, baseline, n: attribute(gradient, x, baseline, n) / (x - baseline),
            lambda gradient, x, baseline, n: attribute(gradient, x, baseline, n) * n,
            lambda gradient, x, baseline, n: attribute(gradient, x, baseline, n).sum(),
            lambda gradient, x, baseline, n: attribute(gradient, x, baseline, 1),
            lambda gradient, x, baseline, n: -attribute(gradient, x, baseline, n),
            times_x,
            at_the_ends,
            from_zero,
        ],
    ),
}

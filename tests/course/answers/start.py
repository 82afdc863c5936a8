"""Answers to the exercises of lesson 01."""

from __future__ import annotations

import math

from llmlab.technique import hookimpl, technique


@technique(kind="adaptation", base=True)
class Norms:
    @hookimpl
    def trains(self, name):
        return "norm" in name


@technique(kind="adaptation", base=True)
class Biases:
    """The lesson's own example, unchanged."""

    @hookimpl
    def trains(self, name):
        return name.endswith(".bias")


@technique(kind="adaptation", base=True)
class NoFalse:
    """The slip that matters: without a False everything else trains too."""

    @hookimpl
    def trains(self, name):
        return True if "norm" in name else None


@technique(kind="adaptation", base=True)
class OnlyGains:
    @hookimpl
    def trains(self, name):
        return "norm" in name and name.endswith(".weight")


@technique(kind="adaptation")
class Unmarked:
    def trains(self, name):
        return "norm" in name


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "start.1": (8192, [1024, 2048, 4096, 4 * 128 * 128 * 2, 8191, "8192"]),
    "start.2": (math.exp(math.log(50)), [math.log(50), 1 / 50, 25, 49.9, "fifty"]),
    "start.3": (Norms, [NoFalse, Biases, OnlyGains, Unmarked, Norms(), "Norms", lambda name: "norm" in name]),
}

"""What the course says of each technique, as sentences with numbers that a test measures, and a bug that each finds.

A claim is a function of a seed that returns the numbers it is about. Its sentence is made of its bounds, so the two
cannot differ. Its mutant is a plausible bug: with that in place the claim must fail, or it says nothing.

1. What several claims share is measured once: by `functools.cache` where no bug touches it, by `shared` where one does.
   The numbers of the kit as it is come before those with a bug, so that none of these is kept.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any

import pytest

Numbers = dict[str, float]
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Bound:
    """At least, or at most, this much."""

    sign: str
    value: float

    def admits(self, number: float) -> bool:
        return {"≥": operator.ge, "≤": operator.le}[self.sign](number, self.value)

    def __format__(self, how: str) -> str:
        return format(self.value, how) if how else str(self)

    def __str__(self) -> str:
        return f"{self.sign} {self.value:,g}"


def at_least(value: float) -> Bound:
    return Bound("≥", value)


def at_most(value: float) -> Bound:
    return Bound("≤", value)


@dataclass(frozen=True)
class Mutant:
    """A bug that somebody might make, in a line, and what puts it in place."""

    what: str
    plant: Callable[[pytest.MonkeyPatch], None]


def mutant(what: str) -> Callable[[Callable[[pytest.MonkeyPatch], None]], Mutant]:
    """Make a function that patches the kit a mutant."""
    return lambda plant: Mutant(what, plant)


@dataclass(frozen=True, eq=False)
class Claim:
    """A sentence of a lesson with its bounds, how they are measured, and the bug that breaks it."""

    technique: str
    name: str
    lesson: str
    text: str
    bounds: dict[str, Bound]
    measure: Callable[[int], Numbers]
    bug: Mutant

    def __str__(self) -> str:
        return f"{self.technique}.{self.name}"

    @property
    def sentence(self) -> str:
        return self.text.format(**self.bounds)

    def broken(self, numbers: Numbers) -> list[str]:
        """The bounds that the numbers do not keep, each with its number."""
        wrong = {name: bound for name, bound in self.bounds.items() if not bound.admits(numbers[name])}
        return [f"{name} = {numbers[name]:.3g}, not {bound}" for name, bound in wrong.items()]


CLAIMS: list[Claim] = []


def claim(
    technique: str, lesson: str, text: str, bug: Mutant, **bounds: Bound
) -> Callable[[Callable[[int], Numbers]], Callable[[int], Numbers]]:
    """Make a function from a seed to numbers a claim; `text` has {name} or {name:.0%} for each bound."""

    def make(measure: Callable[[int], Numbers]) -> Callable[[int], Numbers]:
        CLAIMS.append(Claim(technique, measure.__name__, lesson, text, bounds, measure, bug))
        return measure

    return make


_planted: list[Mutant] = []


def shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what a function gives, for several claims; while a bug is in place it is called anew."""
    kept = cache(function)
    return wraps(function)(lambda *args: function(*args) if _planted else kept(*args))


@cache
def measured(one: Claim, seed: int) -> Numbers:
    """The numbers of a claim, as the kit is."""
    return one.measure(seed)


@cache
def mutated(one: Claim, seed: int = 0) -> Numbers:
    """The numbers of a claim with its bug in place."""
    measured(one, seed)
    with pytest.MonkeyPatch.context() as patch:
        one.bug.plant(patch)
        _planted.append(one.bug)
        try:
            return one.measure(seed)
        finally:
            _planted.clear()


from . import adapting, aligning, extras, finetuning, gaining, preferring, pretraining, principles  # noqa: E402,F401

CLAIMS.sort(key=lambda one: one.lesson)

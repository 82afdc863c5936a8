"""The conformance suite: what must hold of a technique, tried one rule after another, with the way out of each failure.

from llmlab.testing import check_technique
check_technique(MyTechnique)            # or MyTechnique(rank=2), to try it with these knobs
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from ..technique import Needs, needs_of, values
from .cases import Case, bare, refusal


class DoesNotApply(Exception):
    """Raised by a check that has nothing to look at."""


@dataclass(frozen=True)
class Check:
    """One rule: what holds if it is kept, how to keep it, and the function that tries a `Subject`."""

    name: str
    holds: str
    way_out: str
    test: Callable[[Subject], None]


@dataclass(frozen=True)
class Result:
    """What became of one rule; `said` is why it failed or does not apply."""

    check: Check
    status: Literal["passed", "failed", "does not apply"]
    said: str = ""

    def __str__(self) -> str:
        line = f"{self.check.name}: {self.check.holds}"
        return (
            line
            if self.status == "passed"
            else f"{line}\n    {self.status}: {self.said}"
            + (f"\n    way out: {self.check.way_out}" if self.status == "failed" else "")
        )


CHECKS: dict[str, Check] = {}


def rule(holds: str, way_out: str) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Add a function to the suite, under its own name; it raises AssertionError, or DoesNotApply with a reason."""

    def add(test: Callable[[Subject], None]) -> Callable[[Subject], None]:
        name = test.__name__.rstrip("_")
        CHECKS[name] = Check(name, holds, way_out, test)
        return test

    return add


def each_run(holds: str, way_out: str) -> Callable[[Callable[[Subject, Case], None]], None]:
    """The same for a rule about runs: the function is given each of the subject's cases; an error says which it was."""

    def add(test: Callable[[Subject, Case], None]) -> None:
        def all_runs(subject: Subject) -> None:
            for case in subject.cases:
                try:
                    test(subject, case)
                except AssertionError as error:
                    raise AssertionError(f"{error} (in the run {case}, {case.family})") from error
                except Exception as error:
                    error.add_note(f"in the run {case}, {case.family}")
                    raise

        all_runs.__name__ = test.__name__
        rule(holds, way_out)(all_runs)

    return add


class Subject:
    """A technique under examination: its class, and the runs it is tried in."""

    def __init__(self, technique: Any) -> None:
        self.cls: type = technique if isinstance(technique, type) else with_knobs(type(technique), **values(technique))
        self._refused = False
        self.shipped = self.cls.__module__.startswith("llmlab_plugins.")

    @property
    def needs(self) -> Needs:
        return needs_of(self.cls)

    @cached_property
    def cases(self) -> list[Case]:
        """An objective on each of its families; anything else on each family, beside an objective that takes it.

        AssertionError if every run refuses it; DoesNotApply if it objects itself, since it cannot do without a choice.
        """
        if self.needs.kind == "objective":
            return [Case(self.cls, family, several=len(self.needs.families) > 1) for family in self.needs.families]
        found: dict[str, Case] = {}
        said: list[str] = []
        for case in (host.alone(self.cls) for host in bare() if host.family in self.needs.families):
            if case.family not in found:
                said.append(refusal(case))
                found |= {} if said[-1] else {case.family: case}
        if not found:
            why = f"every run refuses it: {min(said, key=len)}"
            if self._refused or self.needs.objection is not None:  # it is told once
                raise DoesNotApply(why)
            self._refused = True
            raise AssertionError(why)
        return list(found.values())


def with_knobs(cls: type, **knobs: Any) -> type:
    """The class with other defaults."""
    init: Any = cls.__init__  # type: ignore[misc]

    def __init__(self: Any, **more: Any) -> None:
        init(self, **{**knobs, **more})

    return type(cls.__name__, (cls,), {"__init__": __init__, "__module__": cls.__module__, "__doc__": cls.__doc__})


def examine(technique: Any, only: Sequence[str] = ()) -> Iterator[Result]:
    """Try every rule, or those named in `only`, on a technique's class or on an instance; a `Result` each.

    ValueError names a rule there is not; TypeError is for what is no technique.
    """
    if unknown := [name for name in only if name not in CHECKS]:
        raise ValueError(f"no check is called {unknown[0]!r}: there are {', '.join(CHECKS)}")
    subject = Subject(technique)
    if not isinstance(getattr(subject.cls, "llmlab", None), Needs):
        raise TypeError(f"{subject.cls.__name__} is no technique: write @technique(kind=…) above the class")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from (_tried(check, subject) for name, check in CHECKS.items() if not only or name in only)
    finally:
        torch.set_num_threads(threads)


def _tried(check: Check, subject: Subject) -> Result:
    try:
        check.test(subject)
    except DoesNotApply as why:
        return Result(check, "does not apply", str(why))
    except AssertionError as error:
        return Result(check, "failed", _line(str(error).split("\nassert ")[0]))  # pytest adds the expression
    except Exception as error:
        notes = "; ".join(getattr(error, "__notes__", ()))
        return Result(check, "failed", _line(f"{type(error).__name__}: {error}" + (f"; {notes}" if notes else "")))
    return Result(check, "passed")


def _line(text: str) -> str:
    return " ".join(text.split())


def check_technique(technique: Any, only: Sequence[str] = ()) -> None:
    """AssertionError, with every rule that the technique breaks and the way out of each; silent if it keeps them all.

    `technique` is a class made by `@technique`, or an instance, to try it with its knobs. `only` names some of
    `llmlab.testing.CHECKS`. It trains small models: some ten seconds a family of models.
    """
    failed = [result for result in examine(technique, only) if result.status == "failed"]
    if failed:
        name = Subject(technique).cls.__name__
        raise AssertionError(
            "\n".join([f"{name} breaks {len(failed)} of {len(only or CHECKS)} rules", *map(str, failed)])
        )


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="llmlab-check-") as folder:
        yield Path(folder)

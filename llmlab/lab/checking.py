"""`check` tells a student whether an exercise is solved; `exercise` marks the function that knows.

    @exercise("start.2", expects="a number")
    def perplexity(answer):
        number(answer, 50, "e and ln undo each other")
        return "exp(ln 50): as unsure as an even choice among that many."

    check("start.2", answer)    # exercise start.2: right. exp(ln 50): as unsure as …

The checkers of a lesson stand in one file, `llmlab/lab/exercises/<lesson>.py`. Importing any other file that uses
`exercise` adds its exercises, too.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import pkgutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

Checker = Callable[[Any], str]
C = TypeVar("C", bound=Checker)
HOME = "llmlab.lab.exercises"


class NotYet(Exception):
    """The answer is not right yet; the message is a hint for the student."""


@dataclass(frozen=True)
class Exercise:
    """A checker, its name ("clm.1": lesson and number) and what kind of answer it expects ("a number")."""

    name: str
    expects: str
    checker: Checker


@dataclass(frozen=True)
class Verdict:
    """What `check` prints. `right` is None where there is no answer yet."""

    right: bool | None
    line: str


_known: dict[str, Exercise] = {}


def exercise(name: str, *, expects: str) -> Callable[[C], C]:
    """Mark a checker: it takes the answer, raises `NotYet(hint)` or returns one sentence that says why it is right.

    Whatever else it raises counts as "not yet", with what the exercise `expects` as the hint.
    """

    def mark(checker: C) -> C:
        home = checker.__module__
        if name in _known and _known[name].checker.__module__ != home:  # running a notebook's cell again is fine
            raise ValueError(f"the exercise {name!r} exists already, in {_known[name].checker.__module__}")
        _known[name] = Exercise(name, expects, checker)
        return checker

    return mark


def exercises() -> dict[str, Exercise]:
    """Every exercise by name: the kit's own and those of modules that are imported."""
    for module in pkgutil.iter_modules(import_module(HOME).__path__):
        import_module(f"{HOME}.{module.name}")
    return dict(sorted(_known.items()))


def judge(which: str | Checker, answer: Any) -> Verdict:
    """What `check` prints, as a value. ValueError if there is no such exercise, and for nothing else."""
    found = _find(which)
    if answer is None or answer is ...:
        return Verdict(None, f"exercise {found.name}: no answer yet")
    try:
        with _quiet():
            why = found.checker(answer)
        return Verdict(True, f"exercise {found.name}: right. {why}".rstrip())
    except NotYet as hint:
        return Verdict(False, _one_line(f"exercise {found.name}: not yet. {hint}"))
    except (Exception, SystemExit) as error:
        expects = f"The answer is {found.expects}; trying yours gave {told(error)}"
        return Verdict(False, _one_line(f"exercise {found.name}: not yet. {expects}"))


def check(which: str | Checker, answer: Any) -> None:
    """Print one line: whether `answer` solves the exercise, with a reason or a hint.

    `which` is the exercise's name or a checker. A wrong answer of any kind raises nothing; an unknown name is a
    ValueError that names the nearest.
    """
    print(judge(which, answer).line)


def told(error: BaseException) -> str:
    """An error in a few words."""
    try:
        text = str(error)
    except Exception:  # an exception of the student's own may do anything
        text = ""
    return _one_line(f"{type(error).__name__}: {text}".rstrip(": "), 160)


def _find(which: str | Checker) -> Exercise:
    if callable(which):
        mine = (e for e in _known.values() if e.checker is which)
        return next(mine, Exercise(getattr(which, "__name__", "yours"), "what the exercise asks for", which))
    if which in _known or which in exercises():  # all are imported only when they must be
        return _known[which]
    near = difflib.get_close_matches(str(which), _known, 1, cutoff=0.3)
    raise ValueError(f"no exercise is called {which!r}: " + (f"did you mean {near[0]}?" if near else "see the lesson"))


def _one_line(text: str, most: int = 400) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


@contextlib.contextmanager
def _quiet() -> Any:
    """What the student's code prints while hidden inputs try it would bury the one line."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield

"""The checkers of the lessons' exercises, a file a lesson, and what they are written with.

    from . import call, close, exercise, need, number, technique_class, text

`need(condition, hint)` is the general form; the others also say what is wrong with an answer of another type or shape.
A hint says where to look and never what the answer is. `start.py` shows three exercises.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from typing import Any

from ...technique import implemented
from ..checking import NotYet, exercise, told

__all__ = ["NotYet", "as_number", "call", "close", "exercise", "need", "number", "technique_class", "text"]


def need(condition: Any, hint: str) -> None:
    """Raise `NotYet(hint)` unless `condition` holds."""
    if not condition:
        raise NotYet(hint)


def as_number(answer: Any, what: str = "The answer") -> float:
    """`answer` as a finite number; a tensor or array of one element counts. NotYet says what is wrong with it."""
    if isinstance(answer, str):
        with contextlib.suppress(ValueError):
            float(answer.replace(",", "").strip())
            raise NotYet(f"{what} is text that looks like a number: take the quotation marks away")
        raise NotYet(f"{what} is a number, not text")
    if callable(answer):
        raise NotYet(f"{what} is a number, and this is a function or a class: give what it returns")
    shape = getattr(answer, "shape", ())
    if math.prod(shape) != 1:
        raise NotYet(f"{what} is one number, and this has shape {tuple(shape)}")
    value = answer.item() if hasattr(answer, "item") else answer
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotYet(f"{what} is a number, not of the type {type(answer).__name__}")
    if not -1e300 < value < 1e300:  # NaN, too
        raise NotYet(f"{what} is {'NaN, which is no number' if value != value else 'too large or infinite'}")
    return value


def number(answer: Any, right: float, hint: str, tolerance: float | None = None) -> None:
    """NotYet unless `answer` is `right`: exactly where that is whole, else within 1 % or a relative `tolerance`."""
    value = as_number(answer)
    allowed = tolerance if tolerance is not None else 1e-9 if isinstance(right, int) else 0.01
    need(math.isclose(value, right, rel_tol=allowed, abs_tol=1e-9), hint)


def text(answer: Any, right: str | list[str], hint: str) -> None:
    """NotYet unless `answer` is one of the texts `right`; case, spaces and a full stop at the end do not count."""
    need(isinstance(answer, str), 'The answer is text, in quotation marks: "…"')
    plain = [
        " ".join(t.casefold().split()).rstrip(".") for t in (answer, *([right] if isinstance(right, str) else right))
    ]
    need(plain[0] in plain[1:], hint)


def call(function: Any, *inputs: Any, what: str = "Your function") -> Any:
    """What a student's function returns for copies of `inputs`; NotYet if it cannot be called so."""
    need(callable(function), f"{what} should be a function; give its name without parentheses or quotation marks")
    with contextlib.suppress(ValueError):  # no signature to be had
        try:
            inspect.signature(function).bind(*inputs)
        except TypeError:
            count = f"{len(inputs)} argument{'s' * (len(inputs) != 1)}"
            raise NotYet(f"{what} is called with {count}, and does not take as many") from None
    try:
        return function(*(copy.deepcopy(i) if isinstance(i, list | dict) or _is_tensor(i) else i for i in inputs))
    except (Exception, SystemExit) as error:
        raise NotYet(f"{what} fails on one of the inputs it is tried with: {told(error)}") from None


def close(got: Any, want: Any, hint: str, what: str = "Your function", tolerance: float = 1e-4) -> None:
    """NotYet unless `got` equals `want`, a number, tensor or list, in shape and, within `tolerance`, in values."""
    need(got is not None, f"{what} returns None: does it end with `return`?")
    if _is_tensor(want):
        need(_is_tensor(got), f"{what} should return a tensor, not a value of the type {type(got).__name__}")
        shapes = tuple(got.shape), tuple(want.shape)
        need(shapes[0] == shapes[1], f"{what} returns shape {shapes[0]}; it should be {shapes[1]} for this input")
        got, want = got.tolist(), want.tolist()
    if isinstance(want, list | tuple):
        need(
            isinstance(got, list | tuple), f"{what} should return a list, not a value of the type {type(got).__name__}"
        )
        need(len(got) == len(want), f"{what} returns {len(got)} elements; it should be {len(want)} for this input")
        for g, w in zip(got, want, strict=True):
            close(g, w, hint, what, tolerance)
    elif isinstance(want, bool):
        need(bool(got) is want if type(got).__module__ == "numpy" else got is want, hint)
    elif isinstance(want, int | float):
        if math.isinf(want):
            need(got == want, hint)
        else:
            value = as_number(got, f"What {what[0].lower()}{what[1:]} returns")
            need(math.isclose(value, want, rel_tol=tolerance, abs_tol=tolerance), hint)
    else:
        need(got == want, hint)


def _is_tensor(thing: Any) -> bool:
    return type(thing).__module__.partition(".")[0] in ("torch", "numpy") and hasattr(thing, "tolist")


def technique_class(answer: Any) -> type:
    """`answer`, if it is a class that may be a technique; NotYet names the usual slips."""
    need(not hasattr(type(answer), "llmlab"), "give the class itself, without parentheses behind its name")
    need(isinstance(answer, type), "the answer is a class: its name, without quotation marks")
    need(any(True for _ in implemented(answer)), "the class has no hook: is its method marked with @hookimpl?")
    cls: type = answer
    return cls

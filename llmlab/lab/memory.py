"""Values of knobs that no text can hold, such as a model or a function: told from others, and named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST = 24  # letters of a text in a run's name


def plain(value: Any) -> bool:
    """Whether Python and JSON can write it: a number, text, True, False, None, or a list or dict of such."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def called(value: Any) -> str:
    """What it is, in words: "a model", "the function shortest", "a Run"."""
    if any(cls.__name__ == "Module" for cls in type(value).__mro__):  # torch is not imported to find out
        return "a model"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = getattr(value, "__name__", "")
    if callable(value) and name:
        return f"the function {name}" if name.isidentifier() else "a function"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def shown(value: Any) -> str:
    """As a panel shows it and nobody can type it."""
    return repr(value) if plain(value) else f"in memory: {called(value)}"


def short(value: Any) -> str:
    """As the name of a run tells it."""
    if not plain(value):
        return called(value)
    if isinstance(value, str) and len(value) > LONGEST:
        return repr(" ".join(value[:LONGEST].split()) + " …")
    return repr(value)

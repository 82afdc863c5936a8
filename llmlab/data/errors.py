"""The one exception of the data side: something about the text is wrong, said in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """A corpus cannot be made; the message is one line that names the place and the way out."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean "x"?' for the closest of `known`, or nothing where none is close."""
    found = difflib.get_close_matches(word.casefold(), list(known), n=1, cutoff=0.5)
    return f' Did you mean "{found[0]}"?' if found else ""

"""One form for every task that has a question and an answer: (prompt, response)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAIRS = ("prompt response", "source target", "text label")


def as_pair(row: Mapping[str, Any]) -> tuple[str, str]:
    """The prompt and the response of a row of any of `PAIRS`; KeyError if it is none.

    What is translated or summarised, or has a label, becomes a prompt that ends with a new line. A row with a `cue`,
    such as "Summary:", puts it there, and a space before the answer.
    """
    for names in PAIRS:
        ask, answer = names.split()
        if ask in row and answer in row:
            said = "" if row[answer] is None else str(row[answer])
            if ask == "prompt":
                return str(row[ask]), said
            cue = row.get("cue", "")
            return f"{row[ask]}\n{cue}", f" {said}" if cue else said
    raise KeyError(f"a row with {', '.join(row)} is no pair: it needs {' or '.join(PAIRS)}")

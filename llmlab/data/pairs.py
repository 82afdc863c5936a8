"""One form for every task that has a question and an answer, (prompt, response), or two of which one was chosen."""

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


def as_preference(row: Mapping[str, Any], where: str) -> tuple[str, str, str, float]:
    """The prompt, the answers called chosen and rejected, and how sure it is, 0 to 1, that the first is the better one.

    ValueError that opens with `where`, which names the row, if it is no such pair.
    """
    prompt, chosen, rejected = (row.get(name) for name in ("prompt", "chosen", "rejected"))
    if not (isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str)):
        raise ValueError(f"{where} is no pair: prompt, chosen and rejected must be text")
    if chosen == rejected:
        raise ValueError(f"{where} has two equal answers, from which there is nothing to learn: take it out")
    given = row.get("preference")
    try:
        preference = 1.0 if given is None else float(given)
    except (TypeError, ValueError):
        preference = -1.0
    if not 0 <= preference <= 1:
        raise ValueError(f"{where} has preference {given!r}: it is how sure the choice is, a number from 0 to 1")
    return prompt, chosen, rejected, preference

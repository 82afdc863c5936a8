"""Pairs of a prompt and its right answer: read from rows, asked of the model, and compared with what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .data.pairs import as_pair
from .metrics import ANSWERS

if TYPE_CHECKING:
    from .run import Run


def read_pairs(by: str, rows: Sequence[Mapping[str, Any]], split: str, empty: bool = False) -> list[tuple[str, str]]:
    """(prompt, response) of each row, for the technique `by`.

    ValueError names the row that is no pair or, unless `empty` is allowed, has nothing to teach.
    """
    return [_read(row, f"{by}.examples: row {i} of the {split} split", empty) for i, row in enumerate(rows)]


def _read(row: Mapping[str, Any], where: str, empty: bool) -> tuple[str, str]:
    try:
        prompt, response = as_pair(row)
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]}") from None
    if not empty and not response.strip():
        raise ValueError(
            f"{where} has an empty response, from which there is nothing to learn: take it out ({prompt[:40]!r})"
        )
    return prompt, response


def usual_measure(rows: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]]) -> str:
    """How answers to these rows are compared if nobody says: as classes where they are labels, else as words."""
    labels = all(str(row.get("label")) == right.strip() for row, (_, right) in zip(rows, pairs, strict=True))
    return "classes" if labels else "words"


def compare(
    run: Run, prompts: Sequence[list[int]], right: Sequence[str], longest: int, measure: str
) -> dict[str, float]:
    """Let the model answer the prompts (ids), greedily and with `longest` tokens at most, and measure the answers.

    `measure` is one of `metrics.ANSWERS`. White space around an answer does not count.
    """
    if not prompts:
        return {}
    said = run.respond(prompts, max_new_tokens=longest).text
    return ANSWERS[measure]([text.strip() for text in said], [text.strip() for text in right])

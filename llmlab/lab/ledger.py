"""The ledger: the runs of a panel as a table, for the panel, for a saved notebook and as text."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .tables import number, percent

if TYPE_CHECKING:
    from .record import Record

# the loss is the validation set's, before and after
HEADS = ("run", "techniques", "data", "start", "steps", "trains", "loss", "outcome", "measure")
NUMBERS = ("steps", "trains", "loss")  # columns that line up on the right
EMPTY = "No run yet: press Run, or load a recording."


class Ledger:
    """The runs of a panel at the time it was asked for; `rows` are dicts."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.rows = [record.row() for record in records]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        if not self.rows:
            return EMPTY
        lines = [HEADS, *(cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS))]
        return "\n".join("  ".join(map(_pad, line, HEADS, widths)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        return table(self.rows) if self.rows else f"<p>{EMPTY}</p>"


def _pad(text: str, head: str, width: int) -> str:
    return text.rjust(width) if head in NUMBERS else text.ljust(width)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as texts, in the order of `HEADS`."""
    return (
        str(row["number"]),
        row["techniques"],
        row["data"],
        row["start"],
        f"{row['steps']:,}",
        percent(row["share"]) if row["share"] else "–",
        f"{number(row['before'])} → {number(row['after'])}" if row["after"] is not None else "–",
        f"{row['outcome']} in {row['seconds']:.1f} s" if row["seconds"] else row["outcome"],
        row["measure"] or "–",
    )


def table(
    rows: Sequence[dict[str, Any]], chosen: int | None = None, mark: Callable[[int], str] = lambda number: ""
) -> str:
    """The ledger as HTML; row `chosen` is marked, and `mark` gives what stands before a number (safe HTML)."""
    heads = "".join(f"<th scope='col'{_right(head)}>{head}</th>" for head in HEADS)
    body = "".join(_row(row, chosen, mark) for row in rows)
    caption = "<caption class='llmlab-unseen'>Past runs</caption>"
    inner = f"{caption}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody>"
    return f"<table class='llmlab-table llmlab-ledger'>{inner}</table>"


def _row(row: dict[str, Any], chosen: int | None, mark: Callable[[int], str]) -> str:
    first, *rest = cells(row)
    shown = row["number"] == chosen
    here = "<span class='llmlab-unseen'> (shown)</span>" if shown else ""
    told = f"<th scope='row'>{mark(row['number'])}{first}{here}</th>"
    body = "".join(
        f"<td{_right(head)} title='{html.escape(text, quote=True)}'>{html.escape(text)}</td>"
        for head, text in zip(HEADS[1:], rest, strict=True)
    )
    marked = " class='llmlab-shown' aria-current='true'" if shown else ""
    return f"<tr{marked}>{told}{body}</tr>"


def _right(head: str) -> str:
    return " class='llmlab-number'" if head in NUMBERS else ""

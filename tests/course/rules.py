"""What a lesson must hold: each rule takes a notebook and returns its complaints, one line each.

CONTRIBUTING.md, "A lesson", says the same to authors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A word that some heading of the lesson contains, and what to call the section in a complaint.
SECTIONS = {
    r"\bwhy\b": "why it is done",
    r"\bhow\b": "how it works",
    r"\bpanel\b": "the panel",
    r"\blook for\b": "what to look for",
    r"\bexperiments?\b": "experiments",
    r"\bexercises?\b": "exercises",
    r"\bmistakes?\b": "common mistakes",
    r"\blimits?\b": "limits",
    r"\breferences\b": "references",
}
COSTS = re.compile(r"\bcells\b[^.]*?\b(?:(\d+) seconds|a second)", re.S)
DURATION = re.compile(r"(?<![\w.])\d+(?:\.\d+)? ?(?:s|ms|seconds?|minutes?)\b|\b\d{1,2}:\d\d(?::\d\d)?\b")
IMAGE = re.compile(r"!\[([^\]]*)\]\(|<img\b([^>]*)>")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!\w+:)([^)#\s]+)")
IGNORED = "nbval-ignore-output"


def markdown(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def printed(cell: Any) -> str:
    """What a code cell shows as text."""
    shown = (o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.get("outputs", []))
    return "\n".join(str(text) for text in shown)


def headings(notebook: Any) -> list[str]:
    text = "\n".join(re.sub(r"^```.*?^```", "", source, flags=re.S | re.M) for source in markdown(notebook))
    return [title.casefold() for title in re.findall(r"^#{1,6} +(.+)$", text, re.M)]


def goals(notebook: Any) -> Iterator[str]:
    """The first cell says what the reader can do in the end, in three points or more, and what its cells cost."""
    first = notebook.cells[0].source
    if not first.startswith("# "):
        yield "the first cell does not begin with the title"
    if "you can" not in first or len(re.findall(r"^[-*] ", first, re.M)) < 3:
        yield "the first cell does not say, in three points or more, what `you can` do at the end"
    if not COSTS.search(first):
        yield "the first cell does not say how long its cells take: `Its cells take 12 seconds on …`"


def sections(notebook: Any) -> Iterator[str]:
    """A heading for each section; why comes before how, and references come last."""
    found = headings(notebook)
    where = {what: [i for i, title in enumerate(found) if re.search(word, title)] for word, what in SECTIONS.items()}
    yield from (f"no heading for the section: {what}" for what, places in where.items() if not places)
    why, how, last = where["why it is done"], where["how it works"], where["references"]
    if why and how and why[0] > how[0]:
        yield "how it works comes before why it is done"
    if last and last[-1] != len(found) - 1:
        yield "the references are not the last section"


def numbers_are_asserted(notebook: Any) -> Iterator[str]:
    """Trained numbers are not compared, so the cell that prints them, or the next compared one, asserts."""
    cells = code(notebook)
    for i, cell in enumerate(cells):
        if IGNORED not in cell.metadata.get("tags", []) or not re.search(r"\d\.\d", printed(cell)):
            continue
        strict = next((c for c in cells[i + 1 :] if IGNORED not in c.metadata.get("tags", [])), cell)
        if not any(re.search(r"^\s*assert\b", c.source, re.M) for c in (cell, strict)):
            yield f"cell {cell.execution_count} prints numbers that are not compared, and no assert follows"


def compared_outputs_hold_no_times(notebook: Any) -> Iterator[str]:
    for cell in code(notebook):
        told = DURATION.search(printed(cell))
        if told and IGNORED not in cell.metadata.get("tags", []):
            yield f"cell {cell.execution_count} is compared and shows a time: {told[0]!r}"


def links_resolve(notebook: Any, folder: Path) -> Iterator[str]:
    for source in markdown(notebook):
        yield from (f"a link leads nowhere: {to}" for to in LINK.findall(source) if not (folder / to).exists())


def images_have_words(notebook: Any) -> Iterator[str]:
    for source in markdown(notebook):
        for text, attributes in IMAGE.findall(source):
            if not (text.strip() or re.search(r"\balt=[\"'][^\"']", attributes)):
                yield "an image has no alternative text"


def name(path: Path, plugins: set[str]) -> Iterator[str]:
    """<two digits>_<plugin file>.ipynb."""
    number, _, plugin = path.stem.partition("_")
    if not re.fullmatch(r"\d\d", number) or plugin not in plugins:
        yield f"{path.name} is not called <two digits>_<plugin file>.ipynb"

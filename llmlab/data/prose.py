"""Makes readable passages of sensible length out of paragraphs written for a terminal.

1. A sentence ends at '.', '!' or '?' before a space and a capital letter; abbreviations can mislead it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_EMPHASIS = re.compile(r"(?<![\w*])(\*\*?)([^\s*](?:[^*\n]*[^\s*])?)\1(?![\w*])")
_FOOTNOTE = re.compile(r" ?\[\d+\](?=[\s.,;:)]|$)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(A-Z])")


def tidy(paragraph: str) -> str:
    """Return a paragraph on one line, without emphasis marks and footnote numbers."""
    text = _FOOTNOTE.sub("", _EMPHASIS.sub(r"\2", " ".join(paragraph.split())))
    return re.sub(r"^\* ", "- ", text)


def sentences(text: str) -> list[str]:
    """Return the sentences of a one-line text."""
    return [part for part in _SENTENCE_END.split(text) if part]


def pieces(units: Iterable[tuple[str, str]], shortest: int, longest: int) -> Iterator[tuple[str, str]]:
    """Yield (label, passage) of `shortest` to `longest` characters from (label, paragraph) units.

    Paragraphs are packed in order, one a line. A new label starts a new passage as soon as the old one
    is long enough; a passage is labelled as its first paragraph. What fits nowhere is left out: a
    rest that is too short, or a code sample too long to be kept whole.
    """
    label, held = "", ""
    for name, unit in units:
        for part in _fit(unit, longest):
            joined = f"{held}\n{part}" if held else part
            if held and (len(joined) > longest or (name != label and len(held) >= shortest)):
                if len(held) >= shortest:
                    yield label, held
                held = ""
            label, held = (label, joined) if held else (name, part)
    if len(held) >= shortest:
        yield label, held


def _fit(unit: str, longest: int) -> Iterator[str]:
    """Yield `unit`, cut between sentences where it is too long; code samples are never cut."""
    if len(unit) <= longest:
        yield unit
    elif "\n" not in unit:
        held = ""
        for sentence in sentences(unit):
            if held and len(held) + 1 + len(sentence) > longest:
                yield held
                held = ""
            held = f"{held} {sentence}".strip()
            if len(held) > longest:
                held = ""
        if held:
            yield held

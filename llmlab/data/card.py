"""A few lines about a corpus, for a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlab.data.corpus import Corpus

WIDTH = 100  # characters of a sample's column that are shown


def describe(corpus: Corpus) -> str:
    """Return name, splits, columns, licence, origin and one shortened training example, a line each."""
    sizes = ", ".join(f"{len(rows):,} {split}" for split, rows in corpus.splits.items())
    options = ", ".join(f"{name}={value!r}" for name, value in corpus.options.items())
    lines = {
        "corpus": f"{corpus.name} ({options})" if options else corpus.name,
        "examples": sizes,
        "columns": ", ".join(corpus.columns),
        "licence": corpus.licence,
        "source": corpus.source,
    }
    head = [f"{label:9} {value}" for label, value in lines.items()]
    return "\n".join([*head, *_sample(corpus["train"][0])])


def _sample(row: Mapping[str, Any]) -> list[str]:
    return [f"  {column}: {shorten(value)}" for column, value in row.items()]


def shorten(value: Any) -> str:
    """Return `value` on one line of at most WIDTH characters, with an ellipsis where it was cut."""
    line = " ".join(str(value).split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1].rstrip() + "…"

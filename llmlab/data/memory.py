"""Data that is already in memory, or only named, as a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmlab.data.corpus import SPLITS, Corpus
from llmlab.data.errors import DataError

IN_MEMORY = "in memory"
FEW = 10  # examples that are too few to set some aside


def as_corpus(data: Any) -> Corpus:
    """A corpus from a corpus, its name or file, a dict of splits, or a sequence of dicts.

    A sequence of ten or more is split 8:1:1, every tenth row to the test set and the one before it to
    validation; a shorter one is all training. DataError names what is wrong with the rows.
    """
    from llmlab.data import corpus

    if isinstance(data, Corpus):
        return data
    if isinstance(data, str | Path):
        return corpus(data)
    if isinstance(data, Mapping):
        unknown = [name for name in data if name not in SPLITS]
        if unknown:
            raise DataError(f"unknown split {unknown[0]!r}: the splits are {', '.join(SPLITS)}")
        splits = dict(data)
    elif _indexed(data):
        splits = _split(data)
    else:
        raise DataError(f"data cannot be a {type(data).__name__}: give a corpus, its name, a file, or rows")
    for split, rows in splits.items():
        if not _indexed(rows):
            raise DataError(f"the {split} split is a {type(rows).__name__}: give a sequence of dicts")
        if len(rows) and not isinstance(rows[0], Mapping):
            raise DataError(f"row 0 of the {split} split is a {type(rows[0]).__name__}: give dicts of text")
    if not len(splits.get("train", ())):
        raise DataError("there is no training example: give at least one row")
    return Corpus(IN_MEMORY, splits, source=IN_MEMORY, licence="yours")


def _indexed(rows: Any) -> bool:
    """A list, or anything with a length and numbered rows, such as a memory-mapped `datasets.Dataset`."""
    return hasattr(rows, "__len__") and hasattr(rows, "__getitem__") and not isinstance(rows, str | Mapping)


def _split(rows: Sequence[Any]) -> dict[str, Sequence[Any]]:
    if len(rows) < FEW:
        return {"train": rows}
    parts: dict[str, list[Any]] = {split: [] for split in SPLITS}
    for i, row in enumerate(rows):
        parts["test" if i % 10 == 9 else "validation" if i % 10 == 8 else "train"].append(row)
    return dict(parts)

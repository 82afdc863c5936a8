"""The user's own text: one file, or a folder of .txt files, or a folder with train, validation and test.

1. A file is read whole: it has to fit in memory.
2. Only the columns that a technique knows are kept; the others are ignored.
3. Without files of their own, validation and test are drawn from the rest. Rows with the same first
   column (the same prompt, say) are one document; so are the paragraphs of a .txt in a folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from llmlab.data import readers
from llmlab.data.corpus import SPLITS, Corpus, Example
from llmlab.data.errors import DataError, nearest
from llmlab.data.readers import Row
from llmlab.data.split import split_by

COLUMN_SETS = (
    ("text",),
    ("prompt", "response"),
    ("source", "target"),
    ("text", "label"),
    ("prompt", "chosen", "rejected"),
)
_KNOWN = ("text", "prompt", "source", "response", "target", "label", "chosen", "rejected")
_UNDERSTOOD = "; ".join(", ".join(columns) for columns in COLUMN_SETS)
_SPLIT_NAMES = {"train": "train", "training": "train", "test": "test"}
_SPLIT_NAMES |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")


def from_files(path: str | Path, columns: Mapping[str, str] | None = None, seed: int = 0) -> Corpus:
    """Return the text in a file (.txt .csv .tsv .jsonl .json .parquet) or a folder, in three splits.

    `columns` renames: {"question": "prompt", "answer": "response"}. Paragraphs of a .txt, which blank
    lines separate, become documents. Files in a folder named train, validation (or val, dev) and test
    are its splits. Raises DataError, one line that names file, row, column and the way out.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(_missing(place))
    parts = _split_files(place) if place.is_dir() else {}
    given = {split: _table(file, columns) for split, file in parts.items()}
    if given:
        splits = _complete(place, given, seed)
    elif place.is_dir():
        splits = _dealt(place, _folder(place), "document", seed)
    else:
        rows = _table(place, columns)
        splits = _dealt(place, rows, next(iter(rows[0])), seed)
    return Corpus(
        name=str(path),
        splits=splits,
        source=f"your own {'folder' if place.is_dir() else 'file'} {place.name}",
        licence="yours: the kit does not know it",
        options={"columns": dict(columns or {}), "seed": seed},
    )


def _missing(place: Path) -> str:
    if place.parent.is_dir():
        close = nearest(place.name, [other.name for other in place.parent.iterdir()])
        return f"{place}: there is no such file or folder.{close or ' Check the path.'}"
    return f"{place}: there is no folder {place.parent}; check the path"


def _split_files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that are named after a split; none where there is no train file."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        split = _SPLIT_NAMES.get(file.stem.lower())
        if not file.is_file() or file.suffix.lower() not in readers.READERS or split is None:
            continue
        if split in found:
            raise DataError(f"{folder}: {found[split].name} and {file.name} both hold the {split} split; keep one")
        found[split] = file
    if found and "train" not in found:
        names = ", ".join(file.name for file in found.values())
        raise DataError(f"{folder}: it has {names} but no train file; add one, or rename {names}")
    return found


def _folder(folder: Path) -> list[Example]:
    """Return the paragraphs of every .txt in a folder, each once, with the document they belong to."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() == ".txt")
    if not files:
        raise DataError(f"{folder}: it holds no .txt file and no train file (such as train.csv); add one")
    rows: dict[str, Example] = {}
    for file in files:
        for number, values in readers.read(file):
            text = str(values["text"])
            whole = len(files) >= len(SPLITS)
            rows.setdefault(text, {"text": text, "document": file.name if whole else f"{file.name} {number}"})
    return list(rows.values())


def _dealt(place: Path, rows: list[Example], key: str, seed: int) -> dict[str, list[Example]]:
    """Return the rows in three splits; the column "document" is dropped on the way."""
    if len(rows) == 1:
        raise DataError(f"{place}: it holds one example, which cannot be split; give three or more")
    try:
        splits = split_by(rows, key, seed)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    return {
        split: [{name: row[name] for name in row if name != "document"} for row in held]
        for split, held in splits.items()
    }


def _complete(folder: Path, given: dict[str, list[Example]], seed: int) -> dict[str, list[Example]]:
    """Return the given splits, with those that have no file drawn from the training rows."""
    lacking = [split for split in SPLITS[1:] if split not in given]
    splits = dict(given)
    if lacking:
        shares = [0.1 if split in lacking else 0.0 for split in SPLITS]
        shares[0] = 1 - sum(shares)
        try:
            splits |= split_by(given["train"], next(iter(given["train"][0])), seed, shares)
        except DataError as error:
            raise DataError(f"{folder}: {error}, or add a file for {' and '.join(lacking)}") from error
    _warn_of_overlap(folder, splits)
    return {split: splits[split] for split in SPLITS}


def _warn_of_overlap(folder: Path, splits: Mapping[str, list[Example]]) -> None:
    trained = {tuple(row.values()) for row in splits["train"]}
    for split in SPLITS[1:]:
        both = sum(tuple(row.values()) in trained for row in splits[split])
        if both:
            warnings.warn(
                f"{folder}: {both} of {len(splits[split])} {split} rows are also in train: "
                f"the {split} figures will look better than they are",
                stacklevel=2,
            )


def _table(file: Path, columns: Mapping[str, str] | None) -> list[Example]:
    """Return the rows of a file with the columns that a technique knows, every value checked."""
    rows = readers.read(file)
    first = _renamed(file, rows[0], columns or {}).values
    wanted = _wanted(file, first)
    return [_example(file, _renamed(file, row, columns or {}), wanted) for row in rows]


def _renamed(file: Path, row: Row, columns: Mapping[str, str]) -> Row:
    for old, new in columns.items():
        if old not in row.values:
            raise DataError(
                f'{file}, {row.number}: there is no column "{old}" to rename.{nearest(old, row.values)} '
                f"It has {', '.join(row.values)}."
            )
        if new in row.values and new not in columns:
            raise DataError(f'{file}: renaming "{old}" to "{new}" would hide the column "{new}"; rename that too')
    return Row(row.number, {columns.get(name, name): value for name, value in row.values.items()})


def _wanted(file: Path, names: Iterable[str]) -> list[str]:
    """Return the columns to keep, the one that makes rows the same document first."""
    names = list(names)
    kept = {column for columns in COLUMN_SETS if set(columns) <= set(names) for column in columns}
    if not kept:
        raise DataError(
            f"{file}: its columns ({', '.join(names) or 'none'}) are none of: {_UNDERSTOOD}. "
            'Rename them, or say columns={"question": "prompt", "answer": "response"}'
        )
    return [column for column in _KNOWN if column in kept]


def _example(file: Path, row: Row, wanted: list[str]) -> Example:
    example: Example = {}
    for column in wanted:
        where = f'{file}, {row.number}, column "{column}"'
        if column not in row.values:
            raise DataError(f"{where}: the row lacks it; add it, or delete the row")
        value = row.values[column]
        if column == "label" and isinstance(value, int):
            value = str(value)  # labels are names, and 0 and 1 are common ones
        if value is None or value == "" or (isinstance(value, str) and not value.strip()):
            raise DataError(f"{where}: it is empty; fill it in, or delete the row")
        if not isinstance(value, str):
            kind = type(value).__name__
            raise DataError(f"{where}: text is needed, here is {kind}; write it in quotes, as text")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise DataError(f"{where}: it holds half a character (a lone surrogate); write the whole one")
        example[column] = value
    return example

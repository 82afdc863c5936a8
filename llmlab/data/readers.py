"""One reader for each kind of file: from bytes to rows of named values, with errors that say where.

1. Text is UTF-8, with or without a byte order mark; lines end as on any system.
2. A .csv is separated by commas, or by semicolons where its header has no comma but a semicolon.
3. A .json file is one list of objects.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmlab.data.errors import DataError


class Row(NamedTuple):
    """One example as read: `number` says where it stands ("row 3 (line 4)"), `values` are by column."""

    number: str
    values: dict[str, Any]


def read(file: Path) -> list[Row]:
    """Return the rows of a file, at least one; DataError says what is wrong, where, and the way out."""
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        ending = f'the ending "{file.suffix}"' if file.suffix else "a name without ending"
        raise DataError(f"{file}: {ending} is not known; use one of {' '.join(READERS)}")
    try:
        rows = list(reader(file))
    except OSError as error:
        raise DataError(f"{file}: it cannot be read ({error.strerror}); check its permissions") from error
    if not rows:
        raise DataError(f"{file}: it holds no example; add some, three at least")
    return rows


def _text(file: Path) -> str:
    """Return the text of a file, its lines ended by line feeds alone."""
    data = file.read_bytes()
    if not data.strip():
        raise DataError(f"{file}: the file is empty; add some text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)  # the codec does not count the mark
        kind = " (it looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise DataError(
            f"{file}: byte {at} (0x{data[at]:02X}) is not UTF-8{kind}; save the file with the encoding UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _txt(file: Path) -> Iterator[Row]:
    for number, paragraph in enumerate(re.split(r"\n[^\S\n]*(?:\n[^\S\n]*)+", _text(file)), 1):
        if paragraph.strip():
            yield Row(f"paragraph {number}", {"text": paragraph.strip("\n")})


def _csv(file: Path) -> Iterator[Row]:
    text = _text(file)
    header = text.split("\n", 1)[0]
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ";" if "," not in header and ";" in header else ","
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    number, start = 0, 1
    try:
        for cells in lines:
            line, start = start, lines.line_num + 1
            if not cells:
                continue
            if not names:
                names = _header(file, cells)
                continue
            number += 1
            if len(cells) != len(names):
                mark = "a tab" if delimiter == "\t" else f'"{delimiter}"'
                raise DataError(
                    f"{file}, row {number} (line {line}): {len(cells)} cells where the header has "
                    f"{len(names)}; put double quotes around text that holds {mark}"
                )
            yield Row(f"row {number} (line {line})", dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise DataError(
            f"{file}, line {lines.line_num}: {error}; close the double quotes there, or use .jsonl for very long text"
        ) from error


def _header(file: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f'{file}, line 1: the column "{name}" comes twice; rename one')
    return names


def _jsonl(file: Path) -> Iterator[Row]:
    number = 0
    for line, text in enumerate(_text(file).split("\n"), 1):  # splitlines() would cut at U+2028 in a string
        if not text.strip():
            continue
        number += 1
        where = f"row {number} (line {line})"
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, {where}: not JSON ({_reason(error)}); write one object a line") from error
        yield Row(where, _object(file, where, value))


def _json(file: Path) -> Iterator[Row]:
    text = _text(file)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise DataError(
            f"{file}, line {line}: not JSON ({_reason(error)}); if each line is an object of its own, call it .jsonl"
        ) from error
    if not isinstance(values, list):
        raise DataError(f"{file}: a list of objects is needed, here is {_kind(values)}; put [ and ] around the rows")
    for number, value in enumerate(values, 1):
        yield Row(f"row {number}", _object(file, f"row {number}", value))


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _object(file: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f'{file}, {where}: an object such as {{"text": "..."}} is needed, here is {_kind(value)}')
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _parquet(file: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{file}: reading .parquet needs pyarrow: python -m pip install pyarrow") from error
    try:
        table = pyarrow.parquet.ParquetFile(file).read()
        rows = table.to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(". ")
        raise DataError(f"{file}: not a parquet file that can be read ({reason}); write it again") from error
    for number, values in enumerate(rows, 1):
        yield Row(f"row {number}", values)


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".txt": _txt,
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}

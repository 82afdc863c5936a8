"""Reads the docstrings of installed packages from their source files; no package is imported.

1. Only sentences are kept: parameter lists, examples, formulas, markup and licence texts are left out.
2. Folders whose name starts with "_" are private and left out, and so are tests; numpy keeps its
   functions in `_core`, which is read. Of torch, folders about its inner works are left out too.
"""

from __future__ import annotations

import ast
import gc
import importlib.util
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any, NamedTuple

from llmlab.data.prose import tidy
from llmlab.data.store import remembered

RECIPE = 2  # raise it when the rules below change: cached harvests of other rules are then not used

_SKIPPED = {"test", "tests", "testing", "site-packages", "dist-packages", "idlelib", "lib2to3", "ensurepip"}
_SKIPPED |= {"encodings", "turtledemo", "distutils", "tkinter", "node_modules"}
_SKIPPED |= {"ao", "export", "fx", "onnx", "package"}  # of torch: long to parse, and about its inner works
_LARGEST = 400_000  # bytes of a file: longer ones are generated tables
_READ_ANYWAY = {"_core"}
_BOILERPLATE = re.compile(r"copyright|licen[sc]e|warrant(y|ies)|redistribut|rights reserved|TODO|FIXME|XXX", re.I)
_NOT_PROSE = re.compile(r">>>|::|https?:|[|\\{}]| = |==|->|\.\. |^[-*+=~^]|\d+\. ", re.M)
_COMMON = re.compile(r"\b(the|a|an|is|are|of|to|and|in|for|this|that|with|if|be)\b", re.I)
_HEADING = re.compile(r"^\s*[\w ]+\n\s*[-=~]{3,}|^\s*[A-Z][\w ]*:{1,2}\s*$", re.M)
_TITLE = re.compile(r"^[\w ]+\n[-=~]{3,}\n")
_MARKUP = (
    (re.compile(r":[a-z:]+:`[~!.]?([^`<]+?)\s*(?:<[^>`]*>)?`"), r"\1"),
    (re.compile(r"``([^`]+)``"), r"\1"),
    (re.compile(r"`([^`<]+?)\s*(?:<[^>`]*>)?`_{0,2}"), r"\1"),
)


class Doc(NamedTuple):
    """The sentences of one docstring: `lead` paragraphs stand before its first section."""

    module: str
    name: str
    paragraphs: list[str]
    lead: int


def version(package: str) -> str | None:
    """Return the version of "python" or of an installed package, or None where it is missing."""
    if package == "python":
        return python_version()
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def harvest(package: str) -> list[Doc]:
    """Return the docstrings of "python" or of an installed package; none where it has no source files.

    The first call takes a few seconds for each package, later calls read the user's cache.
    """
    key = f"docstrings-{RECIPE}-{package}-{version(package)}"
    kept = remembered(key, lambda: _build(package))
    return [Doc(*entry) for entry in kept]


def _build(package: str) -> list[list[Any]]:
    collecting = gc.isenabled()
    gc.disable()  # millions of short-lived nodes, no cycles: a quarter of the time would be spent looking
    try:
        return [list(doc) for root in _roots(package) for doc in _walk(package, root)]
    finally:
        if collecting:
            gc.enable()


def _roots(package: str) -> list[Path]:
    if package == "python":
        return [Path(sysconfig.get_paths()["stdlib"])]
    spec = importlib.util.find_spec(package)  # a top-level name: nothing is imported
    return [Path(place) for place in (spec and spec.submodule_search_locations) or []]


def _walk(package: str, root: Path) -> Iterator[Doc]:
    for path in sorted(root.rglob("*.py")):
        folders = path.relative_to(root).parts[:-1]
        private = any(part.startswith("_") and part not in _READ_ANYWAY for part in folders)
        if private or _SKIPPED.intersection(folders) or path.stat().st_size > _LARGEST:
            continue
        module = ".".join((package, *folders, path.stem)).removesuffix(".__init__")
        yield from _docs(module, path)


def _docs(module: str, path: Path) -> Iterator[Doc]:
    try:
        source = path.read_text("utf-8")
        if '"""' not in source and "'''" not in source:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes are no news to our user
            tree = ast.parse(source)
    except (OSError, ValueError, SyntaxError, RecursionError):
        return  # templates and files for other Python versions
    yield from _inside(module, "", tree)


def _inside(module: str, name: str, node: ast.AST) -> Iterator[Doc]:
    """Yield the docstring of `node` and of the classes and functions in it."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        raw = ast.get_docstring(node, clean=False)
        paragraphs, lead = sentences_of(raw) if raw else ([], 0)
        if paragraphs:
            yield Doc(module, name, paragraphs, lead)
    for child in getattr(node, "body", []):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _inside(module, f"{name}.{child.name}".lstrip("."), child)


def sentences_of(docstring: str) -> tuple[list[str], int]:
    """Return the prose paragraphs of a docstring, and how many stand before its first section."""
    paragraphs: list[str] = []
    lead: int | None = None
    for block in re.split(r"\n[ \t]*\n", inspect.cleandoc(docstring)):
        if lead is None and _HEADING.search(block):
            lead = len(paragraphs)
        text = _readable(_TITLE.sub("", block))
        if text:
            paragraphs.append(text)
    return paragraphs, len(paragraphs) if lead is None else lead


def _readable(block: str) -> str:
    """Return a paragraph as plain sentences on one line, or "" where it is something else."""
    if any(line[:1] in (" ", "\t") for line in block.split("\n")) or _BOILERPLATE.search(block):
        return ""
    for pattern, plain in _MARKUP:
        block = pattern.sub(plain, block)
    text = tidy(block)
    letters = sum(character.isalpha() or character == " " for character in text)
    sentence = text[:1].isupper() and text.endswith((".", "!", "?")) and letters >= 0.85 * len(text)
    usual = _COMMON.search(text) and len(text.split()) >= 3 and "`" not in text
    return text if sentence and usual and not _NOT_PROSE.search(block) else ""

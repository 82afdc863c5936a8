"""The text that models learn from: `corpus(name)` makes it, `corpora()` lists what there is.

1. A source is imported when it is asked for, never before: listing costs nothing.
2. The short form "name:value,option=value" is for a command line; it knows numbers, true, false and words.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.data.corpus import SPLITS, Corpus, Example
from llmlab.data.errors import DataError, nearest

__all__ = ["SPLITS", "Corpus", "DataError", "Example", "Source", "corpora", "corpus", "describe", "register"]

FILE_TYPES = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class Source:
    """A corpus that can be asked for: its name, what it holds, and where its loader is.

    `columns` are those of its rows; where they depend on the main option, all that there may be.
    `loader` is "module:function", imported on first use. The function's first parameter is its
    main option: the one that a bare word sets, as in "tinytown:qa" or "tinytown-qa".
    """

    name: str
    about: str
    licence: str
    columns: tuple[str, ...]
    loader: str

    def __str__(self) -> str:
        return f"{self.name}: {self.about} [{', '.join(self.columns)}; {self.licence}]"

    def function(self) -> Callable[..., Corpus]:
        """Import and return the loader."""
        module, _, function = self.loader.partition(":")
        loader: Callable[..., Corpus] = getattr(importlib.import_module(module), function)
        return loader


_SOURCES: dict[str, Source] = {}
_KINDS = {int: "a whole number", bool: "true or false", str: "a word"}


def register(source: Source) -> None:
    """Make `source` known to `corpus` and `corpora`; ValueError where its name is taken by another."""
    if _SOURCES.get(source.name, source) != source:
        raise ValueError(f'corpus "{source.name}" is registered already, by {_SOURCES[source.name].loader}')
    _SOURCES[source.name] = source


def corpora() -> list[Source]:
    """Return every registered source, in alphabetical order; printing one gives a line about it."""
    return [_SOURCES[name] for name in sorted(_SOURCES)]


def corpus(name: str | Path, **options: Any) -> Corpus:
    """Return the corpus of that name, or of the user's own file or folder at that path.

    `name` is a registered name ("dates"), one with its main option ("dates:fr" or "dates-fr"), one
    with several ("dates:fr,size=500,seed=3"), or a path. Keyword options win over those in the name.
    Raises DataError (a ValueError) of one line for an unknown name, an unknown option, or a file that
    cannot be used.
    """
    text = str(name)
    if text in _SOURCES:
        return _call(_SOURCES[text], [], options)
    if _is_path(name):
        from llmlab.data.files import from_files

        return _checked(from_files, text, text, options)
    source, words = _parse(text)
    return _call(source, words, options)


def describe(corpus: Corpus) -> str:
    """Return a few lines about a corpus: splits, columns, origin, licence and a shortened sample."""
    from llmlab.data.card import describe as render

    return render(corpus)


def _is_path(name: str | Path) -> bool:
    if isinstance(name, Path) or "/" in name or "\\" in name:
        return True
    try:
        return name.lower().endswith(FILE_TYPES) or Path(name).exists()
    except (OSError, ValueError):  # too long for a path, or a null character in it
        return False


def _parse(text: str) -> tuple[Source, list[str]]:
    """Return the source that a name with options means, and the options as written."""
    head, colon, rest = text.partition(":")
    if colon and head in _SOURCES:
        return _SOURCES[head], [word.strip() for word in rest.split(",") if word.strip()]
    parents = [known for known in _SOURCES if text.startswith(known + "-")]
    if parents and not colon:
        parent = max(parents, key=len)
        return _SOURCES[parent], [text[len(parent) + 1 :]]
    raise DataError(
        f'there is no corpus or file called "{text}".{nearest(head, _SOURCES)} llmlab.data.corpora() lists the corpora.'
    )


def _call(source: Source, words: list[str], options: dict[str, Any]) -> Corpus:
    """Call the loader of `source` with the options written in the name and those given by keyword."""
    loader = source.function()
    known = list(inspect.signature(loader).parameters)
    written: dict[str, Any] = {}
    for word in words:
        option, equals, value = word.partition("=")
        if equals:
            written[option.strip()] = _value(value.strip())
        elif word in known:
            written[word] = True  # "facts:context" is facts with context=True
        else:
            written[known[0]] = _value(word)
    return _checked(loader, source.name, None, written | options)


def _checked(loader: Callable[..., Corpus], name: str, path: str | None, options: dict[str, Any]) -> Corpus:
    """Call `loader` after checking that it knows every option."""
    parameters = inspect.signature(loader).parameters
    known = [option for option in parameters if option != "path"]
    for option, value in options.items():
        if option not in known:
            raise DataError(
                f'corpus "{name}" has no option "{option}".{nearest(option, known)} '
                f"It has {', '.join(known) or 'none'}."
            )
        wanted = type(parameters[option].default)
        if wanted in _KINDS and type(value) is not wanted:
            raise DataError(f'corpus "{name}": {option} = {value!r} must be {_KINDS[wanted]}')
    return loader(**options) if path is None else loader(path, **options)


def _value(text: str) -> Any:
    """Return what an option means that was written as text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?\d+\.\d+", text) else text


for _name, _about, _licence, _columns, _loader in (
    (
        "python-reference",
        "the Python language reference, as text and as instructions to explain a topic",
        "PSF-2.0",
        ("text", "prompt", "response"),
        "llmlab.data.reference:python_reference",
    ),
    (
        "docstrings",
        "prose from the docstrings of Python, torch and numpy",
        "PSF-2.0 and BSD-3-Clause",
        ("text",),
        "llmlab.data.docstrings:docstrings",
    ),
    (
        "docstring-summaries",
        "body of a docstring -> its summary line, where the body supports it",
        "PSF-2.0 and BSD-3-Clause",
        ("source", "target"),
        "llmlab.data.docstrings:docstring_summaries",
    ),
    (
        "dates",
        "dates, times, durations, amounts: English -> another language (dates:fr, dates:de, ...)",
        "BSD-3-Clause and Unicode-3.0",
        ("source", "target"),
        "llmlab.data.locales:dates",
    ),
    (
        "names",
        "names of territories, languages, currencies: English -> another language (names:fr, ...)",
        "BSD-3-Clause and Unicode-3.0",
        ("source", "target"),
        "llmlab.data.locales:names",
    ),
    (
        "facts",
        "questions about currencies and official languages (facts:context gives the passage too)",
        "BSD-3-Clause and Unicode-3.0",
        ("prompt", "response"),
        "llmlab.data.facts:facts",
    ),
    (
        "tinytown",
        "a made-up world of known truth; tasks documents, qa, summaries, ... (tinytown:qa); columns by task",
        "MIT",
        ("text", "prompt", "response", "source", "target", "label", "chosen", "rejected"),
        "llmlab.data.tinytown:tinytown",
    ),
):
    register(Source(_name, _about, _licence, _columns, _loader))

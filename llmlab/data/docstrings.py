"""Text from the docstrings of Python itself, torch and numpy, which every install of the kit has.

1. A module is one document: what is said twice in different words in two modules may cross splits,
   a paragraph that is repeated word for word never does.
2. The text is that of the installed versions, and so are the counts; `Corpus.source` names them.
3. A summary counts as supported when most of its longer words occur in the body. That is a test of
   words, not of meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from llmlab.data.corpus import Corpus, Example
from llmlab.data.errors import DataError
from llmlab.data.harvest import Doc, harvest, version
from llmlab.data.prose import pieces
from llmlab.data.split import split_by

LICENCES = {"python": "PSF-2.0", "torch": "BSD-3-Clause", "numpy": "BSD-3-Clause"}
SHORTEST, LONGEST = 120, 900  # characters of a passage
SUMMARY, BODY = (20, 120), (80, 900)  # characters of a summary line, and of the body it sums up
SUPPORT = 0.5  # share of the summary's longer words that the body must hold


def docstrings(packages: str | Sequence[str] = ("python", "torch", "numpy"), seed: int = 0) -> Corpus:
    """Return 3,000 to 9,000 passages of 120 to 900 characters (1 to 4 MB), in three splits.

    Column: `text`. `packages` are any of "python", "torch" and "numpy"; those not installed are left
    out. The first call takes a few seconds. Raises DataError where none of them can be read.
    """
    found = _harvested("docstrings", packages)
    rows: list[tuple[str, Example]] = []
    seen: set[str] = set()
    for doc in (doc for docs in found.values() for doc in docs):
        fresh = [text for text in doc.paragraphs if _same(text) not in seen]
        seen.update(map(_same, fresh))
        for _, passage in pieces((("", text) for text in fresh), SHORTEST, LONGEST):
            rows.append((doc.module, {"text": passage}))
    return _corpus("docstrings", found, rows, seed)


def docstring_summaries(packages: str | Sequence[str] = ("python", "torch", "numpy"), seed: int = 0) -> Corpus:
    """Return 800 to 3,000 pairs of a text and the summary line that its author gave it.

    Columns: `source` (80 to 900 characters) and `target` (20 to 120 characters, one sentence).
    Options, time and errors are those of `docstrings`.
    """
    found = _harvested("docstring-summaries", packages)
    rows: list[tuple[str, Example]] = []
    seen: set[str] = set()
    for doc in (doc for docs in found.values() for doc in docs):
        for row in _pair(doc):
            if not seen & {_same(row["source"]), _same(row["target"])}:
                seen |= {_same(row["source"]), _same(row["target"])}
                rows.append((doc.module, row))
    return _corpus("docstring-summaries", found, rows, seed)


def _harvested(name: str, packages: str | Sequence[str]) -> dict[str, list[Doc]]:
    """Return the docstrings by package, of those packages that are installed."""
    asked = [packages] if isinstance(packages, str) else list(packages)
    for package in asked:
        if package not in LICENCES:
            raise DataError(f'{name}: no package "{package}"; there are {", ".join(LICENCES)}')
    found = {package: harvest(package) for package in asked if version(package)}
    found = {package: docs for package, docs in found.items() if docs}
    if not found:
        raise DataError(f"{name}: no source files of {', '.join(asked) or 'no package'} found here")
    return found


def _corpus(name: str, found: dict[str, list[Doc]], rows: list[tuple[str, Example]], seed: int) -> Corpus:
    modules = {id(row): module for module, row in rows}
    return Corpus(
        name=name,
        splits=split_by((row for _, row in rows), lambda row: modules[id(row)], seed),
        source="docstrings of " + ", ".join(f"{package} {version(package)}" for package in found),
        licence=", ".join(f"{LICENCES[package]} ({package})" for package in found),
        options={"packages": list(found), "seed": seed},
    )


def _pair(doc: Doc) -> Iterator[Example]:
    """Yield body and summary of a docstring, where both have the right length and the body supports it."""
    summary, body = doc.paragraphs[0], ""
    for paragraph in doc.paragraphs[1 : doc.lead]:
        if len(body) + len(paragraph) < BODY[1]:
            body = f"{body} {paragraph}".strip()
        else:
            break
    fits = SUMMARY[0] <= len(summary) <= SUMMARY[1] and BODY[0] <= len(body) <= BODY[1]
    if fits and doc.lead > 1 and support(summary, body) >= SUPPORT:
        yield {"source": body, "target": summary}


def support(summary: str, body: str) -> float:
    """Return the share, 0 to 1, of the summary's words of four letters or more whose stem is in `body`."""
    wanted = stems(summary)
    return len(wanted & stems(body)) / len(wanted) if wanted else 0.0


def stems(text: str) -> set[str]:
    """Return the words of four letters or more, each cut after its sixth letter and freed of its plural."""
    words = re.findall(r"[a-z]{4,}", text.casefold())
    return {re.sub(r"(?:ing|ed|es|s|e)$", "", word)[:6] for word in words} - _EMPTY


_EMPTY = {"this", "that", "with", "from", "when", "will", "have", "which", "into", "than", "then", "should"}


def _same(text: str) -> str:
    """Return what two paragraphs share that differ only in case, digits or punctuation."""
    return re.sub(r"[\W\d_]+", " ", text.casefold()).strip()

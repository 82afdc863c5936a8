"""The Python language reference, read from the standard library that runs this very code.

1. Only prose is kept, with the code sample that a sentence leads up to; grammar rules, tables,
   footnotes and version notes are left out.
2. A section that the library prints under several help topics is one document.
3. The text is that of the running Python: it differs between versions, and so do the counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from textwrap import dedent

from llmlab.data.corpus import Corpus, Example
from llmlab.data.errors import DataError
from llmlab.data.prose import pieces, tidy
from llmlab.data.split import split_by

SHORTEST, LONGEST = 200, 900  # characters of a passage

_UNDERLINE = re.compile(r"([*=\-~^\"])\1{2,}")
_KIND = re.compile(r"^(?:class|classmethod|static|async) ")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+")
_VERSION_NOTE = re.compile(r"(?:Changed|New|Added|Deprecated|Removed) (?:in|since) |See also|Availability:|PEP \d+ - ")
_NOT_PROSE = re.compile(r"::=|^[+|][-=]{3}|^\||>>>|^={3,}|^-{3,}|^-\[", re.M)
_SENTENCE = re.compile(r"[\"'(*]*[A-Z\"(*].*[.!?:][\")']*", re.S)
_KEEP_CAPITAL = {"None", "Ellipsis", "Unicode", "Python", "Boolean", "I", "Emacs"}


@dataclass
class Section:
    """A section of the reference: its title and (term, text) units in order of appearance."""

    title: str
    units: list[tuple[str, str]] = field(default_factory=list)


def python_reference(seed: int = 0) -> Corpus:
    """Return 250 to 700 passages of 200 to 900 characters, 80 to 250 sections, in three splits.

    Columns: `text` (section title and passage) for language models; `prompt` and `response` (an
    instruction that names the topic, and its passage) for instruction tuning. Takes well under a
    second. Raises DataError where this Python was installed without its help texts.
    """
    rows = [row for section in sections(_topics()) for row in _rows(section)]
    if not rows:
        raise DataError("python-reference: the help topics of this Python hold no prose; use another corpus")
    splits = split_by(rows, lambda row: row["text"].split("\n", 1)[0].casefold(), seed)
    version = ".".join(map(str, sys.version_info[:3]))
    return Corpus(
        name="python-reference",
        splits=splits,
        source=f"Python {version} language reference (pydoc_data.topics of the standard library)",
        licence="PSF-2.0",
        options={"seed": seed},
    )


def _topics() -> dict[str, str]:
    """Return the help texts by topic; DataError where the distribution left them out."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "python-reference: this Python has no pydoc_data (some minimal builds drop it); "
            "use a full Python, or another corpus from llmlab.data.corpora()"
        ) from error
    return topics


def sections(topics: dict[str, str]) -> list[Section]:
    """Return the sections of all topics, each once, without a paragraph that came up before."""
    found: dict[str, Section] = {}
    seen: set[str] = set()
    for name in sorted(topics):
        for title, body in _by_heading(topics[name]):
            section = found.setdefault(title.casefold(), Section(title))
            for term, text in _units(body):
                if text not in seen:
                    seen.add(text)
                    section.units.append((term, text))
    return [section for section in found.values() if section.units]


def _by_heading(topic: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (title, blocks of lines between blank lines) for each underlined heading."""
    title, blocks = "", list[str]()
    for block in re.split(r"\n[ \t]*\n", topic.expandtabs().strip("\n")):
        lines = block.strip("\n").split("\n")
        if len(lines) == 2 and _UNDERLINE.fullmatch(lines[1]) and len(lines[1]) >= len(lines[0]):
            if title:
                yield title, blocks
            title, blocks = tidy(lines[0]).replace('"', "").replace("`", ""), []
        else:
            blocks.append("\n".join(lines))
    if title:
        yield title, blocks


def _units(blocks: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (term being defined or "", readable text): paragraphs, or a lead-in with its code."""
    term, term_indent, at = "", 0, 0
    while at < len(blocks):
        block, indent = blocks[at], _indent(blocks[at])
        at += 1
        if indent <= term_indent:
            term = ""
        if block.lstrip().startswith("-[ Footnotes"):
            return
        following = _indent(blocks[at]) if at < len(blocks) else 0
        prose = _is_prose(block)
        if not prose and following > indent and _is_prose(blocks[at]) and _is_term(block):
            term, term_indent = block.strip().split("\n")[0], indent
        elif prose:
            text = tidy(_hanging(block))
            if text.endswith(":") or not text.endswith((".", "!", "?", ")", '"')):
                samples, at = _samples(blocks, at, indent)
                if not samples:
                    continue  # a lead-in to something we do not keep would dangle
                text = "\n".join([text, *samples])
            yield term, text


def _samples(blocks: list[str], at: int, indent: int) -> tuple[list[str], int]:
    """Return the code (or bullets) that a lead-in at `indent` announces, and where it ends."""
    samples: list[str] = []
    while at < len(blocks):
        block = blocks[at]
        bullet = block.lstrip().startswith("* ")
        if bullet and _is_prose(block):
            samples.append(tidy(block))
        elif _indent(block) > indent and not bullet and not _is_prose(block) and "::=" not in block:
            samples.append(dedent(block))
        else:
            break
        at += 1
    return samples, at


def _indent(block: str) -> int:
    return len(block) - len(block.lstrip(" "))


def _is_term(block: str) -> bool:
    """Tell the head of a definition, such as a signature, from code that stands before prose."""
    text = block.strip()
    listed, leads_in = text[0] in "0123456789*", text.endswith(":")
    return len(text) <= 100 and not listed and not leads_in and not _NOT_PROSE.search(block)


def _hanging(block: str) -> str:
    """Return a block whose first line is a head over deeper lines with a colon after that head."""
    head, _, body = block.partition("\n")
    if _indent(body) > _indent(head) and not head.lstrip().startswith(("* ", "[")):
        return f"{head}: {body}"
    return block


def _is_prose(block: str) -> bool:
    """Tell sentences from code, grammar, tables and version notes."""
    text = tidy(block)
    if _NOT_PROSE.search(block) or _VERSION_NOTE.match(text) or len(text.split()) < 5:
        return False
    lead_in = (
        text.removeprefix("- ")[:1].isupper()
        and " = " not in text
        and re.search(r"\b(the|is|are|to|of|a)\b", text, re.I)
    )
    return bool(_SENTENCE.fullmatch(text.removeprefix("- ")) or lead_in)


def _rows(section: Section) -> Iterator[Example]:
    """Yield the passages of a section as examples for every kind of learner."""
    parts: dict[str, int] = {}
    for term, passage in pieces(_whole(section), SHORTEST, LONGEST):
        topic = f"{term} ({_noun(section.title)})" if term else _noun(section.title)
        parts[topic] = parts.get(topic, 0) + 1
        again = f", part {parts[topic]}" if parts[topic] > 1 else ""
        prompt = f"Explain {topic}{again}.\n"
        yield {"text": f"{section.title}\n{passage}", "prompt": prompt, "response": passage}


def _whole(section: Section) -> Iterator[tuple[str, str]]:
    """Yield the units with the term they define written in front of its first paragraph."""
    last = ""
    for term, text in section.units:
        name = _KIND.sub("", term)
        dotted = _DOTTED.match(name)
        yield (dotted[0] if dotted else name), f"{term}: {text}" if term and term != last else text
        last = term


def _noun(title: str) -> str:
    """Return a title as it stands inside a sentence: The assert statement -> the assert statement."""
    words = [
        word.lower() if word == word.capitalize() and word not in _KEEP_CAPITAL else word for word in title.split()
    ]
    article = "the " if words[-1] in ("statement", "clause") and words[0] != "the" else ""
    return article + " ".join(words)

"""Prompts from the validation set that a run continues before and after, so that its effect can be read.

1. What an encoder reads, alone or for a decoder, is a text with one blank, unless there is a question to answer; of the
   words that are one token, the one nearest the middle is hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.pairs import as_pair
from ..fill import BLANK
from ..technique import needs_of
from ..windows import plain_text

if TYPE_CHECKING:
    from ..run import Run
    from ..tokenizer import Tokenizer

OPENING = 10  # words of a text that the model is asked to continue
WRITTEN = 32  # tokens it may write
AROUND, LONG = 20, 4  # words an encoder reads, and letters of the one that is hidden, at least


@dataclass
class Sample:
    """A prompt from the validation set, what the model wrote before and after, and the right answer if there is one."""

    prompt: str
    wanted: str | None
    before: str | None = None
    after: str | None = None


def choose_samples(run: Run, count: int) -> list[Sample]:
    """The first prompts of the validation set that leave room to write; no answer is right where rewards decide."""
    splits = run.corpus.splits
    rows = splits.get("validation") or splits["train"]
    family = run.model.config.family
    room, found = run.model.room - WRITTEN, list[Sample]()
    for row in rows:
        if len(found) >= count:
            break
        blank = family == "encoder" or (family == "encoder-decoder" and _is_text(row))
        sample = _blank(row, run.tokenizer) if blank else _sample(row)
        if sample and any(needs_of(t).on_policy for t in run.techniques):
            sample.wanted = None
        if sample and len(run.tokenizer.encode(sample.prompt)) + 1 <= room:
            found.append(sample)
    return found


def answer(run: Run, prompt: str) -> str:
    """What the model writes now, greedily: its continuation, or an encoder's word for the blank."""
    if run.model.config.family == "encoder":
        return str(run.fill(prompt, best=1)[0][0].text)
    return str(run.generate(prompt, max_new_tokens=WRITTEN))


def _sample(row: Mapping[str, Any]) -> Sample | None:
    if "prompt" in row and "response" not in row:
        return Sample(str(row["prompt"]), None)
    if _is_text(row):
        return Sample(" ".join(str(row["text"]).split()[:OPENING]), None)
    try:
        prompt, wanted = as_pair(row)
    except KeyError:
        return None
    return Sample(prompt, wanted)


def _is_text(row: Mapping[str, Any]) -> bool:
    return "text" in row and "label" not in row


def _blank(row: Mapping[str, Any], tok: Tokenizer) -> Sample | None:
    try:
        words = plain_text(dict(row)).split()[:AROUND]
    except KeyError:
        return None
    hideable = [i for i, w in enumerate(words) if w.isalpha() and len(w) >= LONG and len(tok.encode(w)) == 1]
    if not hideable:
        return None
    i = min(hideable, key=lambda i: abs(2 * i + 1 - len(words)))
    (token,) = tok.encode(words[i])
    return Sample(" ".join([*words[:i], BLANK, *words[i + 1 :]]), tok.decode([token]))

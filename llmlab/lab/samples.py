"""Prompts from the validation set that a run continues before and after, so that its effect can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.pairs import as_pair

if TYPE_CHECKING:
    from ..run import Run

OPENING = 10  # words of a text that the model is asked to continue
WRITTEN = 32  # tokens it may write


@dataclass
class Sample:
    """A prompt from the validation set, what the model wrote before and after, and the right answer if there is one."""

    prompt: str
    wanted: str | None
    before: str | None = None
    after: str | None = None


def choose_samples(run: Run, count: int) -> list[Sample]:
    """The first prompts of the validation set that leave room to write; none where the model writes no text."""
    splits = run.corpus.splits
    rows = splits.get("validation") or splits["train"]
    if run.model.config.family == "encoder":
        return []
    room, found = run.model.config.context - WRITTEN, []
    for row in rows:
        sample = _sample(row)
        if sample and len(run.tokenizer.encode(sample.prompt)) + 1 <= room:
            found.append(sample)
        if len(found) == count:
            break
    return found


def _sample(row: Mapping[str, Any]) -> Sample | None:
    if "prompt" in row and "response" not in row:
        return Sample(str(row["prompt"]), None)
    if "text" in row and "label" not in row:
        return Sample(" ".join(str(row["text"]).split()[:OPENING]), None)
    try:
        prompt, wanted = as_pair(row)
    except KeyError:
        return None
    return Sample(prompt, wanted)

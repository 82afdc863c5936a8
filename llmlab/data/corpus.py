"""What every data source gives: named splits of plain dicts of text, with origin and licence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

SPLITS = ("train", "validation", "test")
NOTES = ("cue", "nats")  # what a row may carry beside its text

Example = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """Text in splits that share no document.

    `splits` maps "train", "validation" and "test" to sequences of dicts of text. The columns say
    which techniques can learn from it: `text`; `prompt`/`response`; `source`/`target`;
    `text`/`label`; `prompt`/`chosen`/`rejected`. A row may carry `cue`, what a decoder reads between a source
    and its target, a text and its label, and `nats`, the exact -ln p of what the technique predicts under the
    process that wrote it, from which the loss floor is drawn.

    `options` are the arguments that, with `name`, make the same corpus again: a run file holds them.
    """

    name: str
    splits: Mapping[str, Sequence[Example]]
    source: str
    licence: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.splits.get("train"):
            raise ValueError(f"corpus {self.name} has no training example")

    def __getitem__(self, split: str) -> Sequence[Example]:
        """The examples of `split`; KeyError names the splits there are."""
        if split not in self.splits:
            raise KeyError(f"corpus {self.name} has no split {split!r}: it has {', '.join(self.splits)}")
        return self.splits[split]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the text columns of the training examples."""
        return tuple(name for name in self["train"][0] if name not in NOTES)

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of every example: equal data give equal fingerprints."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            for row in self.splits[split]:
                digest.update(json.dumps([split, row], sort_keys=True, default=str).encode())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(rows):,} {split}" for split, rows in self.splits.items())
        return f"Corpus({self.name}: {sizes}; {', '.join(self.columns)}; {self.licence})"

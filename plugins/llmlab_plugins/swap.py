"""Counterfactual data augmentation: each text also with the words of a group swapped for another's (Lu et al. 2018).

    D' = D ∪ { swap(x) : x in D }           gap = 1/N Σ_x log p(x) - log p(swap(x)),  x in validation

What the words of a pair were with in D, both are with in D' equally often. The gap is what a model makes of the
difference: 0 nats a text where it finds both equally likely. Of a prompt and its response, p is the response's.

1. A word has one counterpart: "her" becomes "his" also where "him" would be right.
2. What is not listed stays: a name keeps telling of its owner unless it is in a pair.
3. The gap is measured of decoders alone. Of an encoder or an encoder-decoder only the texts are doubled.
"""

from __future__ import annotations

import re
from typing import Any

from llmlab.data.pairs import as_pair
from llmlab.likelihood import log_likelihood
from llmlab.technique import hookimpl, knob, technique


@technique(kind="extra")
class Swap:
    """Counterfactual pairs: train on each text with chosen words swapped, too, and measure the difference."""

    train: bool = knob(True, "Train on the swapped texts, too; off, the gap is only measured.")
    pairs: str = knob("she he, her his, woman man, girl boy, mother father, sister brother", "Words to swap, in pairs.")
    texts: int = knob(64, "Validation texts whose gap an evaluation measures.", low=0, high=100_000)

    def __post_init__(self) -> None:
        self.other: dict[str, str] = {}
        for pair in filter(str.strip, re.split(r"[,\n]", self.pairs)):
            words = pair.split()
            if len(words) != 2 or words[0].lower() == words[1].lower():
                raise ValueError(f"Swap.pairs: {pair.strip()!r} is no pair: two words each, as in 'she he, her his'")
            for word, counterpart in (words, reversed(words)):
                if self.other.setdefault(word.lower(), counterpart) != counterpart:
                    raise ValueError(f"Swap.pairs: {word!r} stands in two pairs, and can have one counterpart")
        if not self.other:
            raise ValueError("Swap.pairs names no word: two words each, as in 'she he, her his'")
        self._words = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, self.other))})(?!\w)", re.IGNORECASE)

    def swap(self, text: str) -> str:
        """The text with every listed word replaced by its counterpart, in upper or lower case as the word was."""
        return self._words.sub(lambda found: _like(found[0], self.other[found[0].lower()]), text)

    def swapped(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row whose texts are swapped; its exact probability is known no more."""
        return {k: self.swap(v) if isinstance(v, str) else v for k, v in row.items() if k != "nats"}

    @hookimpl(wrapper=True, trylast=True)  # on the texts as they come, before another technique rewrites them
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        if split != "train":
            return rows
        added = [new for row, new in ((row, self.swapped(row)) for row in rows) if new != _without_nats(row)]
        run.state[self]["swapped"] = len(added) / max(1, len(rows))
        return [*rows, *added] if self.train else rows

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        run.rows("train")
        share = {"swapped": run.state[self]["swapped"]}  # of the texts, those that hold a listed word
        both = [(row, self.swapped(row)) for row in run.corpus[split] if "chosen" not in row]
        both = [(row, new) for row, new in both if new != _without_nats(row)][: self.texts]
        if not both or run.model.config.family != "decoder":
            return share
        said = [_asked(row, run.tokenizer, run.model.room) for pair in zip(*both, strict=True) for row in pair]
        scores = log_likelihood(run.model, [prompt for prompt, _ in said], [answer for _, answer in said])
        return {"gap": float(scores[: len(both)].mean() - scores[len(both) :].mean())} | share


def _asked(row: dict[str, Any], tok: Any, room: int) -> tuple[str, str]:
    """The prompt and the answer of a row, or nothing and its text, each cut to what fits."""
    prompt, answer = ("", str(row["text"])) if "text" in row and "label" not in row else as_pair(row)
    y = tok.encode(answer)[: max(room // 2, room - 1 - len(tok.encode(prompt)))]
    x = tok.encode(prompt)[max(0, len(tok.encode(prompt)) - (room - 1 - len(y))) :]
    return tok.decode(x), tok.decode(y)


def _without_nats(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != "nats"}


def _like(word: str, counterpart: str) -> str:
    """The counterpart in the case of the word: She -> He, SHE -> HE."""
    if len(word) > 1 and word.isupper():
        return counterpart.upper()
    return counterpart[:1].upper() + counterpart[1:] if word[:1].isupper() else counterpart

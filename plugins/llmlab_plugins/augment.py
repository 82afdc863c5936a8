"""Augmentation: noise in what is read and not learnt, another noise in each pass (Xie et al. 2017).

    x_t ← a random token with probability `rate`        for t in the prompt, while training

1. Tokens are replaced in place, so nothing moves: no word is dropped, none comes in. What replaces them is drawn evenly
   from the vocabulary; the paper draws the frequent more often.
2. A word that the row's response holds, too, is spared, so that what is copied can still be copied. Whether the answer
   stays right otherwise, nobody checks: the rate is to be low.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from llmlab.batch import Batch, Chunk
from llmlab.losses import IGNORE
from llmlab.technique import hookimpl, knob, technique


@technique(kind="extra", families=["decoder", "encoder-decoder"], labels=True)
class Augment:
    """Replace random tokens of the prompts, others in each pass over the data; never one of the response."""

    rate: float = knob(0.1, "Share of a prompt's tokens that random ones replace.", low=0.0, high=0.9)

    @hookimpl(wrapper=True)
    def batches(self, run: Any, examples: Chunk) -> Any:
        made = yield
        return self._noisy(run.tokenizer, examples, made) if examples.training and self.rate else made

    def _noisy(self, tok: Any, examples: Chunk, made: Iterator[Batch]) -> Iterator[Batch]:
        words = (~tok.special).nonzero().flatten()
        for batch in made:
            name = "source" if "source" in batch.inputs else "tokens"
            read, labels = batch.inputs[name].clone(), batch["labels"]  # (B, T)
            if len(read) != len(examples):
                raise ValueError(
                    "Augment.batches: the objective makes no row of labels from each example: leave Augment out"
                )
            may = ~tok.special[read]  # what pads is special, too
            if name == "tokens":
                may &= labels == IGNORE  # nothing is predicted from here, so it is in the prompt
            if not may.any():
                raise ValueError(
                    "Augment.batches: every token is learnt, and only what is not learnt is changed: mask the prompt, "
                    "or leave Augment out"
                )
            for x, y, where, draw in zip(read, labels, may, examples.generators("augment"), strict=True):
                places = (where & ~_repeated(tok, x, y)).nonzero().flatten()
                new = words[torch.randint(len(words), places.shape, generator=draw)]
                hit = torch.rand(places.shape, generator=draw) < self.rate
                x[places[hit]] = new[hit]
            batch.inputs[name] = read
            yield batch


def _repeated(tok: Any, x: Tensor, y: Tensor) -> Tensor:
    """Which tokens of x (T,) belong to a word that the response, the labels y (T,), holds: (T,) bool."""
    answer = set(re.findall(r"\w+", tok.decode(y[y != IGNORE])))
    counts = (~tok.continues[x]).cumsum(0).unique_consecutive(return_counts=True)[1]  # tokens of each word
    held = [not answer.isdisjoint(re.findall(r"\w+", tok.decode(word))) for word in x.split(counts.tolist())]
    return torch.tensor(held).repeat_interleave(counts)

"""Causal language modelling: predict each token from those before it (Radford et al. 2018, GPT).

    L = -1/T Σ_t log p(x_t | x_1 … x_{t-1})

1. Documents are joined, an end mark after each, and cut into windows of equal length, so no step is wasted on
   padding; a window may begin in the middle of a document.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from llmlab.batch import Batch, Chunk, pad
from llmlab.data.pairs import PAIRS, as_pair
from llmlab.losses import IGNORE
from llmlab.metrics import perplexity
from llmlab.technique import hookimpl, knob, technique


class Windows(Sequence[dict[str, Tensor]]):
    """One long text of tokens, shape (N,), cut into rows of `size` + 1: each token is predicted once."""

    def __init__(self, tokens: Tensor, size: int, floor: float | None) -> None:
        self.tokens, self.size, self.floor = tokens, size, floor

    def __len__(self) -> int:
        return math.ceil((len(self.tokens) - 1) / self.size)

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return {"tokens": self.tokens[i * self.size : (i + 1) * self.size + 1]}


@technique(kind="objective", columns=["text", *PAIRS], families=["decoder"], learning_rate=3e-3)
class CLM:
    """Causal language modelling: predict the next token (GPT)."""

    window: int = knob(128, "Tokens the model reads at once while it trains.", low=8, high=8192, log=True)

    @hookimpl(wrapper=True, tryfirst=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        tok = run.tokenizer
        texts = [row["text"] if "text" in row and "label" not in row else "".join(as_pair(row)) for row in rows]
        ids = [i for text in tok.encode_all(texts) for i in (tok.bos, *text, tok.eos)]
        nats = [row.get("nats") for row in rows]
        floor = None if None in nats else sum(nats) / (len(ids) - 1)
        return Windows(torch.tensor(ids), min(self.window, run.model.config.context), floor)

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        tokens = pad([row["tokens"] for row in examples], run.tokenizer.pad)  # (B, T+1)
        labels = tokens[:, 1:].masked_fill(tokens[:, 1:] == run.tokenizer.pad, IGNORE)  # (B, T)
        yield Batch({"tokens": tokens[:, :-1]}, {"labels": labels})

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        return {"loss": model.loss(output, batch["labels"])}

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        floor = run.rows(split).floor
        found = {"perplexity": perplexity(run.losses(split)["loss"])}
        return found if floor is None else found | {"floor": floor}

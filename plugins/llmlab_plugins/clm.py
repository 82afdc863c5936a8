"""Causal language modelling: predict each token from those before it (Radford et al. 2018, GPT).

    L = -1/T Σ_t log p(x_t | x_1 … x_{t-1})

1. Documents are joined, an end mark after each, and cut into windows of equal length, so no step is wasted on
   padding; a window may begin in the middle of a document.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from llmlab.batch import Batch, Chunk, pad
from llmlab.data.pairs import PAIRS
from llmlab.losses import IGNORE
from llmlab.metrics import perplexity
from llmlab.technique import hookimpl, knob, technique
from llmlab.windows import Windows, join


@technique(kind="objective", columns=["text", *PAIRS], families=["decoder"], learning_rate=3e-3)
class CLM:
    """Causal language modelling: predict the next token (GPT)."""

    window: int = knob(128, "Tokens the model reads at once while it trains.", low=8, high=8192, log=True)

    @hookimpl(wrapper=True, tryfirst=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        tokens, floor = join(rows, run.tokenizer)
        size = min(self.window, run.model.room)
        return Windows(tokens, size + 1, overlap=1, floor=floor)  # each token is predicted once

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        rows = [row["tokens"] for row in examples]
        tokens, labels = pad(rows, run.tokenizer.pad), pad(rows, IGNORE)  # (B, T+1)
        yield Batch({"tokens": tokens[:, :-1]}, {"labels": labels[:, 1:]})

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        return {"loss": model.loss(output, batch["labels"])}

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        floor = run.rows(split).floor
        found = {"perplexity": perplexity(run.losses(split)["loss"])}
        return found if floor is None else found | {"floor": floor}

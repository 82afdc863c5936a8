"""Masked language modelling: hide some tokens and guess them from both sides (Devlin et al. 2018, BERT, section 3.1).

    L = -1/|M| Σ_{t in M} log p(x_t | x with M hidden)

Of the tokens chosen, 80 % become the mask, 10 % a random token and 10 % stay, so that the model must have an opinion
about every token. The three parts are drawn at once, so their shares are exact.

1. The second task of BERT, whether one sentence follows another, is left out, as RoBERTa found it no help.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from llmlab.batch import Batch, Chunk, pad
from llmlab.data.pairs import PAIRS
from llmlab.losses import IGNORE
from llmlab.metrics import perplexity
from llmlab.technique import hookimpl, knob, technique
from llmlab.tokenizer import Tokenizer
from llmlab.windows import Windows, join


@technique(kind="objective", columns=["text", *PAIRS], families=["encoder"], learning_rate=3e-3)
class MLM:
    """Masked language modelling: guess hidden tokens from both sides (BERT)."""

    window: int = knob(128, "Tokens the model reads at once while it trains.", low=8, high=8192, log=True)
    rate: float = knob(0.15, "Share of the tokens that are to be guessed.", low=0.01, high=0.9)
    mask_share: float = knob(0.8, "Share of those that become the mask.", low=0.0, high=1.0)
    random_share: float = knob(0.1, "Share of those that become a random token; the rest stay.", low=0.0, high=1.0)
    whole_words: bool = knob(False, "Choose all pieces of a word together.")

    def __post_init__(self) -> None:
        if self.mask_share + self.random_share > 1:
            raise ValueError(f"MLM.mask_share + MLM.random_share = {self.mask_share + self.random_share}: at most 1")

    @hookimpl(wrapper=True, tryfirst=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        tokens, _ = join(rows, run.tokenizer)
        return Windows(tokens, min(self.window, run.model.room))

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        tok, hidden, labels = run.tokenizer, [], []
        for row, draw in zip(examples, examples.generators("mask"), strict=True):
            chosen = self.choose(row["tokens"], tok, draw)
            labels.append(row["tokens"].masked_fill(~chosen, IGNORE))
            hidden.append(self.hide(row["tokens"], chosen, tok, draw))
        keep = pad([[1] * len(t) for t in hidden]).bool()
        inputs = {"tokens": pad(hidden, tok.pad)} | ({} if keep.all() else {"keep": keep})  # (B, T)
        yield Batch(inputs, {"labels": pad(labels, IGNORE)})

    def choose(self, tokens: Tensor, tok: Tokenizer, draw: torch.Generator) -> Tensor:
        """Which of the tokens (T,) are to be guessed: `rate` of them, one at least, never a special token."""
        special = tok.special[tokens]
        word = torch.arange(len(tokens))
        if self.whole_words:  # the pieces of a word share a number
            word = (special | ~tok.continues[tokens]).cumsum(0)
        words = word[~special].unique()
        luck = float(torch.rand((), generator=draw))  # rounds up as often as the fraction says: 15 % on average
        wanted = max(1, int(self.rate * int((~special).sum()) + luck))
        chosen = torch.zeros(len(tokens), dtype=torch.bool)
        for i in torch.randperm(len(words), generator=draw).tolist():
            pieces = (word == words[i]) & ~special
            if not chosen.any() or int((chosen | pieces).sum()) <= wanted:  # as in BERT, long words wait
                chosen |= pieces
            if int(chosen.sum()) >= wanted:
                break
        return chosen

    def hide(self, tokens: Tensor, chosen: Tensor, tok: Tokenizer, draw: torch.Generator) -> Tensor:
        """What the model sees of the tokens (T,)."""
        ordinary = (~tok.special).nonzero().squeeze(1)
        other = ordinary[torch.randint(len(ordinary), tokens.shape, generator=draw)]
        lot = torch.rand(tokens.shape, generator=draw)
        seen = torch.where(chosen & (lot < self.mask_share), tok.mask, tokens)
        swapped = chosen & (lot >= self.mask_share) & (lot < self.mask_share + self.random_share)
        return torch.where(swapped, other, seen)

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        losses = {"loss": model.loss(output, batch["labels"])}
        if not model.training:
            where = batch["labels"] != IGNORE
            right = model.logits(output, where).argmax(-1) == batch["labels"][where]
            losses["accuracy"] = right.float().mean()
        return losses

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        return {"perplexity": perplexity(run.losses(split)["loss"])}

"""One long text cut into windows of equal length, so that no step is spent on padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .data.pairs import as_pair
from .tokenizer import Tokenizer


class Windows(Sequence[dict[str, Tensor]]):
    """Tokens (N,) as rows {"tokens": (size,)}; each row begins with the last `overlap` tokens of the one before.

    `floor` is the exact least loss in nats per token, where the rows knew their probability.
    """

    def __init__(self, tokens: Tensor, size: int, overlap: int = 0, floor: float | None = None) -> None:
        self.tokens, self.size, self.overlap, self.floor = tokens, size, overlap, floor

    def __len__(self) -> int:
        return math.ceil((len(self.tokens) - self.overlap) / (self.size - self.overlap))

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < len(self):
            raise IndexError(i)
        start = i * (self.size - self.overlap)
        return {"tokens": self.tokens[start : start + self.size]}


def plain_text(row: dict[str, Any]) -> str:
    """A row as running text: its `text`, or its prompt and response joined."""
    return row["text"] if "text" in row and "label" not in row else "".join(as_pair(row))


def join(rows: Sequence[dict[str, Any]], tok: Tokenizer) -> tuple[Tensor, float | None]:
    """All documents as one line of ids (N,), each between BOS and EOS, and their nats per predicted token, if known."""
    ids = [i for text in tok.encode_all([plain_text(row) for row in rows]) for i in (tok.bos, *text, tok.eos)]
    known = all("nats" in row for row in rows)
    return torch.tensor(ids), sum(row["nats"] for row in rows) / (len(ids) - 1) if known else None

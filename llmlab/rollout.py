"""What a model answered to its prompts, as techniques that score answers see it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Responses:
    """B answers: as text, as `tokens` (B, T) padded on the right, and `mask` (B, T), True on real tokens."""

    text: list[str]
    tokens: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.text)

"""A number read off each hidden vector, beside the head that predicts tokens: what a reward or a value is made of.

model.heads["reward"] = ScalarHead(model.config.width, std)       in a technique's `adapt_model`
model.heads["reward"](output.hidden)                              (B, T, D) -> (B, T)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScalarHead(nn.Module):
    """r = w·h + b, (…, D) -> (…). `std` is that of the weights' start, 0 for a head that begins by saying nothing.

    `normalise` sets what `standard` takes off and divides by, r' = (r - mean) / deviation; files keep both.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, std: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.normal_(self.linear.weight, std=std) if std else nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def forward(self, hidden: Tensor) -> Tensor:
        score: Tensor = self.linear(hidden).squeeze(-1).float()
        return score

    def normalise(self, scores: Tensor) -> None:
        """Let `standard` have mean 0 and variance 1 on what was scored so, (N,); mean 0 alone, if all are equal."""
        deviation = scores.std(correction=0)
        # new tensors: models that were passed on share the old ones
        self.mean = scores.mean().to(self.mean)
        self.deviation = torch.where(deviation > 1e-6, deviation, 1.0).to(self.deviation)

    def standard(self, scores: Tensor) -> Tensor:
        """Scores on the scale that `normalise` set, of any shape."""
        return (scores - self.mean) / self.deviation


def at_end(values: Tensor, keep: Tensor) -> Tensor:
    """Each row's value at its last real token: (B, T) and bool (B, T) -> (B,), whichever side is padded."""
    last = keep.size(1) - 1 - keep.flip(1).int().argmax(1)  # argmax: the first True from behind
    return values.gather(1, last[:, None]).squeeze(1)

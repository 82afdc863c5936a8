"""Answers to the exercises of lesson 42."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def merged(W, A, B, alpha, rank):
    return W + alpha / rank * B @ A


def in_place(W, A, B, alpha, rank):
    W += alpha / rank * B @ A
    return W


class LowRank(nn.Module):
    def __init__(self, base, rank, alpha, dropout):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.A = nn.Parameter(torch.randn(rank, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))

    def update(self, x):
        return self.scale * self.dropout(x) @ self.A.T @ self.B.T

    def forward(self, x):
        return self.base(x) + self.update(x)


class BothZero(LowRank):
    def __init__(self, *given):
        super().__init__(*given)
        nn.init.zeros_(self.A)


class BothRandom(LowRank):
    def __init__(self, *given):
        super().__init__(*given)
        nn.init.normal_(self.B)


class Swapped(LowRank):
    """A zero and B random: the same start, and not what was asked."""

    def __init__(self, *given):
        super().__init__(*given)
        nn.init.zeros_(self.A)
        nn.init.normal_(self.B)


class Unscaled(LowRank):
    def update(self, x):
        return self.dropout(x) @ self.A.T @ self.B.T


class BaseTrains(LowRank):
    def __init__(self, *given):
        super().__init__(*given)
        self.base.requires_grad_(True)


class BiasTrains(LowRank):
    def __init__(self, *given):
        super().__init__(*given)
        if self.base.bias is not None:
            self.base.bias.requires_grad_(True)


class PlainTensors(LowRank):
    def __init__(self, *given):
        super().__init__(*given)
        a, b = self.A.data, self.B.data
        del self.A, self.B
        self.A, self.B = a.requires_grad_(), b.requires_grad_()


class DropsAll(LowRank):
    """Dropout on the base's input, too."""

    def forward(self, x):
        x = self.dropout(x)
        return self.base(x) + self.scale * x @ self.A.T @ self.B.T


class AlwaysDrops(LowRank):
    def update(self, x):
        return self.scale * F.dropout(x, self.dropout.p) @ self.A.T @ self.B.T


class NeverDrops(LowRank):
    def update(self, x):
        return self.scale * x @ self.A.T @ self.B.T


class Biased(LowRank):
    """Dropout without the rescaling."""

    def update(self, x):
        kept = torch.rand_like(x) >= self.dropout.p if self.training else torch.ones_like(x)
        return self.scale * (x * kept) @ self.A.T @ self.B.T


class WithoutBase(LowRank):
    def forward(self, x):
        return self.update(x)


class Detached(LowRank):
    def update(self, x):
        return self.scale * self.dropout(x) @ self.A.detach().T @ self.B.T


class NoDropoutKnob(LowRank):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha, 0.0)


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "lora.1": (
        2 * 32 * 8 * (4096 + 4096),
        [8 * 8192, 2 * 8 * 8192, 32 * 8 * 8192, 2 * 32 * 4096 * 4096, 2 * 32 * 8 * 4096 * 4096, 4194305, "4194304"],
    ),
    "lora.2": (
        merged,
        [
            lambda W, A, B, alpha, rank: W + B @ A,
            lambda W, A, B, alpha, rank: W + alpha / rank * A.T @ B.T,
            lambda W, A, B, alpha, rank: W + alpha / rank * A @ B,
            lambda W, A, B, alpha, rank: W + rank / alpha * B @ A,
            lambda W, A, B, alpha, rank: W + alpha / rank**0.5 * B @ A,
            lambda W, A, B, alpha, rank: W + alpha * B @ A,
            lambda W, A, B, alpha, rank: alpha / rank * B @ A,
            lambda W, A, B, alpha, rank: W - alpha / rank * B @ A,
            lambda W, A, B: W + B @ A,
            in_place,
            merged(torch.ones(2, 2), torch.ones(1, 2), torch.ones(2, 1), 1.0, 1),
        ],
    ),
    "lora.3": (
        LowRank,
        [
            BothRandom,
            BothZero,
            Swapped,
            Unscaled,
            BaseTrains,
            BiasTrains,
            PlainTensors,
            DropsAll,
            AlwaysDrops,
            NeverDrops,
            Biased,
            WithoutBase,
            Detached,
            NoDropoutKnob,
            LowRank(nn.Linear(2, 2), 1, 1.0, 0.0),
            nn.Linear,
        ],
    ),
}

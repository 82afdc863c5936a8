"""Answers to the exercises of lesson 43."""

from __future__ import annotations

import math

import torch
from torch import nn


def attend(q, K, V, P_K, P_V, offset=None, scale=True):
    keys, values = torch.cat([P_K, K]), torch.cat([P_V, V])
    seen = torch.ones(len(q), len(keys)).tril(len(P_K) if offset is None else offset).bool()
    scores = q @ keys.T / (math.sqrt(q.size(-1)) if scale else 1)
    return scores.masked_fill(~seen, -math.inf).softmax(-1) @ values


def own(q, K, V):
    return attend(q, K, V, K[:0], V[:0])


def added(q, K, V, P_K, P_V):
    return own(q, K, V) + (q @ P_K.T / math.sqrt(q.size(-1))).softmax(-1) @ P_V


def after(q, K, V, P_K, P_V):
    """The prefix behind the text, where the triangle hides it."""
    keys, values = torch.cat([K, P_K]), torch.cat([V, P_V])
    seen = torch.ones(len(q), len(keys)).tril().bool()
    return (q @ keys.T / math.sqrt(q.size(-1))).masked_fill(~seen, -math.inf).softmax(-1) @ values


class Prefixed(nn.Module):
    def __init__(self, kv, length):
        super().__init__()
        self.kv = kv.requires_grad_(False)
        shape = kv.heads, length, kv.key.out_features // kv.heads
        self.P_K, self.P_V = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(shape))

    def forward(self, x):
        k, v = self.kv(x)
        return tuple(self.join(p.expand(len(x), -1, -1, -1), t) for p, t in ((self.P_K, k), (self.P_V, v)))

    def join(self, p, t):
        return torch.cat([p, t], 2)


class Behind(Prefixed):
    def join(self, p, t):
        return torch.cat([t, p], 2)


class KvTrains(Prefixed):
    def __init__(self, kv, length):
        super().__init__(kv, length)
        kv.requires_grad_(True)


class Constant(Prefixed):
    def join(self, p, t):
        return torch.cat([p.detach(), t], 2)


class Buffers(Prefixed):
    def __init__(self, kv, length):
        super().__init__(kv, length)
        p = self.P_K.data
        del self.P_K, self.P_V
        self.P_K, self.P_V = p, p.clone()


class Shared(Prefixed):
    """Keys and values the same."""

    def forward(self, x):
        k, v = self.kv(x)
        return tuple(self.join(self.P_K.expand(len(x), -1, -1, -1), t) for t in (k, v))


class PerRow(Prefixed):
    """A prefix of its own for each of three rows."""

    def __init__(self, kv, length):
        super().__init__(kv, length)
        self.P_K, self.P_V = (nn.Parameter(p.detach().repeat(3, 1, 1, 1)) for p in (self.P_K, self.P_V))


class FirstRow(Prefixed):
    def forward(self, x):
        k, v = self.kv(x)
        return torch.cat([self.P_K[None], k[:1]], 2), torch.cat([self.P_V[None], v[:1]], 2)


class KeysAlone(Prefixed):
    def forward(self, x):
        return super().forward(x)[0], self.kv(x)[1]


class Added(Prefixed):
    def join(self, p, t):
        return t + p.mean(2, keepdim=True)


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "prefix.1": (
        2 * 20 * 32 * 8 * 128,
        [2 * 20 * 32 * 4096, 20 * 32 * 8 * 128, 2 * 20 * 8 * 128, 20 * 8 * 128, 20 * 4096, 20 * 32 * 4096, "1310720"],
    ),
    "prefix.2": (
        attend,
        [
            lambda *given: attend(*given, offset=0),
            lambda *given: attend(*given, offset=10**6),
            lambda *given: attend(*given, offset=len(given[3]) - 1),
            lambda *given: attend(*given, scale=False),
            lambda q, K, V, P_K, P_V: own(q, K, V),
            added,
            after,
            lambda q, K, V, P_K, P_V: attend(q, K, V, P_V, P_K),
            lambda q, K, V, P_K, P_V: attend(q, K, V, P_K, P_V)[:-1],
            lambda q, K, V: own(q, K, V),
        ],
    ),
    "prefix.3": (
        Prefixed,
        [
            Behind,
            KvTrains,
            Constant,
            Buffers,
            Shared,
            PerRow,
            FirstRow,
            KeysAlone,
            Added,
            nn.Linear,
            Prefixed.forward,
        ],
    ),
}

"""Answers to the exercises of lesson 46."""

from __future__ import annotations

import torch


def folded(W_k, b_k, l_k, W_2, b_2, l_ff):
    return l_k[:, None] * W_k, l_k * b_k, W_2 * l_ff, b_2


def in_place(W_k, b_k, l_k, W_2, b_2, l_ff):
    W_k *= l_k[:, None]
    b_k *= l_k
    W_2 *= l_ff
    return W_k, b_k, W_2, b_2


def mixed(x, W, b, vectors, task):
    return (x @ W.T + b) * vectors[task][:, None]


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "ia3.1": (
        32 * (2 * 1024 + 14336),
        [
            32 * (2 * 4096 + 14336),
            2 * 1024 + 14336,
            32 * (1024 + 14336),
            32 * (2 * 1024 + 2 * 14336),
            32 * (2 * 1024 + 4096),
            32 * 3 * 4096,
            "524288",
        ],
    ),
    "ia3.2": (
        folded,
        [
            lambda W_k, b_k, l_k, W_2, b_2, l_ff: (l_k[:, None] * W_k, b_k, W_2 * l_ff, b_2),
            lambda W_k, b_k, l_k, W_2, b_2, l_ff: (W_k * l_k, l_k * b_k, W_2 * l_ff, b_2),
            lambda W_k, b_k, l_k, W_2, b_2, l_ff: (l_k[:, None] * W_k, l_k * b_k, l_ff[:, None] * W_2, b_2),
            lambda W_k, b_k, l_k, W_2, b_2, l_ff: (l_k[:, None] * W_k, l_k * b_k, W_2 * l_ff, 0 * b_2),
            lambda W_k, b_k, l_k, W_2, b_2, l_ff: (W_k + l_k[:, None], b_k + l_k, W_2 + l_ff, b_2),
            lambda W_k, b_k, l_k, W_2, b_2, l_ff: l_k[:, None] * W_k,
            lambda W_k, l_k, W_2, l_ff: (l_k[:, None] * W_k, W_2 * l_ff),
            in_place,
            torch.zeros(4),
        ],
    ),
    "ia3.3": (
        mixed,
        [
            lambda x, W, b, vectors, task: (x @ W.T + b) * vectors[task],
            lambda x, W, b, vectors, task: (x @ W.T + b) * vectors[task[0]],
            lambda x, W, b, vectors, task: x @ W.T * vectors[task][:, None] + b,
            lambda x, W, b, vectors, task: (x @ W.T + b) * vectors[:, None],
            lambda x, W, b, vectors, task: (x @ W.T + b) + vectors[task][:, None],
            lambda x, W, b, vectors, task: (x @ W + b) * vectors[task][:, None],
            lambda x, W, b, vectors: (x @ W.T + b) * vectors[0],
            mixed(torch.ones(1, 1, 1), torch.ones(1, 1), torch.ones(1), torch.ones(1, 1), torch.tensor([0])),
        ],
    ),
}

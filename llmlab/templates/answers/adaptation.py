"""Answers to the exercises of the lesson on Template."""

from __future__ import annotations

import torch


def merged(W, gamma):
    return gamma[:, None] * W


def columns(W, gamma):
    return W * gamma if W.size(0) == W.size(1) else gamma[:, None] * W


ANSWERS = {
    "template.1": (1024, [512, 128 * 512, 128]),
    "template.2": (1, [0, -1, 512]),
    "template.3": (merged, [columns, lambda W, gamma: W, lambda W, gamma: torch.diag(gamma)]),
}

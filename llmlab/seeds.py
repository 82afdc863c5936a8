"""Random numbers that depend on what they are for, not on when they are drawn."""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *purpose: object) -> int:
    """A seed for one purpose: equal arguments give equal seeds on every machine, others unrelated ones."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: object) -> torch.Generator:
    """A torch generator started from `derive(seed, *purpose)`."""
    return torch.Generator().manual_seed(derive(seed, *purpose))

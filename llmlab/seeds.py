"""Random numbers that depend on what they are for, not on when they are drawn."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Dropout and fresh weights draw from the process's one generator. Whoever draws holds this, so that a run made in
# a notebook's cell while another trains in a thread leaves its numbers alone.
drawing = threading.RLock()


def derive(seed: int, *purpose: object) -> int:
    """A seed for one purpose: equal arguments give equal seeds on every machine, others unrelated ones."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(seed: int, *purpose: object) -> Iterator[None]:
    """Draw from the process's generator, started from `derive(seed, *purpose)`, and put it back as it was."""
    with drawing, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *purpose))
        yield


def generator(seed: int, *purpose: object) -> torch.Generator:
    """A torch generator started from `derive(seed, *purpose)`."""
    return torch.Generator().manual_seed(derive(seed, *purpose))

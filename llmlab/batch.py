"""From rows to tensors: batches, padding, and an order of examples that any stop can be resumed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .losses import IGNORE
from .seeds import generator

T = TypeVar("T")
BUCKET = 16  # batches whose examples are sorted by length together


@dataclass
class Batch:
    """One step's tensors: `inputs` are the model's keyword arguments, `targets` what the loss compares with.

    Both hold tensors, numbers and text only, for a checkpoint keeps batches that were made and not yet used. `count`
    is of what the loss is the mean, where that is neither labels nor rows.
    """

    inputs: dict[str, Any]
    targets: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    def __getitem__(self, name: str) -> Any:
        if name not in self.targets:
            has = ", ".join(self.targets) or "none"
            raise ValueError(f"no {name!r} among the targets of this batch, which are {has}: its objective makes them")
        return self.targets[name]

    @property
    def weight(self) -> int:
        """What its mean loss stands for when batches are accumulated: its `count`, its labels, or else its rows."""
        if self.count:
            return self.count
        labels = self.targets.get("labels")
        if isinstance(labels, Tensor):
            return int((labels != IGNORE).sum())
        return max((t.size(0) for t in self.inputs.values() if isinstance(t, Tensor) and t.dim()), default=1)

    def to(self, device: torch.device | str) -> Batch:
        def move(d: dict[str, Any]) -> dict[str, Any]:
            return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in d.items()}

        return Batch(move(self.inputs), move(self.targets), self.count)


class Chunk(list[dict[str, Any]]):
    """A few examples on their way to `batches`, with the means to draw random numbers of their own.

    `training` says whether a step is to be taken on them, or something measured: what makes training harder asks.
    """

    def __init__(
        self, rows: Sequence[dict[str, Any]], ids: Sequence[int], epoch: int, seed: int, training: bool = False
    ) -> None:
        super().__init__(rows)
        self.ids, self.epoch, self.seed, self.training = list(ids), epoch, seed, training

    def generators(self, purpose: str = "") -> list[torch.Generator]:
        """One generator a row, keyed by (seed, pass over the data, example): the same in any batch or process."""
        return [generator(self.seed, purpose, self.epoch, i) for i in self.ids]


def pad(rows: Sequence[Sequence[int] | Tensor], value: int = 0, left: bool = False) -> Tensor:
    """Rows of unequal length to one (B, T) tensor of int64, filled with `value` on the right, or on the left."""
    T = max((len(row) for row in rows), default=0)
    out = torch.full((len(rows), T), value, dtype=torch.long)
    for line, row in zip(out, rows, strict=True):
        if len(row):
            line[slice(T - len(row), T) if left else slice(0, len(row))] = torch.as_tensor(row)
    return out


def stack_rows(one: Tensor, other: Tensor, fill: int) -> Tensor:
    """(B, T) above (P, U): (B + P, max(T, U)), filled on the right."""
    width = max(one.size(1), other.size(1))
    return torch.cat([F.pad(t.to(one.device), (0, width - t.size(1)), value=fill) for t in (one, other)])


def by_length(lengths: Sequence[int], size: int, answer: Callable[[list[int]], Sequence[T]]) -> list[T]:
    """What `answer` says of each of B rows, in their own order; asked for `size` of them, of like length, at a time."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    said = {i: found for part in parts for i, found in zip(part, answer(part), strict=True)}
    return [said[i] for i in range(len(lengths))]


class Order:
    """Which examples make which chunk, in each pass over the data: a fresh permutation keyed by (seed, pass).

    Where the rows have `lengths`, examples of like length come together, so that little of a batch is padding.
    """

    def __init__(self, rows: Sequence[Any], size: int, seed: int, whole: bool = False) -> None:
        self.count, self.size, self.seed = len(rows), min(size, len(rows)), seed
        self.whole = whole  # a smaller last chunk, rather than leaving its examples for another pass
        lengths = getattr(rows, "lengths", None)
        self.lengths = None if lengths is None else torch.as_tensor(lengths)

    def __len__(self) -> int:
        """Chunks in a pass."""
        return -(-self.count // self.size) if self.whole else self.count // self.size

    def epoch(self, epoch: int) -> list[list[int]]:
        """The chunks of one pass, as lists of example ids."""
        draw = generator(self.seed, "order", epoch)
        order = torch.randperm(self.count, generator=draw)
        if not self.whole:  # what waits for another pass is left out by chance, not for its length
            order = order[: len(self) * self.size]
        if self.lengths is not None:
            groups = order.split(BUCKET * self.size)
            order = torch.cat([g[self.lengths[g].argsort(stable=True)] for g in groups])
        chunks = [chunk.tolist() for chunk in order.split(self.size)]
        if self.lengths is not None:
            chunks = [chunks[i] for i in torch.randperm(len(chunks), generator=draw)]
        return chunks

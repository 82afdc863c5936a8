"""Keys and values of the tokens so far, kept so that each new token costs one token's work.

1. Space for the whole answer is taken at the first call, so that a step writes in place and copies nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Store:
    """One attention layer's keys and values, (B, H, S, D/H) each; `room` is how many may still come."""

    room: int
    length: int = 0
    keys: Tensor | None = None
    values: Tensor | None = None

    def append(self, k: Tensor, v: Tensor, new: int) -> tuple[Tensor, Tensor]:
        """Add entries and return all. The last `new` belong to the input; what stands before them enters once."""
        if self.keys is None or self.values is None:
            shape = (*k.shape[:2], k.size(2) + self.room, k.size(3))
            self.keys, self.values = k.new_empty(shape), v.new_empty(shape)
        elif k.size(2) != new:
            k, v = k[:, :, -new:], v[:, :, -new:]
        end = self.length + k.size(2)
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.read()

    def read(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


@dataclass
class BlockCache:
    """One block's stores: of the text itself, and of what cross-attention looks at."""

    attention: Store
    cross: Store


@dataclass
class Cache:
    """The stores of every block, and how many tokens of text they hold (a prefix does not count)."""

    room: int
    length: int = 0
    blocks: list[BlockCache] = field(default_factory=list)

    def block(self, i: int) -> BlockCache:
        if i == len(self.blocks):
            self.blocks.append(BlockCache(Store(self.room), Store(0)))
        return self.blocks[i]

"""Deals examples into train, validation and test so that no document is in two of them.

1. A document's place is decided by a hash of its name and the seed alone: adding rows moves none.
2. Shares hold in the long run; a small set can be off by a few documents.
3. Where a split would stay empty it is given the one document whose hash lies nearest to it. Only
   such tiny sets are dealt anew when they grow.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from llmlab.data.corpus import SPLITS, Example
from llmlab.data.errors import DataError

Key = Callable[[Example], str]


def position(document: str, seed: int) -> float:
    """Return where `document` falls in [0, 1): equal on every machine and in every process."""
    digest = hashlib.sha256(f"{seed}\0{document}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # 48 bits: exact in a double, so never rounded up to 1


def split_by(
    rows: Iterable[Example], key: str | Key, seed: int = 0, shares: Sequence[float] = (0.8, 0.1, 0.1)
) -> dict[str, list[Example]]:
    """Return the rows by split, in their order; rows with equal `key` are in one split.

    `key` is a column or a function of the row; `shares` are those of train, validation and test,
    and add up to 1. A split with share 0 is left out. Raises DataError where there are fewer
    documents than splits, and ValueError for impossible shares.
    """
    if len(shares) != len(SPLITS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares {tuple(shares)}: give three numbers of 0 or more that add up to 1")
    wanted = [(name, share) for name, share in zip(SPLITS, shares, strict=True) if share > 0]
    keyed = [(row[key] if isinstance(key, str) else key(row), row) for row in rows]
    places = {document: position(document, seed) for document, _ in keyed}
    dealt = _deal(places, wanted)
    splits: dict[str, list[Example]] = {name: [] for name, _ in wanted}
    for document, row in keyed:
        splits[dealt[document]].append(row)
    return splits


def _deal(places: dict[str, float], wanted: list[tuple[str, float]]) -> dict[str, str]:
    """Return the split of each document, from its place in [0, 1)."""
    names = [name for name, _ in wanted]
    if len(places) < len(names):
        raise DataError(
            f"{len(places)} different document{'s' * (len(places) != 1)} cannot fill {len(names)} splits "
            f"({', '.join(names)}): give {len(names)} or more"
        )
    ends = list(accumulate(share for _, share in wanted))
    dealt = {d: names[min(bisect_right(ends, p), len(names) - 1)] for d, p in places.items()}
    for at, name in enumerate(names):
        if name in dealt.values():
            continue
        count = {other: list(dealt.values()).count(other) for other in names}
        spare = [d for d in places if count[dealt[d]] > 1]
        middle = ends[at] - wanted[at][1] / 2
        dealt[min(spare, key=lambda d: (abs(places[d] - middle), d))] = name
    return dealt

"""The table of a model's parameters: which train, which are frozen, and who put them there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .model import Transformer
from .surgery import named_parameters


@dataclass(frozen=True)
class Row:
    """One parameter tensor."""

    name: str
    shape: tuple[int, ...]
    count: int
    trains: bool
    owner: str  # the technique that added it, "base" for the model's own


class Parameters(list[Row]):
    """Rows in the order of the model, with totals; prints as a summary by owner."""

    @property
    def total(self) -> int:
        return sum(row.count for row in self)

    @property
    def trainable(self) -> int:
        return sum(row.count for row in self if row.trains)

    @property
    def share(self) -> float:
        """Trainable share of all parameters, 0 to 1."""
        return self.trainable / max(1, self.total)

    def by_owner(self) -> Iterator[tuple[str, int, int]]:
        """(owner, its trainable parameters, all of its parameters)."""
        for owner in dict.fromkeys(row.owner for row in self):
            mine = [row for row in self if row.owner == owner]
            yield owner, sum(row.count for row in mine if row.trains), sum(row.count for row in mine)

    def __str__(self) -> str:
        lines = [f"{'':12s} {'trains':>12s} {'of':>12s}"]
        lines += [f"{owner:12s} {trains:12,} {count:12,}" for owner, trains, count in self.by_owner()]
        lines.append(f"{'together':12s} {self.trainable:12,} {self.total:12,}   {self.share:.2%}")
        return "\n".join(lines)

    __repr__ = __str__


def parameter_table(model: Transformer) -> Parameters:
    """List every parameter of `model` once (tied ones under their first name)."""
    owners = {name: owner for owner, a in model.adaptations.items() for name in a["parameters"]}
    return Parameters(
        Row(name, tuple(p.shape), p.numel(), p.requires_grad, owners.get(name, "base"))
        for name, p in named_parameters(model)
    )

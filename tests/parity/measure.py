"""Double precision on both sides of a comparison, and how far the two are apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Both sides compute in double precision, 53 bits or 1.1e-16, and order their sums differently: what is measured is
# 1e-15 to 1e-13. A wrong constant, sign, mask or place is off by 1e-6 at least, so between the two there is room.
BOUND = 1e-11
GREATEST: dict[tuple[str, str], float] = {}  # (family, what is compared) -> greatest error seen; `--errors` prints it


class _Double(TorchFunctionMode):
    """Whatever asks for float32 gets float64: peers round norms, angles and logits in between, and so do we."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        return (torch.Tensor.double if function is torch.Tensor.float else function)(*args, **kwargs)


@contextmanager
def double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Double():
            yield
    finally:
        torch.set_default_dtype(before)


def note(family: str, what: str, error: float) -> None:
    GREATEST[family, what] = max(error, GREATEST.get((family, what), 0.0))


def compare(family: str, what: str, found: Tensor, wanted: Tensor, scale: float = 0.0, bound: float = BOUND) -> None:
    """Fail unless the greatest difference is within `bound` of the greatest number (or of `scale`, if that is more)."""
    assert found.shape == wanted.shape, f"{what}: {tuple(found.shape)} beside {tuple(wanted.shape)}"
    assert found.dtype == wanted.dtype == torch.float64
    size = max(float(wanted.detach().abs().max()), scale)
    error = float((found - wanted).detach().abs().max()) / size
    note(family, what.split(":")[0], error)
    assert error < bound, f"{family}, {what}: {error:.1e} apart"

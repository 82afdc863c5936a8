"""Which numbers a step computes with: float32, or bfloat16 where the machine multiplies those faster.

1. Weights and their gradients stay float32. A bfloat16 step runs on copies of the weights made for it; the
   gradient comes back through the copying.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

_frozen = WeakIdKeyDictionary()  # parameter -> the state it was copied in, its copy


@contextmanager
def computing(model: nn.Module, precision: str) -> Iterator[None]:
    """Let `model` compute in "fp32", "bf16", or "auto", which is what `faster_in_bf16` finds.

    with computing(model, "bf16"):
        loss = model.loss(model(tokens), labels)
    loss.backward()     # float32 gradients of float32 weights
    """
    device = next(model.parameters()).device.type
    if precision == "fp32" or (precision == "auto" and not faster_in_bf16(device)):
        yield
        return
    homes = [m._parameters for m in model.modules()]
    places = [(home, n, p) for home in homes for n, p in home.items() if p is not None and p.dtype == torch.float32]
    copies = {p: _in_bf16(p) for p in {p for _, _, p in places}}  # a tied weight is copied once
    for home, name, parameter in places:
        home[name] = copies[parameter]  # type: ignore[assignment]
    try:
        yield
    finally:
        for home, name, parameter in places:
            home[name] = parameter


def _in_bf16(parameter: nn.Parameter) -> Tensor:
    """A bfloat16 copy; that of a frozen parameter is kept, for it does not change."""
    if parameter.requires_grad:
        return parameter.to(torch.bfloat16)
    state = (parameter.data_ptr(), parameter._version)
    if parameter not in _frozen or _frozen[parameter][0] != state:
        _frozen[parameter] = state, parameter.detach().to(torch.bfloat16)
    copy: Tensor = _frozen[parameter][1]
    return copy


@lru_cache(maxsize=4)
def faster_in_bf16(device: str) -> bool:
    """Time one matrix product both ways, once a process: True where bfloat16 takes less than half the time."""

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(1024, 1024, dtype=dtype, device=device)
        best = float("inf")
        for _ in range(4):
            start = time.perf_counter()
            (a @ a).sum().item()
            best = min(best, time.perf_counter() - start)
        return best

    return seconds(torch.bfloat16) < 0.5 * seconds(torch.float32)

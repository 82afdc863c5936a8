"""Which numbers a step computes with: float32, or bfloat16 where the machine multiplies those faster."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass: "fp32", "bf16", or "auto" for what `faster_in_bf16` finds. Weights stay float32."""
    if precision == "bf16" or (precision == "auto" and faster_in_bf16(device.type)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


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

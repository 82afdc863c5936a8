"""Settings of the process that make training faster and change no result.

1. They hold for the whole process; LLMLAB_TUNE=0 leaves it alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import lru_cache
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def tune_process() -> bool:
    """Keep freed memory for the next step, and treat numbers below 1e-38 as zero: that is each thread's own setting.

    glibc gives each large tensor back to the system and asks for fresh pages again, which costs a tenth
    of a training step. Returns whether anything was set.
    """
    if os.environ.get("LLMLAB_TUNE") == "0":
        return False
    torch.set_flush_denormal(True)
    _keep_memory()
    return True


@lru_cache(maxsize=1)
def _keep_memory() -> None:
    if platform.libc_ver()[0] != "glibc":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_TOP_PAD, 64 << 20)
    except (OSError, AttributeError):
        pass  # a system without it trains a little slower


def hand_over_cores() -> None:
    """Let go of the OpenMP threads of the calling thread, because another one is about to train.

    Otherwise there are more of them than cores, and GNU OpenMP then puts each to sleep between two operations:
    measured on two cores, small models train at two thirds of their speed. They come back when they are needed.
    """
    try:
        (library,) = (Path(torch.__file__).parent / "lib").glob("libgomp*.so*")
        ctypes.CDLL(str(library)).omp_pause_resource_all(1)
    except (OSError, AttributeError, ValueError):
        pass  # another OpenMP, or none

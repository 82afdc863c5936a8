"""What the first Run of a panel would wait for, loaded in the background while the panel is being looked at."""

from __future__ import annotations

import threading
from functools import cache


@cache
def warm() -> None:
    """Begin, once in a process."""
    threading.Thread(target=_load, daemon=True, name="llmlab-warm-up").start()


def _load() -> None:
    """torch's optimisers take a second to import, the first picture half."""
    from torch import nn, zeros

    from ..training import Training, make_optimizer
    from . import chart

    weight = nn.Parameter(zeros(2, 2))
    weight.grad = zeros(2, 2)
    make_optimizer([("weight", weight)], Training()).step()
    chart.png(chart.Curve([1, 2], [1.0, 0.5], [0, 2], [1.0, 0.5], 0.1, 2))

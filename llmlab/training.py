"""How a run trains: steps, batch size, learning rate and its schedule, and the optimiser they make."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from .technique import checked, knob, needs_of

Schedule = Callable[[float, float], float]


def _cosine(p: float, warmup: float) -> float:
    return 0.1 + 0.45 * (1 + math.cos(math.pi * p))


SCHEDULES: dict[str, Schedule] = {
    "cosine": _cosine,  # to a tenth (Loshchilov & Hutter 2016)
    "linear": lambda p, warmup: 1 - p,
    "constant": lambda p, warmup: 1.0,
    "inverse-sqrt": lambda p, warmup: math.sqrt(max(warmup, 1e-3) / (max(warmup, 1e-3) + p)),  # after 2017, eq. 3
}


@checked
class Training:
    """The settings of a run that belong to no technique."""

    steps: int = knob(200, "Optimiser steps.", low=1, high=10_000_000)
    batch_size: int = knob(16, "Examples per batch.", low=1, high=65_536)
    learning_rate: float | None = knob(
        None, "Peak learning rate; None takes what the techniques recommend.", low=1e-7, high=10.0, log=True
    )
    schedule: str = knob("cosine", "How the learning rate falls after the warm-up.", choices=tuple(SCHEDULES))
    warmup: float = knob(
        0.1, "Share of the steps, ten at least, in which the learning rate climbs; 0 for none.", low=0.0, high=0.9
    )
    weight_decay: float = knob(0.01, "AdamW's pull of matrices towards zero.", low=0.0, high=1.0)
    clip: float = knob(1.0, "Longest gradient, as an L2 norm over all parameters; 0 for no limit.", low=0.0)
    accumulate: int = knob(1, "Batches whose gradients are added up before one step.", low=1, high=65_536)
    precision: str = knob("fp32", "Numbers the model computes with.", choices=("fp32", "bf16", "auto"))
    evaluate_every: int = knob(0, "Steps between evaluations; 0 for a tenth of the run, ten at least.", low=0)
    evaluate_batches: int = knob(8, "Batches an evaluation during training looks at; 0 for all.", low=0)
    patience: int = knob(0, "Evaluations without a better validation loss before stopping; 0 for never.", low=0)
    keep_best: bool = knob(False, "End with the weights of the best validation loss.")
    save_every: int = knob(0, "Steps between checkpoints of a run that has a folder; 0 for the end only.", low=0)

    def rate(self, step: int, steps: int, peak: float) -> float:
        """Learning rate of 0-based `step` of `steps`: a linear climb, then the schedule."""
        climb = self.climb(steps)
        if step < climb:
            return peak * (step + 1) / (climb + 1)
        p = (step - climb) / max(1, steps - climb)  # 0 to 1 over what is left
        return peak * SCHEDULES[self.schedule](min(p, 1.0), self.warmup / max(1e-9, 1 - self.warmup))

    def climb(self, steps: int) -> int:
        """Steps of warm-up: measured, a small model's loss leaps up in its first ten at full speed."""
        return max(round(self.warmup * steps), min(10, steps // 4)) if self.warmup else 0

    @property
    def evaluation_interval(self) -> int:
        return self.evaluate_every or max(10, self.steps // 10)


def recommended_rate(techniques: Iterable[Any]) -> float:
    """The learning rate for a list of techniques: the smallest an adaptation asks for, else the objective's."""
    asked: dict[str, list[float]] = {}
    for needs in map(needs_of, techniques):
        if needs.learning_rate is not None:
            asked.setdefault(needs.kind, []).append(needs.learning_rate)
    for kind in ("adaptation", "objective", "extra"):
        if kind in asked:
            return min(asked[kind])
    return 1e-3


def make_optimizer(parameters: Sequence[tuple[str, nn.Parameter]], training: Training) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2017), fused, decaying matrices and tables but not biases and norms."""
    decayed = [p for _, p in parameters if p.dim() > 1]
    others = [p for _, p in parameters if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=(0.9, 0.95), fused=True)

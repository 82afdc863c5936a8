"""Lookahead: slow weights that follow the fast ones every k steps, and are gone back to (Zhang et al. 2019).

φ ← φ + α (θ - φ)    then    θ ← φ        every k steps; φ begins as θ does
"""

from __future__ import annotations

from typing import Any

import torch

from llmlab.surgery import named_parameters, snapshot
from llmlab.technique import hookimpl, knob, technique


@technique(kind="extra")
class Lookahead:
    """Every few steps, go back part of the way to where the last few began."""

    alpha: float = knob(0.5, "α: the share of the way that is kept.", low=0.0, high=1.0)
    every: int = knob(5, "k: steps between two of these.", low=1, high=1000)

    @hookimpl
    def before_fit(self, run: Any) -> None:
        run.state[self]["slow"] = snapshot(run.model)

    @hookimpl
    @torch.no_grad()
    def after_step(self, run: Any, step: int) -> None:
        if step % self.every:
            return
        slow = run.state[self]["slow"]
        for name, parameter in named_parameters(run.model):
            if name in slow:
                slow[name] = torch.lerp(slow[name].to(parameter), parameter, self.alpha)
                parameter.copy_(slow[name])

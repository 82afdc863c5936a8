"""Template: after each step, pull what trains back towards where it began (Li et al. 2018, L2-SP).

    θ ← θ - λ (θ - θ⁰)        θ⁰ as it was before the first step

1. The paper adds the pull to the loss; here it acts after the step, as AdamW's weight decay does.
"""

from __future__ import annotations

from typing import Any

import torch

from llmlab.surgery import named_parameters, snapshot
from llmlab.technique import hookimpl, knob, technique


@technique(kind="extra")
class Template:
    """Pull what trains back towards the model that training began with."""

    strength: float = knob(1e-3, "λ: the share of the way back that each step goes.", low=0.0, high=1.0)

    @hookimpl
    def before_fit(self, run: Any) -> None:
        """Once in the run's life. What must survive a stop belongs in `run.state[self]`."""
        run.state[self]["start"] = snapshot(run.model)

    @hookimpl
    @torch.no_grad()
    def after_step(self, run: Any) -> None:
        start = run.state[self]["start"]
        for name, parameter in named_parameters(run.model):
            if name in start:
                parameter.lerp_(start[name].to(parameter), self.strength)

"""Template: scale and shift what layers give out (Lian et al. 2022, SSF).

    y = γ ⊙ (W x + b) + β        γ, β (d_out,) train, W and b do not

γ starts at one and β at zero, so training starts from the base model exactly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from llmlab.surgery import Wrapper, linear_layer, replace_modules
from llmlab.technique import hookimpl, knob, technique


class TemplateLinear(Wrapper):
    """A linear layer, (…, d_in) -> (…, d_out), whose output is scaled by γ and shifted by β."""

    order = 1  # it changes the output, so it sits outside of what changes the weight

    def __init__(self, linear: Any) -> None:
        super().__init__(linear)
        self.template_gamma = nn.Parameter(torch.ones(linear.out_features))
        self.template_beta = nn.Parameter(torch.zeros(linear.out_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * self.template_gamma + self.template_beta

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The same function as one layer: W' = diag(γ) W, b' = γ ⊙ b + β."""
        old = self.linear()
        shift = 0 if old.bias is None else old.bias * self.template_gamma
        return linear_layer(old.weight * self.template_gamma[:, None], self.template_beta + shift)


@technique(kind="adaptation", learning_rate=1e-2, base=True)
class Template:
    """Train a scale and a shift of what chosen layers give out; freeze everything else."""

    targets: str = knob("kv.value, out, up, down", "Linear layers to adapt, by the end of their path.")

    @hookimpl
    def adapt_model(self, model: nn.Module) -> None:
        """Called once, on a model of the run's own."""
        replace_modules(model, self.targets.replace(",", " ").split(), TemplateLinear)

    @hookimpl
    def trains(self, name: str) -> bool:
        """One vote a parameter: what is not this technique's own is to stay."""
        return name.endswith((".template_gamma", ".template_beta"))

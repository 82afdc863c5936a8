"""LoRA: leave the weights alone and train a low-rank update beside them (Hu et al. 2021).

    h = W x + (α / r) B A x        A (r, d_in), B (d_out, r), r much smaller than d

B starts at zero, so training starts from the base model exactly; r (d_in + d_out) numbers train per matrix.
With rsLoRA the scale is α / √r (Kalajdzievski 2023), so that high ranks do not learn ever more slowly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmlab.surgery import Wrapper, linear_layer, replace_modules
from llmlab.technique import hookimpl, knob, technique


class LoRALinear(Wrapper):
    """A linear layer, (…, d_in) -> (…, d_out), with a trained update of rank r."""

    order = 0  # it changes the weight, so it sits directly on the layer

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__(linear)
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        self.lora_a = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as in the paper's code; the paper says Gaussian

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(self.dropout(x), self.lora_a)  # A x: (…, r)
        return self.base(x) + F.linear(low, self.scale * self.lora_b)

    def delta(self) -> Tensor:
        """What is added to W: (d_out, d_in)."""
        return self.scale * self.lora_b @ self.lora_a

    @torch.no_grad()
    def merged(self) -> nn.Module:
        old = self.linear()
        # the sum is a tensor of its own: a weight tied to another is untied here
        return linear_layer(old.weight + self.delta(), None if old.bias is None else old.bias.clone())


@technique(kind="adaptation", learning_rate=5e-3, base=True)
class LoRA:
    """Train a low-rank update of chosen weight matrices; freeze everything else."""

    rank: int = knob(8, "Rank r of the update.", low=1, high=256, log=True)
    alpha: float = knob(
        16.0, "Scale α; the update is multiplied by α / r, with rslora by α / √r.", low=0.01, high=1024.0, log=True
    )
    targets: str = knob("query, kv.value", "Linear layers to adapt, by the end of their path.")
    dropout: float = knob(0.0, "Dropout on the update's input.", low=0.0, high=0.9)
    rslora: bool = knob(False, "Scale by α / √r instead of α / r.")

    @hookimpl
    def adapt_model(self, model: nn.Module) -> None:
        scale = self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

        def wrap(layer: nn.Module) -> Wrapper:
            if not isinstance(layer, nn.Linear):
                inside = [n for n, child in layer.named_children() if isinstance(child, nn.Linear)]
                hint = f", name what is in it: {', '.join(inside)}" if inside else ""
                raise ValueError(f"{type(layer).__name__} is no linear layer{hint}")
            return LoRALinear(layer, self.rank, scale, self.dropout)

        targets = [t.strip() for t in self.targets.split(",") if t.strip()]
        try:
            if not targets:
                raise ValueError("name at least one layer, such as query")
            replace_modules(model, targets, wrap)
        except ValueError as error:
            raise ValueError(f"LoRA.targets = {self.targets!r}: {error}") from None

    @hookimpl
    def trains(self, name: str) -> bool:
        return ".lora_" in name

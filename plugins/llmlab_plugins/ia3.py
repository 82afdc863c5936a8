"""(IA)³: train three vectors a layer, which turn keys, values and the MLP's hidden units up or down (Liu et al. 2022).

    softmax(Q (l_k ⊙ K)ᵀ / √(D/H)) (l_v ⊙ V)    and in the MLP    W₂ (l_ff ⊙ act(W₁ x))        l = 1 at the start

So training starts from the base model exactly. In a decoder of L layers L (2 d_kv + d_ff) numbers train, and 2 d_kv
more for each cross-attention; d_kv is the width of all key heads, with grouped queries less than the model's. In a
gated MLP the hidden units are the product of gate and value. `merge` multiplies rows of W_k and W_v with their biases
and columns of W₂: the model is then as fast as the base.

1. Keys are scaled before they are turned by their position, as in peft, or no weight could hold l_k.
2. A vector scales all that its layer gives, LoRA's update with it; but not a prefix's keys and values, which no layer
   of the model makes. For the same reason it cannot be merged without a LoRA on one of its layers: merge both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from llmlab.surgery import Wrapper, linear_layer, replace_modules
from llmlab.technique import hookimpl, knob, technique


class ScaledLinear(Wrapper):
    """A linear layer, (…, d_in) -> (…, d_out), whose output, or whose input, is multiplied by a trained vector."""

    order = 0  # a change of the weight; outside of LoRA's by its name

    def __init__(self, linear: Any, side: str) -> None:
        super().__init__(linear)
        self.side = side
        self.ia3_l = nn.Parameter(
            linear.weight.new_ones(linear.in_features if side == "input" else linear.out_features)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.side == "input":
            x = x * self.ia3_l
        y: Tensor = self.base(x)
        return y * self.ia3_l if self.side == "output" else y

    @torch.no_grad()
    def merged(self) -> nn.Module:
        old, outputs = self.linear(), self.side == "output"
        weight = old.weight * (self.ia3_l[:, None] if outputs else self.ia3_l)
        bias = None if old.bias is None else old.bias * (self.ia3_l if outputs else 1)
        return linear_layer(weight, bias)


@technique(kind="adaptation", learning_rate=1e-1, base=True)
class IA3:
    """Train gains of keys, values and the MLP's hidden units; freeze everything else."""

    keys: bool = knob(True, "Scale the keys of every attention, by l_k.")
    values: bool = knob(True, "Scale the values of every attention, by l_v.")
    mlp: bool = knob(True, "Scale the hidden units of every MLP, by l_ff.")

    def __post_init__(self) -> None:
        if not (self.keys or self.values or self.mlp):
            raise ValueError("IA3.keys, values and mlp are all False, so nothing would train: turn one on")

    @hookimpl
    def adapt_model(self, model: nn.Module) -> None:
        def scale(target: str, side: str) -> None:
            replace_modules(model, [target], lambda layer: ScaledLinear(layer, side))

        if self.keys:
            scale("kv.key", "output")
        if self.values:
            scale("kv.value", "output")
        if self.mlp:
            scale("mlp.down", "input")  # what W₂ reads are the hidden units

    @hookimpl
    def trains(self, name: str) -> bool:
        return name.endswith(".ia3_l")

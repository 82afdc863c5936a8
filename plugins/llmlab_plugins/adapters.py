"""Adapters: small trained layers between the frozen ones of every block (Houlsby et al. 2019).

    h ← h + W_up σ(W_down h + b_down) + b_up        W_down (m, d), W_up (d, m), m much smaller than d

`h` is what a projection gives, before it is added to the residual stream. The skip is inside, and the weights start
near zero, so training starts near the base model. An adapter has 2md + d + m numbers; the norms train with it, as in
the paper, 2d each (an RMSNorm has d). Unlike LoRA's, its change is no change of a weight: σ stands between.

1. The paper's code applies dropout before the adapter, here it comes after: the order matters while training alone.
2. "pfeiffer" is the place of Pfeiffer et al. 2020, after the feed-forward alone. Theirs also reads another input:
   the sum of h and the residual stream after the norm, which a block with its norms in front does not have.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor, nn

from llmlab.surgery import Wrapper, replace_modules
from llmlab.technique import hookimpl, knob, technique

PLACES = {
    "houlsby": ("attention.out", "cross.out", "mlp.down"),  # cross-attention has one too, where there is any
    "pfeiffer": ("mlp.down",),
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": lambda: nn.GELU(approximate="tanh"),  # as in the paper's code
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
NORM = re.compile(r"(^|\.)norm(_\w+)?\.(weight|bias)$")  # of blocks, stacks and embeddings


class Adapter(Wrapper):
    """A linear layer, (…, d_in) -> (…, d), whose output passes a bottleneck of width m with a skip around it."""

    def __init__(self, linear: nn.Linear, size: int, activation: str, init_std: float) -> None:
        super().__init__(linear)
        d, weight = linear.out_features, linear.weight
        self.adapter_down, self.adapter_up = nn.Linear(d, size).to(weight), nn.Linear(size, d).to(weight)
        self.act = ACTIVATIONS[activation]()
        for layer in (self.adapter_down, self.adapter_up):
            nn.init.trunc_normal_(layer.weight, std=init_std, a=-2 * init_std, b=2 * init_std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.base(x)  # (…, d)
        return h + self.adapter_up(self.act(self.adapter_down(h)))


@technique(kind="adaptation", learning_rate=1e-2, base=True)
class Adapters:
    """Train small bottleneck layers after each block's projections, and the norms; freeze everything else."""

    size: int = knob(16, "Width m of the bottleneck.", low=1, high=1024, log=True)
    placement: str = knob("houlsby", "After attention and feed-forward, or after feed-forward.", choices=tuple(PLACES))
    activation: str = knob("gelu", "The bend between the two maps.", choices=tuple(ACTIVATIONS))
    init_std: float = knob(0.01, "Spread of the first weights; 0.01 in the paper.", low=1e-7, high=1.0, log=True)
    train_norms: bool = knob(True, "Train the gains and biases of the norms, too, as the paper does.")

    @hookimpl
    def adapt_model(self, model: nn.Module) -> None:
        def wrap(layer: nn.Module) -> Wrapper:
            assert isinstance(layer, nn.Linear)
            return Adapter(layer, self.size, self.activation, self.init_std)

        replace_modules(model, lambda path, layer: path.endswith(PLACES[self.placement]), wrap)

    @hookimpl
    def trains(self, name: str) -> bool:
        return ".adapter_" in name or (self.train_norms and NORM.search(name) is not None)

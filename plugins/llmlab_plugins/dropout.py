"""Dropout: while training, zero a random share of what each layer adds to the residual stream (Srivastava et al. 2014).

    y_i ← 0 with probability p, else y_i / (1 - p)

1. On the outputs of embeddings, attention and MLP; the attention weights keep the dropout that the model was made with.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from llmlab.surgery import Wrapper, replace_modules
from llmlab.technique import hookimpl, knob, technique


class MoreDropout(Wrapper):
    """Dropout after the model's own, (…, D) -> (…, D)."""

    temporary = True  # part of the training, not of the model

    def __init__(self, layer: nn.Module, share: float) -> None:
        super().__init__(layer)
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.base(x), self.share, self.training)


@technique(kind="extra")
class Dropout:
    """Zero a random share of what each layer adds, while training."""

    share: float = knob(0.1, "Share p that is zeroed.", low=0.0, high=0.9)

    @hookimpl
    def adapt_model(self, model: nn.Module) -> None:
        replace_modules(model, ["dropout"], lambda layer: MoreDropout(layer, self.share))

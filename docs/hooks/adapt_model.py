"""One trained number on what each feed-forward layer gives out."""

import torch
from torch import nn

from llmlab import Run, corpus, load
from llmlab.surgery import Wrapper, replace_modules
from llmlab.technique import hookimpl, technique


class Scaled(Wrapper):
    """A layer, kept as `base`, and a number: (B, T, D) -> (B, T, D)."""

    def __init__(self, layer):
        super().__init__(layer)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.base(x) * self.scale


@technique(kind="adaptation")
class Scales:
    """Multiply what each feed-forward layer gives out by a trained number; freeze everything else."""

    @hookimpl
    def adapt_model(self, model):
        replace_modules(model, ["mlp"], Scaled)

    @hookimpl
    def trains(self, name):
        return name.endswith(".scale")


base = load("tiny-gpt")
run = Run(["sft", Scales()], corpus("facts"), model=base)
print(run.parameters().trainable, "numbers train, one a layer:", base.config.layers, "layers")
print("the model given has", sum(isinstance(m, Scaled) for m in base.modules()), "of them")

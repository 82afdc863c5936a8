"""Techniques with one mistake each, for every rule of the conformance suite; `Sound` has none.

    y = s x        a trained number s for each of a layer's outputs

After a suggestion by nobody in particular (Anonymous 2024).
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn

from llmlab.batch import Batch
from llmlab.generate import as_prompt
from llmlab.rollout import lined_up
from llmlab.surgery import Wrapper, linear_layer, named_parameters, replace_modules
from llmlab.technique import hookimpl, knob, technique


class Gain(Wrapper):
    """A linear layer whose outputs are scaled."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.own = nn.Parameter(torch.ones(layer.out_features))
        self.shift = nn.Parameter(torch.zeros(layer.out_features))

    def forward(self, x):
        return self.base(x) * self.own + self.shift

    @torch.no_grad()
    def merged(self):
        old = self.linear()
        return linear_layer(
            old.weight * self.own[:, None], self.shift + (0 if old.bias is None else old.bias * self.own)
        )


class Scales:
    """What the adaptations below have in common."""

    wrapper = Gain

    @hookimpl
    def adapt_model(self, model):
        replace_modules(model, getattr(self, "targets", "kv.value, out, up, down").split(", "), self.wrapper)

    @hookimpl
    def trains(self, name):
        return name.endswith((".own", ".shift"))


@technique(kind="adaptation")
class Sound(Scales):
    """Scale and shift what layers give out."""

    targets: str = knob("kv.value, out, up, down", "Layers to scale.")
    start: float = knob(1.0, "A number that does nothing.", low=0.0, high=2.0)


# -- what is declared ----------------------------------------------------------------------------------------------


@technique(kind="adaptation")
class Mute(Scales):
    pass


@technique(kind="adaptation")
class Endless(Scales):
    """Scale without a bound."""

    size: float = knob(1.0, "A number of any size.")


@technique(kind="adaptation")
class Plain(Scales):
    """Scale, with a field that no panel can show."""

    size: float = 1.0


@technique(kind="adaptation")
class Unmarked(Scales):
    """Scale, and forget to mark a hook."""

    def after_step(self, run):
        run.stop()


@technique(kind="adaptation")
class Asks(Scales):
    """Scale, and ask a hook for what it does not have."""

    @hookimpl
    def after_step(self, run, weather):
        pass


@technique(kind="objective", columns="prompt response", families=["decoder"])
class Half:
    """Be an objective without a loss."""

    @hookimpl
    def batches(self, run, examples):
        yield Batch({})


# -- votes ---------------------------------------------------------------------------------------------------------


@technique(kind="adaptation")
class FreezesNothing(Scales):
    """Scale, and let the rest train."""

    @hookimpl
    def trains(self, name):
        return name.endswith((".own", ".shift")) or None


@technique(kind="adaptation")
class FreezesInSurgery(Scales):
    """Scale, and freeze by hand."""

    @hookimpl
    def adapt_model(self, model):
        model.requires_grad_(False)
        replace_modules(model, ["out"], self.wrapper)


@technique(kind="extra")
class VotesAgainst:
    """Freeze what is not its own, as an extra."""

    @hookimpl
    def trains(self, name):
        return False if "up" in name else None


# -- in a run ------------------------------------------------------------------------------------------------------


@technique(kind="adaptation")
class LearnsNothing(Scales):
    """Train what has no effect."""

    class wrapper(Gain):
        def forward(self, x):
            return self.base(x) + 0 * self.own


@technique(kind="objective", columns="prompt response", families=["decoder"])
class ByLot:
    """Learn pairs, some of them by lot."""

    @hookimpl
    def batches(self, run, examples):
        rows = [row for row in examples if random.random() < 0.5] or examples
        prompts = [as_prompt(run.model, row["prompt"]) for row in rows]
        inputs, labels = lined_up(run.model, prompts, [run.tokenizer.encode(row["response"]) for row in rows])
        yield Batch(inputs, {"labels": labels})

    @hookimpl
    def compute_loss(self, model, batch, output):
        return {"loss": model.loss(output, batch["labels"])}


@technique(kind="adaptation")
class WritesIntoTheBase(Scales):
    """Scale, and change a frozen weight."""

    @hookimpl
    def after_step(self, run):
        for name, parameter in named_parameters(run.model):
            if name.endswith("out.weight"):
                parameter.data = parameter.data * 1.001


@technique(kind="adaptation")
class CutsTheGradient(Scales):
    """Scale, and let no gradient through to lower layers."""

    class wrapper(Gain):
        def forward(self, x):
            return self.base(x).detach() * self.own + self.shift


@technique(kind="adaptation")
class ChangesTheBase(Scales):
    """Scale, and round the base's weights."""

    class wrapper(Gain):
        def __init__(self, layer):
            super().__init__(layer)
            layer.weight.data = layer.weight.data.round(decimals=2)


@technique(kind="adaptation")
class MergesWrongly(Scales):
    """Scale, and forget it in merging."""

    class wrapper(Gain):
        def merged(self):
            return self.base


@technique(kind="adaptation")
class PassesOverSlips(Scales):
    """Scale layers, and say nothing of those that are not there."""

    targets: str = knob("out, up", "Layers to scale.")

    @hookimpl
    def adapt_model(self, model):
        named = self.targets.split(", ")
        replace_modules(model, lambda path, layer: path.split(".")[-1] in named, self.wrapper)


@technique(kind="adaptation")
class BeginsAgain(Scales):
    """Scale, and begin anew in each run."""

    @hookimpl
    def before_fit(self, run):
        for name, parameter in named_parameters(run.model):
            if name.endswith(".own"):
                parameter.data = torch.ones_like(parameter)


@technique(kind="adaptation")
class GoesOutside(Scales):
    """Wrap past `replace_modules`, outside of whoever came before."""

    @hookimpl
    def adapt_model(self, model):
        for block in [m for m in model.modules() if hasattr(m, "mlp")]:
            block.mlp = Outside(block.mlp)


class Outside(Wrapper):
    """A layer whose outputs are scaled and shifted."""

    def __init__(self, base):
        super().__init__(base)
        self.own = nn.Parameter(torch.zeros(32))

    def forward(self, *given, **named):
        return self.base(*given, **named) * (1 + self.own) + self.own


@technique(kind="adaptation")
class Forgets(Scales):
    """Scale by a number that no file keeps."""

    class wrapper(Gain):
        steps = 0

        def forward(self, x):
            return super().forward(x) * (1 + 0.1 * self.steps)

    @hookimpl
    def after_step(self, run):
        for module in run.model.modules():
            if isinstance(module, self.wrapper):
                module.steps += 1


@technique(kind="adaptation")
class NeedsTheWholeText(Scales):
    """Scale by what came before."""

    class wrapper(Gain):
        def forward(self, x):
            y = self.base(x)
            return y + y.cumsum(1) * (self.own - 0.9)


@technique(kind="objective", columns="prompt response", families=["decoder"])
class NeverCuts(ByLot):
    """Learn pairs of any length."""

    @hookimpl
    def batches(self, run, examples):
        prompts = [as_prompt(run.model, row["prompt"]) for row in examples]
        inputs, labels = lined_up(run.model, prompts, [run.tokenizer.encode(row["response"]) for row in examples])
        yield Batch(inputs, {"labels": labels})


@technique(kind="adaptation")
class OverflowsInBf16(Scales):
    """Scale, but not in bfloat16."""

    class wrapper(Gain):
        def forward(self, x):
            y = super().forward(x)
            return y * float("nan") if y.dtype == torch.bfloat16 else y

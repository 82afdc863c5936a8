"""What is claimed of adaptations that leave every matrix alone: a prefix, biases, gains."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from llmlab import Run, merge
from llmlab.technique import hookimpl
from llmlab_plugins.bitfit import BitFit
from llmlab_plugins.ia3 import IA3, ScaledLinear
from llmlab_plugins.prefix import Prefix, PrefixKeyValue
from llmlab_plugins.sft import SFT

from . import Numbers, at_least, at_most, claim, mutant, shared
from .adapting import closed, everything_on_dates, everything_on_moods, on_dates, on_moods
from .common import reviews, train


@mutant("the values of the virtual tokens are lost: they draw attention and give nothing")
def empty(patch: pytest.MonkeyPatch) -> None:
    inner = PrefixKeyValue.forward

    def forward(self, x):
        (k, v), text = inner(self, x), x.size(1)
        return k, v * k.new_tensor([0.0] * (k.size(2) - text) + [1.0] * text)[:, None]

    patch.setattr(PrefixKeyValue, "forward", forward)


@claim(
    "prefix",
    "43_prefix",
    "Ten virtual tokens, {kept:,.0f} numbers once merged, win {closed:.0%} of what training everything wins on a task "
    "near to what the base knows.",
    empty,
    closed=at_least(0.85),
    kept=at_most(10_240),
)
def ten_tokens(seed: int) -> Numbers:
    run = on_moods(seed, 1e-3, Prefix(length=10))
    kept = sum(row.count for row in Run(["sft"], model=merge(run.model)).parameters() if row.owner != "base")
    return {"closed": closed(run, seed), "kept": kept}


@shared
def bitfit_on_moods(seed: int) -> Run:
    return on_moods(seed, 7e-3, BitFit())


@mutant("biases are told by their shape, so that the gains of the norms train, too")
def gains(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BitFit, "trains", hookimpl(lambda self, name, parameter: parameter.dim() == 1))


@claim(
    "bitfit",
    "44_bitfit",
    "The biases, {share:.2%} of the parameters, win {closed:.0%} of what training everything wins near to what the "
    "base knows, and end {behind:.0f} nats behind it far away.",
    gains,
    share=at_most(0.0055),
    closed=at_least(0.9),
    behind=at_least(2.0),
)
def near_and_far(seed: int) -> Numbers:
    run = bitfit_on_moods(seed)
    behind = on_dates(seed, 6e-2, BitFit()) - everything_on_dates(seed)
    return {"share": run.parameters().share, "closed": closed(run, seed), "behind": behind}


@mutant("the vote is lost, and everything trains")
def unfrozen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BitFit, "trains", hookimpl(lambda self, name: True))


@cache
def everything_on_few(seed: int) -> list[float]:
    return on_few(seed, 3e-4)


def on_few(seed: int, rate: float, *added: Any) -> list[float]:
    """The held-out losses of sixty steps on sixteen reviews, each fifteen steps."""
    moods = reviews("Mood:")
    few = {"train": moods["train"][16 * seed :][:16], "validation": moods["validation"]}
    run = train([SFT(answers=0), *added], few, 60, rate, seed, evaluate_every=15, evaluate_batches=6)
    return [found["loss"] for found in run.evaluations]


@claim(
    "bitfit",
    "44_bitfit",
    "After sixty steps on sixteen reviews BitFit ends {few:.2f} nats ahead of training everything, after forty on "
    "1,600 {many:.2f} behind: the gap grows with the data, as in the paper. If each keeps its best step, it is "
    "{best:.2f} ahead at most.",
    unfrozen,
    few=at_least(0.05),
    many=at_least(0.02),
    best=at_most(0.05),
)
def more_data(seed: int) -> Numbers:
    few, everything = on_few(seed, 7e-3, BitFit()), everything_on_few(seed)
    many = bitfit_on_moods(seed).metrics["loss"] - everything_on_moods(seed)[1]
    return {"few": everything[-1] - few[-1], "many": many, "best": min(everything) - min(few)}


@mutant("the vectors start at zero, as LoRA's factor does, and turn their layers off")
def off(patch: pytest.MonkeyPatch) -> None:
    inner = ScaledLinear.__init__

    def init(self, *args):
        inner(self, *args)
        torch.nn.init.zeros_(self.ia3_l)

    patch.setattr(ScaledLinear, "__init__", init)


@claim(
    "ia3",
    "46_ia3",
    "{trains:,.0f} gains, {share:.1%} of the parameters at most, win {closed:.0%} of what training everything wins "
    "near to what the base knows.",
    off,
    closed=at_least(0.88),
    trains=at_most(3072),
    share=at_most(0.003),
)
def gained(seed: int) -> Numbers:
    run = on_moods(seed, 1e-1, IA3())
    table = run.parameters()
    return {"closed": closed(run, seed), "trains": table.trainable, "share": table.share}

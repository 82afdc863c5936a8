"""What is claimed of adaptations: how near they come to training everything, and in which order, far from the base."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from llmlab import Run
from llmlab.technique import hookimpl
from llmlab_plugins.adapters import NORM, Adapters
from llmlab_plugins.lora import LoRA, LoRALinear
from llmlab_plugins.sft import SFT

from . import Numbers, at_least, at_most, claim, mutant
from .common import dates, reviews, train

SIX = "query, kv.key, kv.value, out, up, down"


def on_dates(seed: int, rate: float, *added: Any) -> float:
    """The held-out loss after forty steps on French dates, which are far from what the base knows."""
    return train([SFT(answers=0), *added], dates(), 40, rate, seed, evaluate_batches=4).metrics["loss"]


def on_moods(seed: int, rate: float, *added: Any) -> Run:
    """Forty steps on the moods of reviews, which the base has read with another question."""
    return train([SFT(answers=0), *added], reviews("Mood:"), 40, rate, seed, evaluate_batches=4)


@cache
def everything_on_dates(seed: int) -> float:
    return on_dates(seed, 3e-3)


@cache
def adapters_on_dates(seed: int) -> float:
    return on_dates(seed, 1e-2, Adapters())


@cache
def lora_on_dates(seed: int) -> float:
    return on_dates(seed, 1e-2, LoRA())


@cache
def everything_on_moods(seed: int) -> tuple[float, float]:
    run = on_moods(seed, 3e-4)
    return run.evaluations[0]["loss"], run.metrics["loss"]


def closed(run: Run, seed: int) -> float:
    """The share of what training everything wins on the moods."""
    before, after = everything_on_moods(seed)
    return (before - run.metrics["loss"]) / (before - after)


@mutant("both factors start at zero, so that neither has a gradient")
def zeros(patch: pytest.MonkeyPatch) -> None:
    inner = LoRALinear.__init__

    def init(self, *args):
        inner(self, *args)
        torch.nn.init.zeros_(self.lora_a)

    patch.setattr(LoRALinear, "__init__", init)


@claim(
    "lora",
    "42_lora",
    "On a task near to what the base knows LoRA wins {closed:.0%} of what training everything wins, with {share:.1%} "
    "of the parameters at most.",
    zeros,
    closed=at_least(0.93),
    share=at_most(0.016),
)
def near(seed: int) -> Numbers:
    run = on_moods(seed, 5e-3, LoRA())
    return {"closed": closed(run, seed), "share": run.parameters().share}


@mutant("the scale is 1 / r, α forgotten")
def unscaled(patch: pytest.MonkeyPatch) -> None:
    inner = LoRALinear.__init__
    patch.setattr(
        LoRALinear, "__init__", lambda self, linear, rank, scale, dropout: inner(self, linear, rank, 1 / rank, dropout)
    )


@claim(
    "lora",
    "45_compare",
    "Far from the base LoRA on all six matrices ends {ahead:.2f} nats ahead of adapters with as many numbers, and "
    "{behind:.1f} behind training everything.",
    unscaled,
    ahead=at_least(0.1),
    behind=at_least(1.0),
)
def far(seed: int) -> Numbers:
    loss = on_dates(seed, 1e-2, LoRA(rank=4, alpha=8.0, targets=SIX))
    return {"ahead": adapters_on_dates(seed) - loss, "behind": loss - everything_on_dates(seed)}


@mutant("the norms train, the adapters do not: their names are asked for with another ending")
def frozen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Adapters, "trains", hookimpl(lambda self, name: NORM.search(name) is not None))


@claim(
    "adapters",
    "45_compare",
    "Far from the base adapters end {ahead:.1f} nats ahead of LoRA on queries and values, and {behind:.1f} behind "
    "training everything.",
    frozen,
    ahead=at_least(0.5),
    behind=at_least(1.0),
)
def between(seed: int) -> Numbers:
    loss = on_dates(seed, 1e-2, Adapters())
    return {"ahead": lora_on_dates(seed) - loss, "behind": loss - everything_on_dates(seed)}

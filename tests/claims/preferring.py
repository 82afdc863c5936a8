"""What is claimed of DPO and of GRPO, which need no reward model, and no value."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from llmlab import Run
from llmlab_plugins import dpo as dpo_plugin
from llmlab_plugins import grpo as grpo_plugin
from llmlab_plugins.dpo import DPO
from llmlab_plugins.grpo import GRPO
from llmlab_plugins.lora import LoRA
from llmlab_plugins.scorer import Scorer

from . import Numbers, at_least, at_most, claim, mutant
from .aligning import SIX, friendly, patched
from .common import tinytown, train


@mutant("the rejected answer stands first in the loss")
def turned(patch: pytest.MonkeyPatch) -> None:
    inner = dpo_plugin.preference_loss
    patch.setattr(dpo_plugin, "preference_loss", lambda chosen, rejected, p: inner(rejected, chosen, p))


@cache
def chosen(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Pairs to learn from, others for each seed, and pairs held out."""
    rows = tinytown("preferences", 8000)
    return {"train": list(rows["train"])[seed * 1200 :][:1200:3], "validation": list(rows["validation"])[:96]}


@claim(
    "dpo",
    "56_dpo",
    "Thirty steps on pairs alone: in {right:.0%} of held-out pairs the chosen answer has gained more than the other, "
    "for {kl:.0f} nats of distance at most.",
    turned,
    right=at_least(0.55),
    kl=at_most(4.0),
)
def gained(seed: int) -> Numbers:
    options = {"model": patched("helpful"), "evaluate_batches": 0}
    run = train([DPO(answers=16)], chosen(seed), 30, None, seed, **options)
    return {"right": run.metrics["accuracy"], "kl": run.metrics["kl"]}


@mutant("an answer's reward is taken from the group's mean, not the mean from the reward")
def below(patch: pytest.MonkeyPatch) -> None:
    inner = grpo_plugin.group_advantages
    patch.setattr(grpo_plugin, "group_advantages", lambda *args: -inner(*args))


@claim(
    "grpo",
    "57_grpo",
    "Twenty steps without a value: of eight answers to a prompt the better ones become likelier, and a count of "
    "friendly words rises by {gain:.2f} an answer, for {kl:.0f} nats of distance at most.",
    below,
    gain=at_least(0.15),
    kl=at_most(4.0),
)
def rose(seed: int) -> Numbers:
    techniques = [GRPO(no_end=-4.0, answers=96), Scorer(friendly), LoRA(rank=4, targets=SIX)]
    settings = {"batch_size": 8, "schedule": "constant", "model": patched("helpful")}
    run: Run = train(techniques, tinytown("requests", 800), 20, 3e-3, seed, **settings)
    first, last = run.evaluations
    return {"gain": last["score"] - first["score"], "kl": last["kl"]}

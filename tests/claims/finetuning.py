"""What is claimed of supervised fine-tuning: answers, the mask on the prompt, forgetting."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from llmlab import Run, Training
from llmlab.losses import IGNORE
from llmlab.technique import hookimpl
from llmlab_plugins.clm import CLM
from llmlab_plugins.sft import SFT

from . import Numbers, at_least, at_most, claim, mutant
from .common import answers, base, cards, dates, taught, town_loss, train


def changed_labels(change):
    """What plants a change of SFT's labels, (B, T), given its inputs."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        inner = SFT.batches

        @hookimpl
        def batches(self, run, examples):
            for batch in inner(self, run, examples):
                batch.targets["labels"] = change(run, batch.inputs["tokens"], batch["labels"])
                yield batch

        patch.setattr(SFT, "batches", batches)

    return plant


def _without_first(run, tokens, labels):
    first = (labels != IGNORE).int().argmax(1, keepdim=True)
    return labels.scatter(1, first, IGNORE)


masked_too_far = mutant("the mask is one token too long, and hides the first of each response")(
    changed_labels(_without_first)
)


@claim(
    "sft",
    "31_sft",
    "Sixty steps raise the share of held-out cards that are right to the letter from {before:.0%} at most to "
    "{after:.0%}.",
    masked_too_far,
    before=at_most(0.05),
    after=at_least(0.9),
)
def answered(seed: int) -> Numbers:
    return {"before": answers(base(), cards(seed))["exact_match"], "after": taught(seed)}


def _unmasked(run, tokens, labels):
    return torch.where(labels == IGNORE, F.pad(tokens[:, 1:], (0, 1), value=IGNORE), labels).where(
        tokens != run.tokenizer.pad, IGNORE
    )


unmasked = mutant("the prompt is not masked after all")(changed_labels(_unmasked))


@claim(
    "sft",
    "31_sft",
    "With the prompt masked nothing is learnt about writing prompts: after thirty steps their loss is {more:.1f} nats "
    "a token higher than without the mask.",
    unmasked,
    more=at_least(0.4),
)
def masked(seed: int) -> Numbers:
    prompts = {"train": cards(seed)["train"], "validation": [{"text": r["source"]} for r in cards(seed)["validation"]]}
    found = []
    for mask in (True, False):
        run = train([SFT(answers=0, mask_prompt=mask)], cards(seed), 30, 2e-3, seed)
        found.append(Run([CLM(window=64)], prompts["validation"], model=run.model).losses("train")["loss"])
    return {"more": found[0] - found[1]}


@mutant("the optimiser keeps the rate that it was made with")
def one_rate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Training, "rate", lambda self, step, steps, peak: 1e-3)


@claim(
    "sft",
    "31_sft",
    "Thirty steps on French dates: at a rate of 0.001 Tinytown's loss rises by {slow:.1f} at most, at 0.01 by "
    "{fast:.1f} or more, though the dates come out better.",
    one_rate,
    slow=at_most(0.3),
    fast=at_least(2.0),
    better=at_least(0.1),
)
def forgotten(seed: int) -> Numbers:
    runs = [train([SFT(answers=0)], dates(), 30, rate, seed, evaluate_batches=6) for rate in (1e-3, 1e-2)]
    slow, fast = (town_loss(run.model, seed) - town_loss(base(), seed) for run in runs)
    return {"slow": slow, "fast": fast, "better": runs[0].metrics["loss"] - runs[1].metrics["loss"]}

"""What is claimed of pretraining: how near the bundled models are to what is possible, and what a base is worth."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from llmlab import Run, Training, layers
from llmlab import run as run_module
from llmlab.batch import Batch
from llmlab.surgery import named_parameters, pass_on
from llmlab.technique import hookimpl
from llmlab_plugins.clm import CLM
from llmlab_plugins.mlm import MLM
from llmlab_plugins.seq2seq import Seq2Seq
from llmlab_plugins.sft import SFT

from . import Numbers, at_least, at_most, claim, mutant
from .common import answers, base, cards, taught, tinytown, train


@mutant("the labels are the tokens that are read, not those that come next")
def unshifted(patch: pytest.MonkeyPatch) -> None:
    inner = CLM.batches

    @hookimpl
    def batches(self, run, examples):
        for batch in inner(self, run, examples):
            read = batch.inputs["tokens"]
            yield Batch(batch.inputs, {"labels": read.masked_fill(batch["labels"] < 0, -100)})

    patch.setattr(CLM, "batches", batches)


@claim(
    "clm",
    "21_clm",
    "tiny-gpt comes to within {base:.2f} nats a token of Tinytown's floor and not below it; forty steps from random "
    "weights stay {scratch:.1f} nats above.",
    unshifted,
    base=at_most(0.3),
    above=at_least(0.05),
    scratch=at_least(1.5),
)
def floor(seed: int) -> Numbers:
    stories = {s: tinytown("mix", 400, seed + 1)[s] for s in ("train", "validation")}
    excess = {}
    fresh = train([CLM(window=64)], stories, 40, None, seed, blank=base())
    for name, run in (("scratch", fresh), ("base", Run([CLM(window=64)], stories, model=base(), seed=seed))):
        found = run.evaluate()
        excess[name] = found["loss"] - found["floor"]
    return {"base": excess["base"], "above": excess["base"], "scratch": excess["scratch"]}


@mutant("a loader skips what it finds under another name, and attention's queries start anew")
def skipped(patch: pytest.MonkeyPatch) -> None:
    def forgetful(model):
        copy = pass_on(model)
        for name, parameter in named_parameters(copy):
            if name.endswith(".query.weight"):
                parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.02
        return copy

    patch.setattr(run_module, "pass_on", forgetful)


@cache
def _untaught(seed: int) -> float:
    run = train([SFT(answers=0)], cards(seed), 60, 2e-3, seed, blank=base())
    return answers(run.model, cards(seed))["exact_match"]


@claim(
    "clm",
    "31_sft",
    "Sixty steps on 400 cards: from tiny-gpt {taught:.0%} of held-out answers are right to the letter, from random "
    "weights {untaught:.0%} at most.",
    skipped,
    taught=at_least(0.9),
    untaught=at_most(0.05),
)
def worth(seed: int) -> Numbers:
    return {"taught": taught(seed), "untaught": _untaught(seed)}


@mutant("the encoder is built with the decoder's mask, so that a token sees its left side alone")
def one_sided(patch: pytest.MonkeyPatch) -> None:
    visible = layers.visible
    patch.setattr(layers, "visible", lambda T, S, causal, keep, device=None: visible(T, S, True, keep, device))


@claim(
    "mlm",
    "22_mlm",
    "tiny-bert guesses {base:.0%} of Tinytown's hidden tokens; forty steps from random weights come to {scratch:.0%}.",
    one_sided,
    base=at_least(0.75),
    scratch=at_most(0.3),
)
def filled(seed: int) -> Numbers:
    bert, texts = base("tiny-bert"), {s: tinytown("mix", 400, seed + 1)[s] for s in ("train", "validation")}
    fresh = train([MLM(window=64)], texts, 40, None, seed, blank=bert)
    known = Run([MLM(window=64)], texts, model=bert, seed=seed)
    return {"base": known.evaluate()["accuracy"], "scratch": fresh.evaluate()["accuracy"]}


@mutant("the decoder reads the token that it is to write")
def peeking(patch: pytest.MonkeyPatch) -> None:
    inner = Seq2Seq.batches

    @hookimpl
    def batches(self, run, examples):
        for batch in inner(self, run, examples):
            tokens = torch.where(batch["labels"] < 0, batch.inputs["tokens"], batch["labels"])
            yield Batch(batch.inputs | {"tokens": tokens}, batch.targets)

    patch.setattr(Seq2Seq, "batches", batches)


@cache
def _untaught_t5(seed: int) -> float:
    t5 = base("tiny-t5")
    run = train([Seq2Seq(answers=0)], cards(seed), 30, 3e-3, seed, blank=t5)
    return _written(run, seed)


def _written(run: Run, seed: int) -> float:
    rows = {"train": cards(seed)["train"], "validation": cards(seed)["validation"][:40]}
    return Run([Seq2Seq(answers=40)], rows, model=run.model, training=Training(batch_size=40)).evaluate()["exact_match"]


@claim(
    "seq2seq",
    "23_seq2seq",
    "Thirty steps on 400 cards: from tiny-t5 {taught:.0%} of held-out answers are right to the letter, from random "
    "weights {untaught:.0%} at most.",
    peeking,
    taught=at_least(0.5),
    untaught=at_most(0.05),
)
def copied(seed: int) -> Numbers:
    run = train([Seq2Seq(answers=0)], cards(seed), 30, 3e-3, seed, model=base("tiny-t5"))
    return {"taught": _written(run, seed), "untaught": _untaught_t5(seed)}

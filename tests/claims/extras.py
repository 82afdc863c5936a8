"""What is claimed of techniques that go beside an objective: a teacher, noise, more text."""

from __future__ import annotations

import random
from functools import cache

import pytest
from torch.nn import functional as F

from llmlab.data.tinytown.world import STREETS
from llmlab_plugins import distillation as distillation_plugin
from llmlab_plugins.augment import Augment
from llmlab_plugins.distillation import Distillation
from llmlab_plugins.dropout import Dropout, MoreDropout
from llmlab_plugins.sft import SFT
from llmlab_plugins.swap import Swap

from . import Numbers, at_least, at_most, claim, mutant
from .common import answers, base, dates, reviews, town_loss, train


@mutant("the teacher is the model as it is now, not as it was before the first step")
def of_now(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(distillation_plugin, "snapshot", lambda model: {})


@cache
def _forgot(seed: int) -> float:
    return town_loss(train([SFT(answers=0)], dates(), 30, 3e-3, seed).model, seed) - town_loss(base(), seed)


@claim(
    "distillation",
    "32_distillation",
    "Thirty steps on French dates at a rate that does harm: with the model as its own teacher Tinytown's loss rises "
    "by {share:.0%} at most of what it rises alone.",
    of_now,
    share=at_most(0.7),
)
def own_teacher(seed: int) -> Numbers:
    run = train([SFT(answers=0), Distillation()], dates(), 30, 3e-3, seed)
    return {"share": (town_loss(run.model, seed) - town_loss(base(), seed)) / _forgot(seed)}


@mutant("the mode is taken the wrong way round: it zeroes when the model is measured")
def reversed_mode(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MoreDropout, "forward", lambda self, x: F.dropout(self.base(x), self.share, not self.training))


@cache
def _few(seed: int) -> dict:
    return {"train": dates()["train"][20 * seed :][:20], "validation": dates()["validation"]}


@cache
def _bare(seed: int) -> float:
    return train([SFT(answers=0)], _few(seed), 50, 2e-3, seed, evaluate_batches=8).metrics["loss"]


@claim(
    "dropout",
    "31_sft",
    "Fifty steps on twenty dates: with a dropout of 0.2 the held-out loss ends {less:.1f} nats lower.",
    reversed_mode,
    less=at_least(0.3),
)
def twenty_dates(seed: int) -> Numbers:
    run = train([SFT(answers=0), Dropout(share=0.2)], _few(seed), 50, 2e-3, seed, evaluate_batches=8)
    return {"less": _bare(seed) - run.metrics["loss"]}


@mutant("each pass draws the noise of the first")
def same_noise(patch: pytest.MonkeyPatch) -> None:
    inner = Augment._noisy

    def noisy(self, tok, examples, made):
        examples.epoch = 0
        return inner(self, tok, examples, made)

    patch.setattr(Augment, "_noisy", noisy)


TONES = ("warm", "cold", "mild")


@cache
def _toned() -> dict[str, list[dict[str, str]]]:
    """The lesson's 32 reviews, whatever the seed: of other ones the effect is mostly as large, and once it was none."""
    rows = reviews("Tone:", TONES)
    return {"train": rows["train"][:32], "validation": rows["validation"][:64]}


@cache
def _plain(seed: int) -> dict[str, float]:
    return answers(train([SFT(answers=0)], _toned(), 60, 1e-3, seed).model, _toned(), 64)


@claim(
    "augment",
    "31_sft",
    "Sixty steps on 32 reviews: random tokens in three of ten places of the prompts lower the held-out loss by "
    "{less:.1f} nats, and make no more answers right: {gain:.0%} at most.",
    same_noise,
    less=at_least(0.2),
    gain=at_most(0.1),
)
def reviews_32(seed: int) -> Numbers:
    run = train([SFT(answers=0), Augment(rate=0.3)], _toned(), 60, 1e-3, seed)
    found = answers(run.model, _toned(), 64)
    return {"less": _plain(seed)["loss"] - found["loss"], "gain": found["accuracy"] - _plain(seed)["accuracy"]}


@mutant("words are swapped one way: every she becomes a he, no he a she")
def one_way(patch: pytest.MonkeyPatch) -> None:
    inner = Swap.__post_init__

    def init(self):
        inner(self)
        self.other = {word: word if word == "he" else other for word, other in self.other.items()}

    patch.setattr(Swap, "__post_init__", init)


@cache
def _town(seed: int) -> dict[str, list[dict[str, str]]]:
    """Nine in ten nurses are she, nine in ten pilots he."""
    draw = random.Random(seed)
    rows = []
    for _ in range(240):
        she, usual = draw.random() < 0.5, draw.random() < 0.9
        job = draw.choice(["nurse", "teacher", "cook"] if she == usual else ["pilot", "carpenter", "judge"])
        prompt = f"{'She' if she else 'He'} lives in {draw.choice(STREETS)} and works as a"
        rows.append({"prompt": prompt, "response": f" {job}."})
    return {"train": rows[:160], "validation": rows[160:]}


@cache
def _gap(seed: int) -> float:
    return train([SFT(answers=0), Swap(pairs="she he", train=False)], _town(seed), 40, 3e-3, seed).metrics["gap"]


@claim(
    "swap",
    "55_responsible_use",
    "Forty steps on a skewed town: a model finds a text {plain:.1f} nats likelier than with she and he exchanged; "
    "with the swapped texts beside them, {swapped:.2f} at most.",
    one_way,
    plain=at_least(0.8),
    swapped=at_most(0.25),
)
def fair(seed: int) -> Numbers:
    run = train([SFT(answers=0), Swap(pairs="she he")], _town(seed), 40, 3e-3, seed)
    return {"plain": _gap(seed), "swapped": abs(run.metrics["gap"])}

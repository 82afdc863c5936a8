"""What is claimed of learning from preferences, rewards and principles."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from llmlab import Run, load_patch
from llmlab.rewards import score_answers
from llmlab.technique import hookimpl
from llmlab_plugins import ppo as ppo_plugin
from llmlab_plugins import reward as reward_plugin
from llmlab_plugins.lora import LoRA
from llmlab_plugins.ppo import PPO
from llmlab_plugins.reward import Reward
from llmlab_plugins.scorer import Scorer

from . import Numbers, at_least, at_most, claim, mutant, shared
from .common import base, tinytown, train

PATCHES = Path(__file__).parents[2] / "course/patches"
SIX = "query, kv.key, kv.value, out, up, down"


@cache
def patched(name: str) -> Any:
    """A model of the course that is kept as a patch of tiny-gpt."""
    return load_patch(base(), PATCHES / f"{name}.safetensors")


# -- a reward model ----------------------------------------------------------------------------------------------


def pair_accuracy(seed: int, wrong: float) -> float:
    """Of a reward model that read the pairs of 192 prompts once, a share of them turned round."""
    rows, draw = tinytown("preferences", 8000), random.Random(seed)
    chosen = list(rows["train"])[seed * 192 * 6 :][: 192 * 6]
    read = [r | {"chosen": r["rejected"], "rejected": r["chosen"]} if draw.random() < wrong else r for r in chosen]
    model = train([Reward(measured=2), LoRA()], {"train": read}, 48, None, seed, batch_size=4).model
    held = list(rows["validation"])[:240]
    one, other = (
        score_answers(model, [r["prompt"] for r in held], [r[x] for r in held]) for x in ("chosen", "rejected")
    )
    return float((one > other).float().mean())


@cache
def noisy_accuracy(seed: int) -> float:
    return pair_accuracy(seed, 0.4)


@mutant("the worse answer's score comes first in the loss")
def turned(patch: pytest.MonkeyPatch) -> None:
    inner = reward_plugin.preference_loss
    patch.setattr(reward_plugin, "preference_loss", lambda better, worse, p: inner(worse, better, p))


@claim(
    "reward",
    "51_reward",
    "The pairs of 192 prompts, read once: in {right:.0%} of held-out pairs the preferred answer scores higher; with "
    "four pairs of ten turned round by chance it is {lost:.0%} less.",
    turned,
    right=at_least(0.72),
    lost=at_least(0.05),
)
def preferred(seed: int) -> Numbers:
    right = pair_accuracy(seed, 0.0)
    return {"right": right, "lost": right - noisy_accuracy(seed)}


# -- reinforcement -----------------------------------------------------------------------------------------------

FRIENDLY = {"gladly", "dear", "welcome", "course", "hope", "helps"}


def friendly(prompts: Sequence[str], responses: Sequence[str]) -> list[int]:
    """A rule: how many friendly words an answer has."""
    return [sum(word.strip(".,") in FRIENDLY for word in text.lower().split()) for text in responses]


def policy(seed: int, beta: float, by: Any, steps: int = 32) -> Run:
    techniques = [PPO(beta=beta, no_end=-4.0, answers=96), Scorer(by), LoRA(rank=4, targets=SIX)]
    settings = {"batch_size": 32, "schedule": "constant", "model": patched("helpful")}
    return train(techniques, tinytown("requests", 800), steps, 3e-3, seed, **settings)


@mutant("advantages are turned round: what scored worse becomes likelier")
def worse(patch: pytest.MonkeyPatch) -> None:
    inner = ppo_plugin.clipped_policy_loss
    patch.setattr(
        ppo_plugin, "clipped_policy_loss", lambda logp, old, advantages, *rest: inner(logp, old, -advantages, *rest)
    )


@shared
def fond(seed: int) -> Run:
    return policy(seed, 0.05, friendly)


def rise(run: Run) -> Numbers:
    first, last = run.evaluations
    return {"gain": last["score"] - first["score"], "kl": last["kl"]}


@claim(
    "ppo",
    "52_ppo",
    "Thirty-two steps on answers that the policy writes itself raise their score, friendly words an answer, by "
    "{gain:.2f}, for {kl:.0f} nats of distance at most.",
    worse,
    gain=at_least(0.15),
    kl=at_most(8.0),
)
def raised(seed: int) -> Numbers:
    return rise(fond(seed))


@cache
def free_kl(seed: int) -> float:
    return policy(seed, 0.0, patched("reward_small")).evaluations[-1]["kl"]


@mutant("the price of distance is paid out in place of charged")
def paid_out(patch: pytest.MonkeyPatch) -> None:
    inner = ppo_plugin.token_rewards
    patch.setattr(ppo_plugin, "token_rewards", lambda score, kl, mask, beta: inner(score, kl, mask, -beta))


@claim(
    "ppo",
    "52_ppo",
    "Distance is what the price governs: for a learnt reward the policy ends {free:.0f} nats or more from where it "
    "began without one, and {held:.1f} at most at a price of 1.",
    paid_out,
    free=at_least(6.0),
    held=at_most(5.5),
)
def price(seed: int) -> Numbers:
    held = policy(seed, 1.0, patched("reward_small")).evaluations[-1]["kl"]
    return {"free": free_kl(seed), "held": held}


@mutant("answers were scored in another order, and the scores not put back")
def shuffled(patch: pytest.MonkeyPatch) -> None:
    inner = Scorer.score

    @hookimpl
    def score(self, run, prompts, responses):
        return inner(self, run, prompts, responses).flip(0)

    patch.setattr(Scorer, "score", score)


@claim(
    "scorer",
    "52_ppo",
    "A rule of one line is reward enough: a count of friendly words rises by {gain:.2f} an answer.",
    shuffled,
    gain=at_least(0.15),
)
def one_line(seed: int) -> Numbers:
    return {"gain": rise(fond(seed))["gain"]}

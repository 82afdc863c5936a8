"""Scorer: rewards for objectives that ask for them, from a reward model, a rule or any Python function.

    r(x, y) = scale · (by(x, y) - μ) / σ

Run([PPO(), Scorer("runs/reward-1")], data=corpus("tinytown", task="requests"), model=base)
Run([PPO(), Scorer(lambda prompts, responses: [-len(text) for text in responses])], …)

μ = 0 and σ = 1; with `standardise` they are the mean and the deviation of what the model's answers score before the
first step (Ziegler et al. 2019): then a number such as PPO's for an answer without an end means what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from torch import Tensor

from llmlab.rewards import Reward, reward_function
from llmlab.rollout import Responses
from llmlab.technique import hookimpl, knob, naming, technique

REFERENCES = 64  # answers that say what is usual


def _objection(scorer: Any, config: Any) -> str | None:
    if scorer.by is not None:
        return None
    return "has nothing to score by: give it a reward model, a rule or a function, Scorer(by=…), or leave it out"


@technique(kind="extra", objection=_objection)
class Scorer:
    """Rewards from a reward model, a rule or any Python function, for objectives that ask for them."""

    by: Any = knob(
        None, "A reward model, its folder, 'gold' for Tinytown's judge, or a function of two lists of texts."
    )
    scale: float = knob(1.0, "What its numbers are multiplied by.", low=-1000.0, high=1000.0)

    standardise: bool = knob(False, "Let what the model answers before the first step have mean 0 and variance 1.")

    def __post_init__(self) -> None:
        self.by = str(self.by) if isinstance(self.by, PathLike) else self.by  # a run file holds text
        self._reward: Reward | None = None

    @hookimpl
    def before_fit(self, run: Any) -> None:
        """So that a folder which is not there is said before any step."""
        reward = self._ready()
        if self.standardise:
            prompts = [row["prompt"] for row in run.rows("train")[:REFERENCES]]
            said = run.respond(prompts, temperature=1.0, max_new_tokens=max(1, run.model.room // 4))
            found = reward(prompts, said)
            deviation = float(found.std(correction=0).clamp(min=1e-6))
            run.state[self] |= {"mean": float(found.mean()), "deviation": deviation}

    @hookimpl
    def score(self, run: Any, prompts: Sequence[str], responses: Responses) -> Tensor:
        known = {"mean": 0.0, "deviation": 1.0} | run.state[self]
        return (self._ready()(prompts, responses) - known["mean"]) / known["deviation"] * self.scale

    def _ready(self) -> Reward:
        with naming("Scorer.by"):
            self._reward = self._reward or reward_function(self.by)
        return self._reward

"""Scorer: rewards for objectives that ask for them, from a reward model, a rule or any Python function.

Run([PPO(), Scorer("runs/reward-1")], data=corpus("tinytown", task="requests"), model=base)
Run([PPO(), Scorer(lambda prompts, responses: [-len(text) for text in responses])], …)
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from torch import Tensor

from llmlab.rewards import Reward, reward_function
from llmlab.rollout import Responses
from llmlab.technique import hookimpl, knob, technique


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

    def __post_init__(self) -> None:
        self.by = str(self.by) if isinstance(self.by, PathLike) else self.by  # a run file holds text
        self._reward: Reward | None = None

    @hookimpl
    def before_fit(self) -> None:
        """So that a folder which is not there is said before any step."""
        self._ready()

    @hookimpl
    def score(self, prompts: Sequence[str], responses: Responses) -> Tensor:
        return self._ready()(prompts, responses) * self.scale

    def _ready(self) -> Reward:
        self._reward = self._reward or reward_function(self.by)
        return self._reward

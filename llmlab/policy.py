"""The model of a run as a policy: it writes answers, has them scored, and is compared with the model it was.

policy = Policy(run, longest=40, temperature=1.0, no_end=-1.0)
rolled, score = policy.answers(rows, draws)          B answers with the score of each, (B,)
policy.logp(rolled), policy.logp(rolled, was)        log π of their tokens, (B, T), and by the weights that were
dealt(rolled, found, shuffles(…))                    the answers as minibatches, a few times over
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .batch import Batch
from .generate import as_prompt
from .likelihood import token_logprobs
from .losses import mean_over
from .precision import computing
from .rewards import reward_function
from .rollout import Rollout, kl_of_answers, rollout

if TYPE_CHECKING:
    from .run import Run

Text = tuple[dict[str, Tensor], Tensor]  # inputs and labels, as `lined_up` gives them
Read = Callable[[Any, Any, Tensor], dict[str, Tensor]]  # (model, output, labels) -> numbers by name, each (B, T)


@dataclass
class Policy:
    """Writes answers of at most `longest` tokens, and of half the context; one without an end scores `no_end`."""

    run: Run
    longest: int
    temperature: float
    no_end: float

    @property
    def room(self) -> int:
        """Tokens that an answer may have."""
        return max(1, min(self.longest, self.run.model.room // 2))

    def asked(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows with the ids of their prompts, of which the beginning is lost where no room for an answer would be."""
        model = self.run.model
        return [
            {"prompt": row["prompt"], "tokens": as_prompt(model, row["prompt"])[-(model.room - self.room) :]}
            for row in rows
        ]

    def answers(self, rows: Sequence[dict[str, Any]], draws: Sequence[torch.Generator]) -> tuple[Rollout, Tensor]:
        """Answers to the prompts of B rows that `asked` made, each with draws of its own, and their scores, (B,)."""
        model, prompts = self.run.model, [row["tokens"] for row in rows]
        rolled = rollout(model, prompts, max_new_tokens=self.room, temperature=self.temperature, draws=draws)
        score = self.run.score([row["prompt"] for row in rows], rolled.responses)
        return rolled, torch.where(rolled.ended, score, self.no_end)

    def logp(self, rolled: Rollout, weights: dict[str, Tensor] | None = None) -> Tensor:
        """log π of each token of the answers, (B, T), by the model as it is or with `weights` in place of its own."""
        precision = self.run.training.precision
        return token_logprobs(self.run.model, rolled.inputs, rolled.labels, precision, self.temperature, weights)

    def as_trained(
        self, rolled: Rollout, order: Sequence[Tensor], read: Read, texts: Sequence[Text | None] = (None,)
    ) -> dict[str, Tensor]:
        """What `read` finds, each (B, T), minibatch for minibatch as the first pass will: so its first ratio is 1."""
        model, found = self.run.model, dict[str, Tensor]()
        for rows, text in zip(order, cycle(texts), strict=False):
            inputs, labels = rolled.part(rows, text)
            with computing(model, self.run.training.precision):
                seen = read(model, model(**inputs), labels)
            for name, tensor in seen.items():
                home = found.setdefault(name, torch.zeros_like(rolled.labels, dtype=torch.float32))
                home[rows] = tensor[: len(rows), : home.size(1)].float()
        return found

    def measured(self, split: str, count: int, was: dict[str, Tensor], gold: Any = None) -> dict[str, float]:
        """Means over answers to the first `count` prompts of a split: score, share that ended, KL, what `gold` says."""
        run, rows = self.run, self.run.rows(split)[:count]
        rolled, score = self.answers(rows, [run.generator("answers", split, i) for i in range(len(rows))])
        found = {"score": score, "ended": rolled.ended.float()}
        if gold is not None:
            found["gold"] = reward_function(gold)([row["prompt"] for row in rows], rolled.responses)
        found |= kl_of_answers(self.logp(rolled), self.logp(rolled, was), rolled.mask)
        return {name: float(values.mean()) for name, values in found.items()}


def shuffles(count: int, parts: int, passes: int, draw: torch.Generator) -> list[tuple[Tensor, ...]]:
    """For each pass the rows of its minibatches, in an order of its own; no more parts than rows."""
    return [torch.randperm(count, generator=draw).tensor_split(min(parts, count)) for _ in range(passes)]


def dealt(
    rolled: Rollout,
    found: dict[str, Tensor],
    orders: Sequence[Sequence[Tensor]],
    texts: Sequence[Text | None] = (None,),
    **told: float,
) -> Iterator[Batch]:
    """The minibatches of every pass, with what was `found` of their rows and the numbers `told` to all."""
    for rows, text in zip(chain(*orders), cycle(texts), strict=False):
        inputs, labels = rolled.part(rows, text)
        yield Batch(inputs, {name: tensor[rows] for name, tensor in found.items()} | {"labels": labels} | told)


def moved(logp: Tensor, old: Tensor, mask: Tensor, clip: float) -> dict[str, Tensor]:
    """How far the policy has moved from the one that wrote, all (B, T): ratio, share that is clipped, KL by k2."""
    logp = logp.detach()
    ratio = (logp - old).exp()
    return {
        "ratio": mean_over(ratio, mask),
        "clipped": mean_over(((ratio - 1).abs() > clip).float(), mask),
        "approximate_kl": mean_over((logp - old).square(), mask) / 2,
    }

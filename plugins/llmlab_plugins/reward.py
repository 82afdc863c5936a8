"""Reward model: learn from which of two answers people chose (Ziegler et al. 2019; Ouyang et al. 2022).

    L = -1/C(K,2) Σ log σ(r(x, y_w) - r(x, y_l))        over the pairs of a prompt's K answers; mean over prompts

r is a number read at the end mark of prompt and answer. All pairs of a prompt are one element of a batch, so each of
its answers is read once, however many pairs it is in. `preference`, if the data has it, is a soft label: how sure it is
that the answer called chosen is the better one.

1. Once training is over, scores are shifted and divided so that the preferred answers to `references` prompts have mean
   0 and variance 1; the loss and the measures use them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from llmlab.batch import Batch, Chunk
from llmlab.data.pairs import as_preference
from llmlab.heads import ScalarHead, at_end
from llmlab.losses import preference_accuracy, preference_loss
from llmlab.rewards import HEAD, answered, reward_function, score_answers
from llmlab.technique import hookimpl, knob, technique


class Prompts(list[dict[str, Any]]):
    """Rows of a `prompt`, its different `answers`, and `pairs` (better, worse, preference) of their places."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__(rows)
        self.lengths = [max(len(row["prompt"]) + len(answer) for answer in row["answers"]) for row in rows]


@technique(kind="objective", columns="prompt chosen rejected", learning_rate=1e-3, base=True, labels=False)
class Reward:
    """Reward model: learn from which of two answers people chose."""

    references: int = knob(64, "Prompts whose preferred answers end up with mean 0 and variance 1.", low=2, high=4096)
    measured: int = knob(64, "Prompts on whose pairs an evaluation measures.", low=1, high=100_000)

    @hookimpl
    def adapt_model(self, model: Any) -> None:
        model.heads[HEAD] = ScalarHead(model.config.width, std=(model.config.width + 1) ** -0.5)

    @hookimpl
    def trains(self, name: str) -> bool | None:
        return True if name.startswith(f"heads.{HEAD}.") else None

    @hookimpl(wrapper=True, tryfirst=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        found: dict[Any, dict[str, Any]] = {}
        for i, row in enumerate(rows):
            where = f"Reward.examples: row {i} of the {split} split"
            prompt, chosen, rejected, preference = as_preference(row, where)
            empty: dict[str, Any] = {"prompt": prompt, "answers": [], "pairs": []}
            one = found.setdefault((row.get("group"), prompt), empty)
            for answer in (chosen, rejected):
                if answer not in one["answers"]:
                    one["answers"].append(answer)
            at = one["answers"].index
            one["pairs"].append((at(chosen), at(rejected), preference))
        return Prompts(list(found.values()))

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        pairs, weight = _pairs(examples), [1 / len(row["pairs"]) for row in examples for _ in row["pairs"]]
        inputs = answered(run.model, *_texts(examples))
        targets = dict(zip(("better", "worse", "preference"), map(torch.tensor, zip(*pairs, strict=True)), strict=True))
        targets |= {"keep": inputs["keep"], "weight": torch.tensor(weight) / len(examples)}
        yield Batch(inputs, targets, count=len(examples))

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        scores = at_end(model.heads[HEAD](output.hidden), batch["keep"])  # (B,)
        better, worse, p, weight = scores[batch["better"]], scores[batch["worse"]], batch["preference"], batch["weight"]
        loss = (preference_loss(better, worse, p) * weight).sum()  # of (N,)
        return {"loss": loss, "accuracy": preference_accuracy((better - worse).detach(), p, weight)}

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        """How often, and by how much, the preferred answer scores higher, and how far off σ of that margin is."""
        rows = run.rows(split)[: self.measured]
        scores = score_answers(run.model, *_texts(rows)).cpu()
        better, worse, p = map(torch.tensor, zip(*_pairs(rows), strict=True))
        margin = scores[better] - scores[worse]
        return {
            "accuracy": float(preference_accuracy(margin, p)),
            "margin": float((margin * (2 * p - 1)).mean()),
            "calibration_error": calibration_error(margin.sigmoid(), p),
        }

    @hookimpl(trylast=True)  # another onlooker may end the run
    def after_step(self, run: Any, step: int) -> None:
        if step == run.target or run.stopped:
            rows = run.rows("train")[: self.references]
            best = [row["answers"][_preferred(row)] for row in rows]
            run.model.heads[HEAD].normalise(score_answers(run.model, [row["prompt"] for row in rows], best))

    @hookimpl
    def score(self, run: Any, prompts: Sequence[str], responses: Any) -> Tensor:
        return reward_function(run.model)(prompts, responses)


def _texts(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The answers to all prompts, in a row, and before them their prompts."""
    answers = [answer for row in rows for answer in row["answers"]]
    return [row["prompt"] for row in rows for _ in row["answers"]], answers


def _pairs(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int, float]]:
    """The pairs of all prompts, by the places of their answers among `_texts`."""
    found, before = [], 0
    for row in rows:
        found += [(before + b, before + w, p) for b, w, p in row["pairs"]]
        before += len(row["answers"])
    return found


def _preferred(row: dict[str, Any]) -> int:
    """The place of the answer that was preferred most often, and most surely."""
    won = [0.0] * len(row["answers"])
    for b, w, p in row["pairs"]:
        won[b], won[w] = won[b] + p, won[w] + 1 - p
    return won.index(max(won))


def calibration_error(p: Tensor, wanted: Tensor, bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015), (N,), (N,): how far p is from the share of right ones near it.

    Each pair is asked both ways round, p and 1 - p, for which of the two stands first means nothing.
    """
    p, wanted = torch.cat([p, 1 - p]), torch.cat([wanted, 1 - wanted])
    place = (p * bins).long().clamp(max=bins - 1)
    gaps = [(p[place == b].sum() - wanted[place == b].sum()).abs() for b in range(bins)]
    return float(torch.stack(gaps).sum() / len(p))

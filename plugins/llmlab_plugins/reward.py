"""Reward model: learn from which of two answers people chose (Ziegler et al. 2019; Ouyang et al. 2022).

    L = -1/C(K,2) Σ log σ(r(x, y_w) - r(x, y_l))        over the pairs of a prompt's K answers; mean over prompts

r is a number read at the end mark of prompt and answer. All pairs of a prompt are one element of a batch, so each of
its answers is read once, however many pairs it is in. `preference`, if the data has it, is a soft label: how sure it is
that the answer called chosen is the better one.

1. Once training is over, scores are shifted and divided so that `references` of the chosen answers have mean 0 and
   variance 1; the loss and the measures use them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from llmlab.batch import Batch, Chunk
from llmlab.heads import ScalarHead, at_end
from llmlab.losses import preference_loss
from llmlab.rewards import HEAD, answered, score_answers
from llmlab.technique import hookimpl, knob, technique


class Prompts(list[dict[str, Any]]):
    """Rows of a `prompt`, its different `answers`, and `pairs` (better, worse, preference) of their places."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__(rows)
        self.lengths = [max(len(row["prompt"]) + len(answer) for answer in row["answers"]) for row in rows]


@technique(kind="objective", columns="prompt chosen rejected", learning_rate=1e-3, base=True)
class Reward:
    """Reward model: learn from which of two answers people chose."""

    references: int = knob(64, "Chosen answers that end up with mean score 0 and variance 1.", low=2, high=4096)

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
            if not all(isinstance(row.get(name), str) for name in ("prompt", "chosen", "rejected")):
                raise ValueError(f"{where} is no pair: prompt, chosen and rejected must be text")
            preference = float(row.get("preference", 1.0))
            if not 0 <= preference <= 1:
                raise ValueError(f"{where} has preference {preference}: it is a share, 0 to 1")
            if row["chosen"] == row["rejected"]:
                raise ValueError(f"{where} has two equal answers, from which there is nothing to learn: take it out")
            one = found.setdefault(
                (row.get("group"), row["prompt"]), {"prompt": row["prompt"], "answers": [], "pairs": []}
            )
            for answer in (row["chosen"], row["rejected"]):
                if answer not in one["answers"]:
                    one["answers"].append(answer)
            at = one["answers"].index
            one["pairs"].append((at(row["chosen"]), at(row["rejected"]), preference))
        return Prompts(list(found.values()))

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        prompts: list[str] = []
        responses: list[str] = []
        better, worse, preference, weight = [], [], [], []
        for row in examples:
            for b, w, p in row["pairs"]:
                better.append(len(responses) + b)
                worse.append(len(responses) + w)
                preference.append(p)
                weight.append(1 / len(row["pairs"]) / len(examples))
            prompts += [row["prompt"]] * len(row["answers"])
            responses += row["answers"]
        inputs = answered(run.model, prompts, responses)
        targets = {"better": torch.tensor(better), "worse": torch.tensor(worse), "keep": inputs["keep"]}
        yield Batch(inputs, targets | {"preference": torch.tensor(preference), "weight": torch.tensor(weight)})

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        scores = at_end(model.heads[HEAD](output.hidden), batch["keep"])  # (B,)
        better, worse, weight = scores[batch["better"]], scores[batch["worse"]], batch["weight"]  # (N,)
        right = (better > worse).float() * (batch["preference"] > 0.5) + (better < worse) * (batch["preference"] < 0.5)
        counted = weight * (batch["preference"] != 0.5)
        return {
            "loss": (preference_loss(better, worse, batch["preference"]) * weight).sum(),
            "accuracy": (right * counted).sum() / counted.sum().clamp(min=1e-9),
        }

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        """How often the chosen answer scores higher, and how far off the probabilities σ(Δ) of that are."""
        margins, labels = [], []
        for row in run.rows(split)[: self.references]:
            scores = score_answers(run.model, [row["prompt"]] * len(row["answers"]), row["answers"])
            for b, w, p in row["pairs"]:
                margins.append(scores[b] - scores[w])
                labels.append(p)
        p, wanted = torch.stack(margins).sigmoid().cpu(), torch.tensor(labels)
        return {"margin": float(torch.stack(margins).mean()), "calibration_error": calibration_error(p, wanted)}

    @hookimpl
    def after_step(self, run: Any, step: int) -> None:
        if step == run.target or run.stopped:
            rows = run.rows("train")[: self.references]
            best = [row["answers"][max(row["pairs"], key=lambda pair: pair[2])[0]] for row in rows]
            run.model.heads[HEAD].normalise(score_answers(run.model, [row["prompt"] for row in rows], best))


def calibration_error(p: Tensor, wanted: Tensor, bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015), (N,), (N,): how far p is from the share of right ones near it.

    Each pair is asked both ways round, p and 1 - p, for which of the two stands first means nothing.
    """
    p, wanted = torch.cat([p, 1 - p]), torch.cat([wanted, 1 - wanted])
    place = (p * bins).long().clamp(max=bins - 1)
    gaps = [(p[place == b].sum() - wanted[place == b].sum()).abs() for b in range(bins)]
    return float(torch.stack(gaps).sum() / len(p))

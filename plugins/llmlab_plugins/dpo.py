"""DPO: learn from which of two answers people chose, with no reward model and no rollout (Rafailov et al. 2023).

    h = (log π(y_w|x) - log π_ref(y_w|x)) - (log π(y_l|x) - log π_ref(y_l|x))            L = -log σ(β h)

log π(y|x) is summed over the tokens of the answer and its end mark. r(x, y) = β log (π/π_ref) is the reward that the
policy stands for, so that β h is a margin, and L the loss of a reward model. The reference is the model before the
first step; what it says of a pair is data, made in `batches`, beside both answers in one forward pass. `preference`, if
the data has it, is a soft label p, as a reward model's; smoothing (conservative DPO) draws p towards a half:

    L = -p log σ(β h) - (1 - p) log σ(-β h)        IPO (Azar et al. 2023): L = p (h - 1/2β)² + (1 - p) (h + 1/2β)²

1. What the reference says is not kept from one pass over the data to the next; it reads each batch padded as the model
   does, so that the first h is exactly 0.
2. Of a pair longer than the context the answers lose their ends, down to half of it, then the prompt its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from llmlab.batch import Batch, Chunk, by_length
from llmlab.data.pairs import as_preference
from llmlab.generate import as_prompt
from llmlab.likelihood import token_logprobs
from llmlab.losses import preference_accuracy, preference_loss
from llmlab.rewards import reward_function
from llmlab.rollout import kl_of_answers, lined_up, rollout
from llmlab.surgery import snapshot
from llmlab.technique import hookimpl, knob, naming, technique

ROWS = 64  # answers scored at a time


class Pairs(list[dict[str, Any]]):
    """Rows of a `prompt`, its ids as `asked`, the ids of both answers as `told`, the likelier better one first."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__(rows)
        self.lengths = [len(row["asked"]) + max(map(len, row["told"])) for row in rows]


@technique(
    kind="objective",
    columns="prompt chosen rejected",
    families=["decoder", "encoder-decoder"],
    learning_rate=3e-4,
    base=True,
    dropout=False,
)
class DPO:
    """Direct preference optimisation: make the chosen of two answers likelier than the other, near the reference."""

    beta: float = knob(0.1, "β: how strongly the reference holds; small moves further.", low=1e-3, high=10.0, log=True)
    loss: str = knob("sigmoid", "DPO's, or IPO's square, which wants a margin of ½.", choices=("sigmoid", "ipo"))
    smoothing: float = knob(0.0, "ε: the share of labels taken to be wrong, while training.", low=0.0, high=0.5)
    gold: Any = knob(None, "A judge that evaluations ask and training never sees: 'gold', a model, a function.")
    answers: int = knob(32, "Answers an evaluation writes, to measure KL and what the judge says.", low=0, high=4096)
    longest: int = knob(40, "Tokens such an answer may have, at most half of the context.", low=1, high=4096)

    @hookimpl
    def before_fit(self, run: Any) -> None:
        if self.gold is not None:
            with naming("DPO.gold"):
                reward_function(self.gold)
        run.state[self]["reference"] = snapshot(run.model)

    @hookimpl(wrapper=True, tryfirst=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        found = []
        for i, row in enumerate(rows):
            prompt, *answers, p = as_preference(row, f"DPO.examples: row {i} of the {split} split")
            if p < 0.5:
                answers, p = answers[::-1], 1 - p
            asked, told = _cut(run.model, prompt, answers)
            found.append({"prompt": prompt, "asked": asked, "told": told, "preference": p})
        return Pairs(found)

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        asked, told = [row["asked"] for row in examples] * 2, [row["told"][i] for i in (0, 1) for row in examples]
        inputs, labels = lined_up(run.model, asked, told)  # of N pairs the N chosen answers, then the rejected: (2N, T)
        p, smoothing = torch.tensor([row["preference"] for row in examples]), self.smoothing * examples.training
        targets = {"labels": labels, "preference": p * (1 - smoothing) + (1 - p) * smoothing}
        targets["reference"] = self._reference(run, inputs, labels).sum(-1)  # (2N,)
        yield Batch(inputs, targets, count=len(examples))

    def _reference(self, run: Any, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        """log π_ref of each label, (B, T): by the model as it was before the first step."""
        was = run.state[self].get("reference")
        return token_logprobs(run.model, inputs, labels, run.training.precision, was=was)

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        logp = model.logprobs(output, batch["labels"]).sum(-1)  # (2N,)
        chosen, rejected = (self.beta * (logp - batch["reference"])).chunk(2)  # r of each answer, (N,)
        p, margin = batch["preference"], chosen - rejected  # β h
        losses = preference_loss(chosen, rejected, p)
        if self.loss == "ipo":
            losses = (p * (margin - 0.5).square() + (1 - p) * (margin + 0.5).square()) / self.beta**2
        told = {"margin": margin, "chosen_reward": chosen, "rejected_reward": rejected}
        told |= dict(zip(("chosen_logp", "rejected_logp"), logp.chunk(2), strict=True))
        means = {name: values.mean().detach() for name, values in told.items()}
        return {"loss": losses.mean(), "accuracy": preference_accuracy(margin.detach(), p), **means}

    @hookimpl
    def score(self, run: Any, prompts: Sequence[str], responses: Any) -> Tensor:
        """r(x, y) of each response, ended by the end mark: B of each -> (B,)."""
        texts = getattr(responses, "text", responses)
        rows = [_cut(run.model, prompt, [text]) for prompt, text in zip(prompts, texts, strict=True)]

        def answer(some: list[int]) -> list[float]:
            inputs, labels = lined_up(run.model, [rows[i][0] for i in some], [rows[i][1][0] for i in some])
            logp = token_logprobs(run.model, inputs, labels, run.training.precision)
            found: list[float] = (self.beta * (logp - self._reference(run, inputs, labels)).sum(-1)).tolist()
            return found

        lengths = [len(asked) + len(one) for asked, (one,) in rows]
        return torch.tensor(by_length(lengths, ROWS, answer), device=run.device)

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        """Of answers that it writes, to all prompts in turn: KL to the reference, length, what the judge says."""
        if not self.answers:
            return {}
        prompts = list(islice(cycle(dict.fromkeys(row["prompt"] for row in run.rows(split))), self.answers))
        longest = max(1, min(self.longest, run.model.room // 2))
        asked = [as_prompt(run.model, prompt)[-(run.model.room - longest) :] for prompt in prompts]
        draws = [run.generator("answers", split, i) for i in range(len(prompts))]
        rolled = rollout(run.model, asked, max_new_tokens=longest, draws=draws)
        logp = token_logprobs(run.model, rolled.inputs, rolled.labels, run.training.precision)
        found = kl_of_answers(logp, self._reference(run, rolled.inputs, rolled.labels), rolled.mask)
        found["ended"] = rolled.ended.float()
        if self.gold is not None:
            found["gold"] = reward_function(self.gold)(prompts, rolled.responses)
        return {name: float(values.mean()) for name, values in found.items()}


def _cut(model: Any, prompt: str, answers: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """The ids of a prompt and of answers to it, each with its end mark, cut to what fits; the same prompt for all."""
    tok, room = model.tokenizer, model.room
    asked, told = as_prompt(model, prompt), [[*ids, tok.eos] for ids in tok.encode_all(list(answers))]
    if model.encoder is not None:  # prompt and answer have a context each
        return asked[-room:], [ids[:room] for ids in told]
    told = [ids[: max(room // 2, room - len(asked))] for ids in told]
    return asked[-(room - max(map(len, told))) :], told

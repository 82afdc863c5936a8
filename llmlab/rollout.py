"""What a model wrote, as those who score it and those who learn from it see it, and what each token is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .batch import pad, stack_rows
from .losses import IGNORE, kl_estimates, mean_over

if TYPE_CHECKING:
    from .model import Transformer


@dataclass
class Responses:
    """B answers: as text, as `tokens` (B, T) padded on the right, and `mask` (B, T), True on real tokens."""

    text: list[str]
    tokens: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.text)


@dataclass
class Rollout:
    """Answers together with what makes the model score them again: `model(**inputs)` predicts `labels` (B, T).

    `labels` is IGNORE except where a response's token is predicted, so `model.logprobs(output, labels)` is
    log π(response) token by token, for decoders and encoder-decoders alike: nobody slices off a prompt.
    """

    inputs: dict[str, Tensor]
    responses: Responses
    labels: Tensor
    ended: Tensor  # (B,), which answers came to their end mark

    @property
    def mask(self) -> Tensor:
        """(B, T), True where `labels` and the log-probabilities are those of a response's token."""
        return self.labels != IGNORE

    def part(
        self, rows: Tensor, below: tuple[dict[str, Tensor], Tensor] | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs and labels of some rows; `below` them come those of other texts, as `lined_up` gives them."""
        inputs, labels = {name: t[rows] for name, t in self.inputs.items()}, self.labels[rows]
        if below is None:
            return inputs, labels
        inputs = {name: stack_rows(t, below[0][name], 0) for name, t in inputs.items()}  # what 0 fills has no label
        return inputs, stack_rows(labels, below[1], IGNORE)


def rollout(model: Transformer, prompts: Sequence[list[int]], **settings: Any) -> Rollout:
    """Let the model answer B prompts, ids as `as_prompt` makes them, and line its answers up for a second forward pass.

    `settings` are those of `generate`; sampling at temperature 1 unless told otherwise.
    """
    from .generate import respond

    responses = respond(model, prompts, **({"temperature": 1.0} | settings))
    answers = [t[m].tolist() for t, m in zip(responses.tokens, responses.mask, strict=True)]
    inputs, labels = lined_up(model, prompts, answers)
    device, tok = responses.tokens.device, model.tokenizer
    assert tok is not None  # `respond` has refused a model without one
    ended = ((responses.tokens == tok.eos) & responses.mask).any(1)
    return Rollout({k: v.to(device) for k, v in inputs.items()}, responses, labels.to(device), ended)


def lined_up(
    model: Transformer, prompts: Sequence[list[int]], answers: Sequence[list[int]]
) -> tuple[dict[str, Tensor], Tensor]:
    """What the model reads of B prompts with their answers (ids), and the labels (B, T): IGNORE but for the answers."""
    tok = model.tokenizer
    assert tok is not None
    if model.config.family == "encoder-decoder":
        inputs = {
            "tokens": pad([[tok.bos, *answer[:-1]] for answer in answers], tok.pad),
            "source": pad(prompts, tok.pad),
            "source_keep": pad([[1] * len(p) for p in prompts]).bool(),
        }
        return inputs, pad(answers, IGNORE)
    rows = list(zip(prompts, answers, strict=True))  # padded on the right, where nothing sees the padding
    tokens = pad([[*prompt, *answer][:-1] for prompt, answer in rows], tok.pad)
    return {"tokens": tokens}, pad([[IGNORE] * (len(prompt) - 1) + answer for prompt, answer in rows], IGNORE)


def token_rewards(score: Tensor, kl: Tensor, mask: Tensor, beta: float) -> Tensor:
    """r_t = -β KL_t, and the answer's score on top at its last token: (B,), (B, T), (B, T) -> (B, T)."""
    rewards = -beta * kl * mask
    last = mask.size(1) - 1 - mask.flip(1).int().argmax(1)  # argmax: the first True from behind
    return rewards.scatter_add(1, last[:, None], score[:, None].to(rewards))


def kl_of_answers(logp: Tensor, reference: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Of each answer, (B,): its distance from the reference in nats, by `losses.kl_estimates`, and its `length`.

    All are (B, T). "kl" is k1 summed over the answer's tokens, "k2" and "k3" are the others.
    """
    estimates = zip(("kl", "k2", "k3"), kl_estimates(logp, reference), strict=True)
    return {name: (k * mask).sum(1) for name, k in estimates} | {"length": mask.sum(1).float()}


def advantages_of(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float = 1.0, smoothing: float = 0.95
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016), rows of T tokens: all (B, T) -> (B, T).

        δ_t = r_t + γ V_{t+1} - V_t        A_t = δ_t + γ λ A_{t+1}

    After a row's last token both V and A are 0: the text is over. γ is `discount`, λ is `smoothing`.
    """
    rewards, values = rewards * mask, values * mask
    ahead, value = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    found = torch.zeros_like(rewards)
    for t in reversed(range(rewards.size(1))):
        ahead = (rewards[:, t] + discount * value - values[:, t] + discount * smoothing * ahead) * mask[:, t]
        value, found[:, t] = values[:, t], ahead
    return found


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Variance 1 over what the mask keeps, and mean 0 if `shift_mean`; (B, T) -> (B, T), 0 elsewhere."""
    mean = mean_over(values, mask)
    variance = mean_over((values - mean).square(), mask)
    scaled = (values - mean) * (variance + 1e-8).rsqrt()
    return (scaled if shift_mean else scaled + mean) * mask


def adapted(beta: float, kl: float, target: float, answers: int, horizon: int) -> float:
    """The price of KL after a rollout of so many answers (Ziegler et al. 2019, section 2.2), KL in nats an answer.

    β ← β (1 + clip(KL/target - 1, ±0.2) n / horizon)
    """
    return beta * (1 + min(0.2, max(-0.2, kl / target - 1)) * answers / horizon)

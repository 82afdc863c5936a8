"""What a model wrote to its prompts: as those who score it see it, and as those who learn from it feed it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .batch import pad
from .losses import IGNORE

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

    @property
    def mask(self) -> Tensor:
        """(B, T), True where `labels` and the log-probabilities are those of a response's token."""
        return self.labels != IGNORE


def rollout(model: Transformer, prompts: Sequence[list[int]], **settings: Any) -> Rollout:
    """Let the model answer B prompts, ids as `as_prompt` makes them, and line its answers up for a second forward pass.

    `settings` are those of `generate`; sampling at temperature 1 unless told otherwise.
    """
    from .generate import respond

    responses = respond(model, prompts, **({"temperature": 1.0} | settings))
    answers = [t[m].tolist() for t, m in zip(responses.tokens, responses.mask, strict=True)]
    device, tok = responses.tokens.device, model.tokenizer
    assert tok is not None  # `respond` has refused a model without one
    if model.config.family == "encoder-decoder":
        inputs = {
            "tokens": pad([[tok.bos, *answer[:-1]] for answer in answers], tok.pad),
            "source": pad(prompts, tok.pad),
            "source_keep": pad([[1] * len(p) for p in prompts]).bool(),
        }
        labels = pad(answers, IGNORE)
    else:  # padded on the right, where nothing sees the padding
        rows = list(zip(prompts, answers, strict=True))
        inputs = {"tokens": pad([[*prompt, *answer][:-1] for prompt, answer in rows], tok.pad)}
        labels = pad([[IGNORE] * (len(prompt) - 1) + answer for prompt, answer in rows], IGNORE)
    return Rollout({k: v.to(device) for k, v in inputs.items()}, responses, labels.to(device))

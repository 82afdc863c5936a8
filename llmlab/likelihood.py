"""How likely a model, as it is or as it was, finds an answer after a prompt: log p(answer | prompt)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .batch import by_length
from .generate import as_prompt, evaluating
from .model import Transformer
from .precision import computing
from .rollout import lined_up
from .surgery import swapped


def token_logprobs(
    model: Transformer,
    inputs: Mapping[str, Tensor],
    labels: Tensor,
    precision: str = "fp32",
    temperature: float = 1.0,
    was: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """log p of each label, (B, T) -> (B, T), 0 where it is ignored, in the numbers that a step computes with.

    `was` holds values of parameters to use in place of the model's own: of a reference, the `snapshot`.
    """
    device = next(model.parameters()).device
    with swapped(model, dict(was or {})), computing(model, precision):
        output = model(**{name: t.to(device) for name, t in inputs.items()})
        return model.logprobs(output, labels.to(device), temperature)


def log_likelihood(
    model: Transformer, prompts: Sequence[str] | Sequence[list[int]], answers: Sequence[str], batch_size: int = 128
) -> Tensor:
    """log p(answer | prompt) = Σ_t log p(a_t | prompt, a_1 … a_{t-1}) in nats, for B of each: (B,).

    Prompts are texts or ids. The answer's end mark is not counted, so that "The" is likelier than "The end". What
    begins a word in the middle of a text has its space: log_likelihood(model, ["Ada works as a"], [" nurse"]).
    ValueError for an encoder, which writes nothing, a model without a tokenizer, and a text longer than the context.
    """
    tok = model.tokenizer
    if model.decoder is None or tok is None:
        raise ValueError("log p(answer | prompt) needs a model that writes text: a decoder or an encoder-decoder")
    asked = [as_prompt(model, p) if isinstance(p, str) else p for p in prompts]
    said, device = tok.encode_all(answers), next(model.parameters()).device

    def answer(rows: list[int]) -> list[float]:
        inputs, labels = lined_up(model, [asked[i] for i in rows], [said[i] for i in rows])
        return token_logprobs(model, inputs, labels).double().sum(-1).tolist()

    with evaluating(model):
        lengths = [len(x) + len(y) for x, y in zip(asked, said, strict=True)]
        found = by_length(lengths, batch_size, answer)
    return torch.tensor(found, device=device)

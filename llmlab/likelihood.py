"""How likely a model finds an answer after a prompt: log p(answer | prompt)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .batch import by_length
from .generate import as_prompt, evaluating
from .model import Transformer
from .rollout import lined_up


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
        output = model(**{name: t.to(device) for name, t in inputs.items()})
        return model.logprobs(output, labels.to(device)).double().sum(-1).tolist()

    with evaluating(model):
        lengths = [len(x) + len(y) for x, y in zip(asked, said, strict=True)]
        found = by_length(lengths, batch_size, answer)
    return torch.tensor(found, device=device)

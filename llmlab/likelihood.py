"""How likely a model finds an answer after a prompt: log p(answer | prompt)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .batch import pad
from .generate import as_prompt, evaluating
from .losses import IGNORE
from .model import Transformer


def log_likelihood(model: Transformer, prompts: Sequence[str], answers: Sequence[str], batch_size: int = 128) -> Tensor:
    """log p(answer | prompt) = Σ_t log p(a_t | prompt, a_1 … a_{t-1}) in nats, for B of each: (B,).

    The answer's end mark is not counted, so that "The" is likelier than "The end". What begins a word in the middle of
    a text has its space: log_likelihood(model, ["Ada works as a"], [" nurse"]). ValueError for an encoder, which
    writes nothing, a model without a tokenizer, and a text longer than the context.
    """
    tok = model.tokenizer
    if model.decoder is None or tok is None:
        raise ValueError("log p(answer | prompt) needs a model that writes text: a decoder or an encoder-decoder")
    asked, said = [as_prompt(model, p) for p in prompts], tok.encode_all(answers)
    device = next(model.parameters()).device
    found = []
    for i in range(0, len(asked), batch_size):
        rows = list(zip(asked[i : i + batch_size], said[i : i + batch_size], strict=True))
        if model.encoder is None:  # padded on the right, where nothing sees the padding
            inputs = {"tokens": pad([[*x, *y][:-1] for x, y in rows], tok.pad)}  # (B, T)
            labels = pad([[IGNORE] * (len(x) - 1) + y for x, y in rows], IGNORE)  # (B, T)
        else:
            sources = [x for x, _ in rows]
            inputs = {"tokens": pad([[tok.bos, *y[:-1]] for _, y in rows], tok.pad), "source": pad(sources, tok.pad)}
            inputs["source_keep"] = pad([[1] * len(x) for x in sources]).bool()
            labels = pad([y for _, y in rows], IGNORE)
        with evaluating(model):
            output = model(**{name: t.to(device) for name, t in inputs.items()})
            found.append(model.logprobs(output, labels.to(device)).sum(-1))
    return torch.cat(found) if found else torch.zeros(0)

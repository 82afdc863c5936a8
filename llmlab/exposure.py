"""How far a model has learnt a secret by heart: the exposure of a canary (Carlini et al. 2019, The Secret Sharer).

    exposure(s) = log₂ |R| - log₂ rank(s)

R is all that the secret could have been, and rank(s) the secret's place when R is sorted by how likely the model finds
each. One bit of exposure halves what an attacker has to guess. A secret that was never in the text has a rank by
chance: 1.44 bits on average (1 / ln 2), log₂ |R| at most.

1. R is small enough to be scored whole. The paper estimates the rank by sampling where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import NamedTuple

import torch
from torch import Tensor

from .batch import pad
from .generate import as_prompt, evaluating
from .model import Transformer


class Exposure(NamedTuple):
    """`bits` of exposure; the secret's `rank`, 1 if it is the likeliest; and `best`, the likeliest candidate."""

    bits: float
    rank: int
    best: str


def exposure(model: Transformer, prompt: str, secret: str, candidates: Sequence[str]) -> Exposure:
    """Exposure of `secret` after `prompt` among all `candidates`. ValueError if it is not one of them."""
    if secret not in candidates:
        raise ValueError(f"the secret {secret!r} is not among the {len(candidates)} candidates")
    scores = candidate_scores(model, prompt, candidates)
    rank = 1 + int((scores > scores[candidates.index(secret)]).sum())
    return Exposure(log2(len(candidates)) - log2(rank), rank, candidates[int(scores.argmax())])


def candidate_scores(model: Transformer, prompt: str, candidates: Sequence[str], batch_size: int = 256) -> Tensor:
    """log p(candidate | prompt) in nats for each of N candidates, (N,).

    Candidates that differ in their last token alone share one row: 10,000 numbers of four digits are 1,000 rows.
    ValueError for a model that is no decoder, and for an empty candidate.
    """
    tok = model.tokenizer
    if model.config.family != "decoder" or tok is None:
        raise ValueError("candidates are scored by a decoder with a tokenizer")
    before, ids = as_prompt(model, prompt), tok.encode_all(candidates)
    if not all(ids):
        raise ValueError("a candidate is empty: each needs at least one token")
    device = next(model.parameters()).device
    stems: dict[tuple[int, ...], int] = {}
    row = torch.tensor([stems.setdefault(tuple(i[:-1]), len(stems)) for i in ids])  # (N,)
    stem_rows, scores = list(stems), torch.zeros(len(ids))
    for first in range(0, len(stem_rows), batch_size):
        chunk = stem_rows[first : first + batch_size]
        mine = ((row >= first) & (row < first + batch_size)).nonzero().flatten()  # the candidates of these rows
        tokens = pad([[*before, *stem] for stem in chunk], tok.pad).to(device)  # (B, S)
        with evaluating(model):
            asked = torch.zeros_like(tokens, dtype=torch.bool)
            asked[:, len(before) - 1 :] = True
            logits = model.logits(model(tokens), asked).view(len(chunk), -1, model.config.vocab_size)  # (B, T, V)
            logp = logits.log_softmax(-1).cpu()
        said = [ids[i] for i in mine.tolist()]
        wanted, real = pad(said), pad([[1] * len(i) for i in said]).bool()  # (n, T)
        there = logp[row[mine] - first, : wanted.size(1)]  # (n, T, V)
        scores[mine] = (there.gather(-1, wanted[..., None]).squeeze(-1) * real).sum(-1)
    return scores

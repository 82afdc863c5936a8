"""Filling blanks: what an encoder expects where a word is missing (Devlin et al. 2018, section 3.1, put to use)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .batch import pad
from .generate import evaluating
from .model import Transformer
from .tokenizer import BLANK

__all__ = ["BLANK", "Guess", "fill"]


class Guess(NamedTuple):
    """A token, as text, and its probability."""

    text: str
    probability: float


def fill(model: Transformer, texts: Sequence[str], best: int = 5) -> list[list[list[Guess]]]:
    """The `best` guesses for each blank of each text, likeliest first: texts -> blanks -> guesses.

        fill(load("tiny-bert"), ["Olga has a ___ called Biscuit."])[0][0][0]    # Guess("pony", 0.11)

    A blank, three underscores, is one token; probabilities are shares among ordinary tokens, the special ones left
    out. ValueError for a model that is no encoder or has no mask, a text without a blank or one beyond the context.
    """
    tok = model.tokenizer
    if model.config.family != "encoder":
        raise ValueError("only an encoder fills blanks so: let a decoder, or an encoder-decoder, write (`generate`)")
    if tok is None:
        raise ValueError("this model has no tokenizer, so it reads no text: give it one, model.tokenizer = ...")
    if tok.mask == tok.eos:  # as in a tokenizer from elsewhere that has no mask
        raise ValueError("this model's tokenizer has no mask, so nothing can be hidden from it")
    if best < 1:
        raise ValueError(f"best = {best}: must be at least 1")
    ids: list[list[int]] = []
    for text in texts:
        if BLANK not in text:
            raise ValueError(f"nothing to fill in {text[:40]!r}: put {BLANK} where a word is missing")
        first, *rest = tok.encode_all(text.split(BLANK))
        ids.append([tok.bos, *first, *(i for part in rest for i in (tok.mask, *part)), tok.eos])
        if len(ids[-1]) > model.room:
            raise ValueError(f"a text of {len(ids[-1])} tokens is beyond the context of {model.room}")
    if not ids:
        return []
    tokens = pad(ids, tok.pad).to(next(model.parameters()).device)  # (B, T)
    keep = pad([[1] * len(row) for row in ids]).bool().to(tokens.device)
    where = (tokens == tok.mask) & keep
    with evaluating(model), torch.inference_mode():
        logits = model.logits(model(tokens, keep=keep), where)  # (N, V)
    ordinary = logits.masked_fill(tok.special.to(logits.device), float("-inf"))
    found = ordinary.softmax(-1).topk(min(best, logits.size(-1)))
    lines = iter(zip(found.indices.tolist(), found.values.tolist(), strict=True))

    def guesses(ids: list[int], chances: list[float]) -> list[Guess]:
        return [Guess(text.strip(), p) for text, p in zip(tok.pieces(ids), chances, strict=True)]

    return [[guesses(*next(lines)) for _ in range(count)] for count in where.sum(1).tolist()]

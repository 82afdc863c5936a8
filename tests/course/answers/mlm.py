"""Answers to the exercises of lesson 22."""

from __future__ import annotations

import math

import torch


def rows(model, text):
    tok = model.tokenizer
    ids = tok.encode(text)
    return tok, ids, [tok.bos, *ids, tok.eos]


def logp(model, tokens, place, wanted):
    with torch.no_grad():
        return model.logits(model(torch.tensor([tokens])))[0, place].log_softmax(-1)[wanted]


def hidden_one_by_one(model, tokens, places):
    """Sum of log p of the tokens at `places`, each hidden alone."""
    mask = model.tokenizer.mask
    return sum(logp(model, [*tokens[:t], mask, *tokens[t + 1 :]], t, tokens[t]) for t in places)


def score(model, text):
    _, ids, whole = rows(model, text)
    return hidden_one_by_one(model, whole, range(1, len(ids) + 1))


def unhidden(model, text):
    _, ids, whole = rows(model, text)
    return sum(logp(model, whole, t, wanted) for t, wanted in enumerate(ids, 1))


def at_once(model, text):
    tok, ids, whole = rows(model, text)
    hidden = [whole[0], *[tok.mask] * len(ids), whole[-1]]
    return sum(logp(model, hidden, t, wanted) for t, wanted in enumerate(ids, 1))


def never_put_back(model, text):
    tok, ids, whole = rows(model, text)
    total = 0.0
    for t, wanted in enumerate(ids, 1):
        whole[t] = tok.mask
        total += logp(model, whole, t, wanted)
    return total


def left_only(model, text):
    tok, ids, whole = rows(model, text)
    return sum(logp(model, [*whole[:t], tok.mask], t, wanted) for t, wanted in enumerate(ids, 1))


def marks_too(model, text):
    whole = rows(model, text)[2]
    return hidden_one_by_one(model, whole, range(len(whole)))


def no_marks(model, text):
    ids = rows(model, text)[1]
    return hidden_one_by_one(model, ids, range(len(ids)))


def mean(model, text):
    return score(model, text) / len(model.tokenizer.encode(text))


def equal_tokens_hidden_too(model, text):
    tok, ids, whole = rows(model, text)
    return sum(logp(model, [tok.mask if i == w else i for i in whole], t, w) for t, w in enumerate(ids, 1))


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "mlm.1": (128 * 0.15 * 0.8, [128 * 0.15, 15, 102.4, 17.28, 0.12, 16, "15.36"]),
    "mlm.2": ([81, 10, 9], [[80, 10, 10], [81, 9, 10], [81, 10, 10], [90, 5, 5], [81, 9.5, 9.5], [81, 19], 81]),
    "mlm.3": (
        score,
        [
            unhidden,
            at_once,
            never_put_back,
            left_only,
            marks_too,
            no_marks,
            mean,
            equal_tokens_hidden_too,
            lambda model, text: -score(model, text),
            lambda model, text: score(model, text) / math.log(2),
            lambda model, text: math.exp(score(model, text)),
            lambda text: 0.0,
            score.__name__,
        ],
    ),
}

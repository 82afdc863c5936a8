"""Answers to the exercises of lesson 21."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def shift(ids, pad):
    inputs, labels = ids[:, :-1], ids[:, 1:].clone()
    labels[labels == pad] = -100
    return inputs, labels


def unshifted(ids, pad):
    return ids[:, :-1], ids[:, :-1].masked_fill(ids[:, :-1] == pad, -100)


def padding_is_learnt(ids, pad):
    return ids[:, :-1], ids[:, 1:]


def masked_by_inputs(ids, pad):
    """The last real token keeps its label, which is padding."""
    return ids[:, :-1], ids[:, 1:].masked_fill(ids[:, :-1] == pad, -100)


def without_a_copy(ids, pad):
    inputs, labels = ids[:, :-1], ids[:, 1:]
    labels[labels == pad] = -100
    return inputs, labels


def backwards(ids, pad):
    return ids[:, 1:], ids[:, :-1].masked_fill(ids[:, :-1] == pad, -100)


def twice(ids, pad):
    return ids[:, :-2], ids[:, 2:].masked_fill(ids[:, 2:] == pad, -100)


def too_long(ids, pad):
    labels = ids.roll(-1, 1)
    labels[:, -1] = -100
    return ids, labels.masked_fill(labels == pad, -100)


def zero_is_padding(ids, pad):
    return ids[:, :-1], ids[:, 1:].masked_fill(ids[:, 1:] == 0, -100)


def only_labels(ids, pad):
    return shift(ids, pad)[1]


def loss(logits, tokens, pad):
    labels = tokens[:, 1:]
    nats = -logits[:, :-1].log_softmax(-1).gather(-1, labels[..., None]).squeeze(-1)
    return nats[labels != pad].mean()


def off_by_one(logits, tokens, pad):
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), ignore_index=pad)


def the_other_way(logits, tokens, pad):
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), tokens[:, :-1].flatten(), ignore_index=pad)


def over_padding(logits, tokens, pad):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def divided_by_all(logits, tokens, pad):
    summed = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=pad, reduction="sum")
    return summed / tokens[:, 1:].numel()


def row_by_row(logits, tokens, pad):
    return torch.stack([loss(lo[None], t[None], pad) for lo, t in zip(logits, tokens, strict=True)]).mean()


def summed(logits, tokens, pad):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=pad, reduction="sum")


def negative(logits, tokens, pad):
    return -loss(logits, tokens, pad)


def overflows(logits, tokens, pad):
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    labels = tokens[:, 1:]
    return -p[:, :-1].gather(-1, labels[..., None]).squeeze(-1).log()[labels != pad].mean()


def unreduced(logits, tokens, pad):
    return -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)


def perplexity(logits, tokens, pad):
    return loss(logits, tokens, pad).exp()


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "clm.1": (
        2.1 / 4.2 / math.log(2),
        [0.5, 2.1 / math.log(2), 0.5 * math.log(2), 2.1 * 4.2 / math.log(2), math.exp(2.1) / 4.2, 0.74, "0.72"],
    ),
    "clm.2": (
        shift,
        [
            *(unshifted, padding_is_learnt, masked_by_inputs, without_a_copy, backwards, twice, too_long),
            *(zero_is_padding, only_labels, "shift"),
        ],
    ),
    "clm.3": (
        loss,
        [
            *(off_by_one, over_padding, row_by_row, divided_by_all, the_other_way, summed, negative, overflows),
            *(unreduced, perplexity, 0.5),
        ],
    ),
}

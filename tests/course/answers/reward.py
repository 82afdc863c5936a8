"""Answers to the exercises of lesson 51."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def last_real(scores, keep):
    places = torch.arange(keep.size(1)).expand_as(keep)
    last = places.masked_fill(~keep, -1).max(1).values
    return scores.gather(1, last[:, None]).squeeze(1)


def by_count(scores, keep):
    return scores[torch.arange(len(scores)), keep.sum(1) - 1]


def first_pad(scores, keep):
    return scores[torch.arange(len(scores)), keep.int().argmin(1) - 1]


def places(scores, keep):
    return keep.size(1) - 1 - keep.flip(1).int().argmax(1)


def loss(scores, prompts):
    means = []
    for pairs in prompts:
        better, worse = map(list, zip(*pairs, strict=True))
        means.append(-F.logsigmoid(scores[better] - scores[worse]).mean())
    return torch.stack(means).mean()


def over_all_pairs(scores, prompts):
    better, worse = map(list, zip(*(pair for pairs in prompts for pair in pairs), strict=True))
    return -F.logsigmoid(scores[better] - scores[worse]).mean()


def added_up(scores, prompts):
    return sum(-F.logsigmoid(scores[b] - scores[w]) for pairs in prompts for b, w in pairs)


def turned(scores, prompts):
    return loss(-scores, prompts)


def rounds(scores, prompts):
    return torch.stack(
        [torch.stack([-torch.log(torch.sigmoid(scores[b] - scores[w])) for b, w in p]).mean() for p in prompts]
    ).mean()


def absolute(scores, prompts):
    return torch.stack([torch.stack([-F.logsigmoid(scores[b]) for b, w in p]).mean() for p in prompts]).mean()


def in_bits(scores, prompts):
    return loss(scores, prompts) / math.log(2)


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "reward.1": (
        1 / (1 + math.exp(1.5)),
        [1 / (1 + math.exp(-1.5)), 1 / 3.5, 2.5 / 3.5, -1.5, 18.2, "0.18", math.exp(-1.5), 0.5],
    ),
    "reward.2": (
        last_real,
        [
            lambda scores, keep: scores[:, -1],
            by_count,
            first_pad,
            places,
            lambda scores, keep: (scores * keep).sum(1) / keep.sum(1),
            lambda scores, keep: scores.max(1).values,
            lambda scores: scores[:, -1],
            lambda scores, keep: last_real(scores, keep)[:, None],
            0,
        ],
    ),
    "reward.3": (
        loss,
        [
            over_all_pairs,
            added_up,
            turned,
            lambda scores, prompts: -loss(scores, prompts),
            rounds,
            absolute,
            in_bits,
            lambda scores, prompts: loss(scores, prompts).item(),
            lambda scores, prompts: None,
            lambda scores: 0.0,
            math.log(2),
        ],
    ),
}

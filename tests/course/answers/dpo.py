"""Answers to the exercises of lesson 56."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import logsigmoid


def soft(margin):
    return math.log1p(math.exp(-margin))


def answer_logp(logp, labels):
    return logp.masked_fill(labels == -100, 0.0).sum(1)


def mean_logp(logp, labels):
    return answer_logp(logp, labels) / (labels != -100).sum(1)


def with_prompt(logp, labels):
    return logp.sum(1)


def without_end(logp, labels):
    return answer_logp(logp, labels.masked_fill(labels == 2, -100))


def negative(logp, labels):
    return -answer_logp(logp, labels)


def total(logp, labels):
    return answer_logp(logp, labels).sum()


def dpo_loss(chosen, rejected, chosen_ref, rejected_ref, beta):
    return -logsigmoid(beta * ((chosen - chosen_ref) - (rejected - rejected_ref))).mean()


def without_reference(chosen, rejected, chosen_ref, rejected_ref, beta):
    return -logsigmoid(beta * (chosen - rejected)).mean()


def flipped(chosen, rejected, chosen_ref, rejected_ref, beta):
    return dpo_loss(rejected, chosen, rejected_ref, chosen_ref, beta)


def without_beta(*given):
    return dpo_loss(*given[:4], 1.0)


def mean_first(chosen, rejected, chosen_ref, rejected_ref, beta):
    return -logsigmoid(beta * ((chosen - chosen_ref) - (rejected - rejected_ref)).mean())


def summed(*given):
    return dpo_loss(*given) * len(given[0])


def unstable(chosen, rejected, chosen_ref, rejected_ref, beta):
    return -torch.sigmoid(beta * ((chosen - chosen_ref) - (rejected - rejected_ref))).log().mean()


def detached(chosen, *given):
    return dpo_loss(chosen.detach(), *given)


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "dpo.1": (
        soft(0.5),
        [soft(1.0), soft(5.0), soft(-0.5), soft(-0.1), 1 / (1 + math.exp(-0.5)), 0.5, math.log(2), "0.474"],
    ),
    "dpo.2": (answer_logp, [mean_logp, with_prompt, without_end, negative, total, 1.0]),
    "dpo.3": (
        dpo_loss,
        [without_reference, flipped, without_beta, mean_first, summed, unstable, detached, lambda *given: 0.5],
    ),
}

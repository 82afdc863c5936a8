"""Answers to the exercises of lesson 53."""

from __future__ import annotations

import math


def best(said, scores):
    return [answers[max(range(len(s)), key=s.__getitem__)] for answers, s in zip(said, scores, strict=True)]


def worst(said, scores):
    return [answers[min(range(len(s)), key=s.__getitem__)] for answers, s in zip(said, scores, strict=True)]


def places(said, scores):
    return [max(range(len(s)), key=s.__getitem__) for s in scores]


def last_of_equals(said, scores):
    return [max(zip(s, range(len(s)), a, strict=True))[2] for a, s in zip(said, scores, strict=True)]


def never_below_zero(said, scores):
    found = []
    for answers, s in zip(said, scores, strict=True):
        top, chosen = 0.0, answers[0]
        for text, score in zip(answers, s, strict=True):
            if score > top:
                top, chosen = score, text
        found.append(chosen)
    return found


def worth(score, logp, reference, beta):
    rewards = -beta * (logp - reference)
    rewards[-1] += score
    return rewards


def everywhere(score, logp, reference, beta):
    return -beta * (logp - reference) + score


def flipped(score, logp, reference, beta):
    rewards = beta * (logp - reference)
    rewards[-1] += score
    return rewards


def unscaled(score, logp, reference, beta):
    rewards = reference - logp
    rewards[-1] += score
    return rewards


def summed(score, logp, reference, beta):
    return score - beta * (logp - reference).sum()


def in_place(score, logp, reference, beta):
    logp.sub_(reference).mul_(-beta)
    logp[-1] += score
    return logp


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "rlhf.1": (
        math.log(16) - 15 / 16,
        [math.log(16), math.log2(16), math.log2(16) - 15 / 16, math.log(16) - 1 / 16, 0, "far"],
    ),
    "rlhf.2": (best, [worst, places, last_of_equals, never_below_zero, len, "b"]),
    "rlhf.3": (
        worth,
        [everywhere, lambda *given: -given[3] * (given[1] - given[2]), flipped, unscaled, summed, in_place],
    ),
}

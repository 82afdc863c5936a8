"""Answers to the exercises of lesson 52."""

from __future__ import annotations

import torch


def rewards(score, logp, reference, mask, beta):
    found = -beta * (logp - reference) * mask
    found[torch.arange(len(mask)), mask.sum(1) - 1] += score
    return found


def at_the_end_of_the_batch(score, logp, reference, mask, beta):
    found = -beta * (logp - reference) * mask
    found[:, -1] += score
    return found


def on_every_token(score, logp, reference, mask, beta):
    return (score[:, None] - beta * (logp - reference)) * mask


def turned_round(score, logp, reference, mask, beta):
    return rewards(score, logp, reference, mask, -beta)


def unmasked(score, logp, reference, mask, beta):
    found = -beta * (logp - reference)
    found[torch.arange(len(mask)), mask.sum(1) - 1] += score
    return found


def instead(score, logp, reference, mask, beta):
    """The score in place of the last token's KL rather than on top of it."""
    found = -beta * (logp - reference) * mask
    found[torch.arange(len(mask)), mask.sum(1) - 1] = score
    return found


def summed(score, logp, reference, mask, beta):
    return score - beta * ((logp - reference) * mask).sum(1)


def clipped_loss(logp, old, advantages, mask, clip):
    ratio = (logp - old).exp()
    losses = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))
    return (losses * mask).sum() / mask.sum()


def both(logp, old, advantages, mask, clip, choose):
    ratio = (logp - old).exp()
    losses = choose(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))
    return (losses * mask).sum() / mask.sum()


def clipped_alone(*given):
    return both(*given, lambda a, b: b)


def unclipped(*given):
    return both(*given, lambda a, b: a)


def optimistic(*given):
    return both(*given, torch.minimum)


def rising(*given):
    return -clipped_loss(*given)


def with_padding(logp, old, advantages, mask, clip):
    return clipped_loss(logp, old, advantages, torch.ones_like(mask), clip)


def mean_of_means(logp, old, advantages, mask, clip):
    ratio = (logp - old).exp()
    losses = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))
    return ((losses * mask).sum(1) / mask.sum(1)).mean()


def difference(logp, old, advantages, mask, clip):
    """The difference of the logarithms taken for the ratio."""
    return clipped_loss((1 + logp - old).clamp(min=1e-6).log(), old * 0, advantages, mask, clip)


def detached(logp, *given):
    return clipped_loss(logp.detach(), *given)


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "ppo.1": (0.375, [0.8, 0.3, 0.55, 0.1, 0.575, -0.2, 0.65, "0.375"]),
    "ppo.2": (
        rewards,
        [at_the_end_of_the_batch, on_every_token, turned_round, unmasked, instead, summed, lambda score: score, 1.0],
    ),
    "ppo.3": (
        clipped_loss,
        [
            clipped_alone,
            unclipped,
            optimistic,
            rising,
            with_padding,
            mean_of_means,
            difference,
            detached,
            torch.tensor(0.0),
        ],
    ),
}

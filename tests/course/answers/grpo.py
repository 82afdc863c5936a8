"""Answers to the exercises of lesson 57."""

from __future__ import annotations

import torch


def advantages(score, group):
    rows = score.view(-1, group)
    std = rows.std(1, correction=0, keepdim=True)
    above = rows - rows.mean(1, keepdim=True)
    return torch.where(std > 0, above / std.where(std > 0, 1.0), 0.0).flatten()


def of_all(score, group):
    return (score - score.mean()) / score.std(correction=0)


def across(score, group):
    """The first answers to all prompts taken for a group."""
    return advantages(score.view(group, -1).T.flatten(), group).view(-1, group).T.flatten()


def unscaled(score, group):
    rows = score.view(-1, group)
    return (rows - rows.mean(1, keepdim=True)).flatten()


def unbiased(score, group):
    rows = score.view(-1, group)
    return ((rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-8)).flatten()


def not_a_number(score, group):
    rows = score.view(-1, group)
    return ((rows - rows.mean(1, keepdim=True)) / rows.std(1, correction=0, keepdim=True)).flatten()


def in_rows(score, group):
    return advantages(score, group).view(-1, group)


def parts(logp, old, reference, advantages, clip):
    ratio, r = (logp - old).exp(), (reference - logp).exp()
    A = advantages[:, None]
    return torch.maximum(-A * ratio, -A * ratio.clamp(1 - clip, 1 + clip)), r - 1 - r.log()


def mean_of_means(values, mask):
    return ((values * mask).sum(1) / mask.sum(1)).mean()


def grpo_loss(logp, old, reference, advantages, mask, clip, beta):
    policy, kl = parts(logp, old, reference, advantages, clip)
    return mean_of_means(policy + beta * kl, mask)


def over_all_tokens(logp, old, reference, advantages, mask, clip, beta):
    policy, kl = parts(logp, old, reference, advantages, clip)
    return ((policy + beta * kl) * mask).sum() / mask.sum()


def rewarded_for_distance(logp, old, reference, advantages, mask, clip, beta):
    return grpo_loss(logp, old, reference, advantages, mask, clip, -beta)


def by_k1(logp, old, reference, advantages, mask, clip, beta):
    policy, _ = parts(logp, old, reference, advantages, clip)
    return mean_of_means(policy + beta * (logp - reference), mask)


def upside_down(logp, old, reference, advantages, mask, clip, beta):
    policy, _ = parts(logp, old, reference, advantages, clip)
    return mean_of_means(policy + beta * ((logp - reference).exp() - 1 - logp + reference), mask)


def detached(logp, *given):
    return grpo_loss(logp.detach(), *given)


def unclipped(logp, old, reference, advantages, mask, clip, beta):
    return grpo_loss(logp, old, reference, advantages, mask, 1e9, beta)


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "grpo.1": (3**0.5, [0.75, 1.5, 4.0, -0.57735, 3.0, "1.73"]),
    "grpo.2": (advantages, [of_all, across, unscaled, unbiased, not_a_number, in_rows, lambda score: score]),
    "grpo.3": (
        grpo_loss,
        [over_all_tokens, rewarded_for_distance, by_k1, upside_down, detached, unclipped, torch.tensor(0.0)],
    ),
}

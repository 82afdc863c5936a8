"""Answers to the exercises of lesson 32."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

IGNORE = -100


def soft_loss(z, teacher, T):
    log_p, log_q = (z / T).log_softmax(-1), (teacher / T).log_softmax(-1)
    return T**2 * (log_q.exp() * (log_q - log_p)).sum(-1).mean()


def by_library(z, teacher, T):
    log_p, log_q = (z / T).log_softmax(-1), (teacher / T).log_softmax(-1)
    return F.kl_div(log_p, log_q, log_target=True, reduction="mean") * T**2  # over the vocabulary, too


def fragile(z, teacher, T):
    p, q = (z / T).exp(), (teacher / T).softmax(-1)
    p = p / p.sum(-1, keepdim=True)
    return T**2 * (q * (q.log() - p.log())).sum(-1).mean()


def cross_entropy(z, teacher, T):
    return -(T**2) * ((teacher / T).softmax(-1) * (z / T).log_softmax(-1)).sum(-1).mean()


def loss(z, labels, teacher, alpha, T):
    where = labels != IGNORE
    hard = F.cross_entropy(z[where], labels[where])
    return (1 - alpha) * hard + alpha * soft_loss(z[where], teacher[where].detach(), T)


def everywhere(z, labels, teacher, alpha, T):
    hard = F.cross_entropy(z.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
    return (1 - alpha) * hard + alpha * soft_loss(z.flatten(0, 1), teacher.flatten(0, 1).detach(), T)


def cooled(z, labels, teacher, alpha, T):
    where = labels != IGNORE
    hard = F.cross_entropy(z[where] / T, labels[where])
    return (1 - alpha) * hard + alpha * soft_loss(z[where], teacher[where].detach(), T)


def teacher_learns(z, labels, teacher, alpha, T):
    where = labels != IGNORE
    return (1 - alpha) * F.cross_entropy(z[where], labels[where]) + alpha * soft_loss(z[where], teacher[where], T)


def student_detached(z, labels, teacher, alpha, T):
    where = labels != IGNORE
    soft = soft_loss(z[where].detach(), teacher[where].detach(), T)
    return (1 - alpha) * F.cross_entropy(z[where], labels[where]) + alpha * soft


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "distillation.1": (3 / math.log(2), [2, 3, 3 / 2, math.log(2) / 3, 3 * math.log(2), "4.33", 1.5**2]),
    "distillation.2": (
        soft_loss,
        [
            lambda z, teacher, T: soft_loss(z, teacher, T) / T**2,
            lambda z, teacher, T: soft_loss(teacher, z, T),
            lambda z, teacher, T: soft_loss(z, teacher, T) / T,
            lambda z, teacher, T: soft_loss(z, teacher, T) * len(z),
            lambda z, teacher, T: T**2 * soft_loss(z, teacher / T, 1.0),
            lambda z, teacher, T: soft_loss(z, teacher, 1.0),
            by_library,
            cross_entropy,
            fragile,
            lambda z, teacher: soft_loss(z, teacher, 1.0),
            soft_loss(torch.ones(1, 2), torch.ones(1, 2), 1.0),
        ],
    ),
    "distillation.3": (
        loss,
        [
            everywhere,
            lambda z, labels, teacher, alpha, T: loss(z, labels, teacher, 1 - alpha, T),
            cooled,
            teacher_learns,
            student_detached,
            lambda z, labels, teacher, alpha, T: loss(z, labels, teacher, alpha, 1.0),
            lambda z, labels, teacher, alpha, T: loss(z, labels, teacher, alpha / T**2, T),
            lambda z, labels, teacher, alpha, T: loss(z, labels, teacher, alpha, T).detach(),
            lambda z, labels, teacher, alpha, T: loss(z, labels, teacher, 0.0, T),
            0.5,
        ],
    ),
}

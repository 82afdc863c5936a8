"""Exercises of lesson 32, distillation."""

from __future__ import annotations

import math
from typing import Any

from . import call, close, exercise, need, number

IGNORE = -100


@exercise("distillation.1", expects="a number")
def twice_as_likely(answer: Any) -> str:
    """Logits 6 and 3: exp(3 / T) = 2."""
    need(answer != 2, "at T = 2 the first is exp(3 / 2) times as likely, which is more than four times")
    need(answer != 3, "at T = 3 the first is e times as likely")
    number(answer, 3 / math.log(2), "the ratio of two probabilities is exp((6 - 3) / T); for which T is it 2?")
    return "exp(3 / T) = 2 at T = 3 / ln 2. At T = 1 the ratio is 20."


def _soft(z: Any, teacher: Any, T: float) -> Any:
    q, p = ((x / T).log_softmax(-1) for x in (teacher, z))
    return T**2 * (q.exp() * (q - p)).sum(-1).mean()


@exercise("distillation.2", expects="a function soft_loss(z, teacher, T)")
def soft_loss(answer: Any) -> str:
    """T² KL(q ‖ p), the mean over positions, and its gradient."""
    import torch

    draw = torch.Generator().manual_seed(0)
    for n, T in ((3, 1.0), (4, 2.0), (1, 5.0)):
        z, teacher = (3 * torch.randn(n, 7, generator=draw) for _ in "zt")
        got = call(answer, z, teacher, T, what="soft_loss")
        right = _soft(z, teacher, T)
        if isinstance(got, torch.Tensor) and got.shape == ():
            need(not torch.isclose(got, _soft(teacher, z, T)), "this is KL(p ‖ q): whose probabilities weigh the sum?")
            if T != 1:
                need(not torch.isclose(got, right / T**2), "the factor T² is missing")
                need(not torch.isclose(got, right / T), "the factor is T², not T")
            if n > 1:
                need(not torch.isclose(got, right * n), "this is the sum over positions: take their mean")
            need(not torch.isclose(got, right / 7), "this is the mean over the vocabulary too: sum over v")
        close(
            got,
            right,
            f"wrong for T = {T:g}: are both logits divided by T, and log q - log p weighed by q?",
            "soft_loss",
        )
        need(
            torch.isfinite(call(answer, 400 * z, teacher, T, what="soft_loss")),
            "large logits give inf or NaN: log_softmax",
        )
    return "Zero where student and teacher agree; its gradient by z is T (p - q), over the number of positions."


@exercise("distillation.3", expects="a function loss(z, labels, teacher, alpha, T)")
def whole_loss(answer: Any) -> str:
    """(1 - α) CE + α T² KL at the labelled positions alone, and a gradient for the student alone."""
    import torch
    from torch.nn import functional as F

    draw = torch.Generator().manual_seed(1)
    labels = torch.tensor([[IGNORE, 2, 4], [1, IGNORE, IGNORE]])
    where = labels != IGNORE
    for alpha, T in ((0.25, 2.0), (0.0, 3.0), (1.0, 1.0), (0.6, 4.0)):
        z, teacher = (2 * torch.randn(2, 3, 6, generator=draw) for _ in "zt")
        got = call(answer, z, labels, teacher, alpha, T, what="loss")
        hard, soft = F.cross_entropy(z[where], labels[where]), _soft(z[where], teacher[where], T)
        if isinstance(got, torch.Tensor) and got.shape == () and 0 < alpha < 1:
            same = lambda wrong: torch.isclose(got, wrong)  # noqa: B023, E731
            everywhere = (1 - alpha) * hard + alpha * _soft(z.flatten(0, 1), teacher.flatten(0, 1), T)
            need(not same(everywhere), "the divergence is a mean over all positions: only those with a label count")
            need(not same(alpha * hard + (1 - alpha) * soft), "α is the teacher's share, and here the label has it")
            need(not same((1 - alpha) * hard + alpha * soft / T**2), "the factor T² is missing")
            cooled = F.cross_entropy(z[where] / T, labels[where])
            need(not same((1 - alpha) * cooled + alpha * soft), "the label's term has no temperature: CE of z itself")
        right = (1 - alpha) * hard + alpha * soft
        close(got, right, f"wrong for α = {alpha:g} and T = {T:g}: check each term by itself", "loss")
    student, told = z.clone().requires_grad_(), teacher.clone().requires_grad_()
    found = answer(student, labels, told, 0.5, 2.0)
    need(found.requires_grad, "the loss has no gradient: is the student's part under no_grad or detached?")
    found.backward()
    need(told.grad is None or not told.grad.any(), "a gradient reaches the teacher: it is to stay as it is, detach it")
    mine = z.clone().requires_grad_()
    ((F.cross_entropy(mine[where], labels[where]) + _soft(mine[where], teacher[where], 2.0)) / 2).backward()
    close(student.grad, mine.grad, "the student's gradient is not the equation's: is a part of it detached?", "loss")
    return "With α = 0 it is the plain loss, and with α = 1 the labels only say where to look."

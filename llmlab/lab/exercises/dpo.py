"""Exercises of lesson 56, direct preference optimisation."""

from __future__ import annotations

import math
from typing import Any

from . import call, close, exercise, need, number


@exercise("dpo.1", expects="a number of nats")
def one_pair(answer: Any) -> str:
    """-log σ(β h), h = (-20 + 22) - (-30 + 27) = 5 and β = 0.1."""

    def loss(margin: float) -> float:
        return math.log1p(math.exp(-margin))

    wrong = {
        loss(5.0): "β is missing: h is multiplied with it",
        loss(1.0): "the reference is missing: of each log π the reference's is taken off first",
        loss(-0.5): "the sign of the margin: the chosen answer became likelier, the rejected one less likely",
        loss(-0.1): "two of the four were taken together with the wrong sign: h is a difference of two differences",
        1 / (1 + math.exp(-0.5)): "that is σ(β h), how sure the policy is; the loss is minus its logarithm",
        0.5: "that is β h, the margin; the loss is -log σ of it",
        math.log(2): "that is the loss of the first step, where π is still the reference",
    }
    for value, hint in wrong.items():
        near = isinstance(answer, int | float) and not isinstance(answer, bool) and abs(answer - value) < 2e-3
        need(not near, hint)
    number(answer, loss(0.5), "write h down first: 2 nats gained here, 3 lost there")
    return "h = 2 + 3 = 5, the margin is 0.5, and -log σ(0.5) = 0.474."


@exercise("dpo.2", expects="a function answer_logp(logp, labels)")
def answer_logp(answer: Any) -> str:
    """Σ log p over the tokens of each answer, where the label is not -100."""
    import torch

    draw = torch.Generator().manual_seed(0)
    labels = torch.tensor([[-100, -100, 7, 9, 2], [-100, 4, 2, -100, -100], [-100, -100, -100, -100, 2]])
    logp = -torch.rand(3, 5, generator=draw) - 0.1
    mask = labels != -100
    want = (logp * mask).sum(1)
    got = call(answer, logp.clone(), labels, what="answer_logp")
    if isinstance(got, torch.Tensor) and got.shape == want.shape:
        hints = {
            "that is the mean of each answer: DPO takes the sum, the logarithm of the whole answer's probability": want
            / mask.sum(1),
            "prompt and padding count: where the label is -100, nothing is predicted": logp.sum(1),
            "the end mark is left out: it is a token of the answer, the last one": want
            - logp.gather(1, _last(mask))[:, 0],
            "the sign is turned round: a logarithm of a probability is below 0": -want,
        }
        for hint, value in hints.items():
            need(not torch.allclose(got, value, atol=1e-5), hint)
    close(got, want, "one number for each row: the sum of log p where there is a label", "answer_logp")
    return "(B, T) becomes (B,): the log-probability of each whole answer, its end mark among its tokens."


def _last(mask: Any) -> Any:
    """The place of the last True of each row, (B, T) -> (B, 1)."""
    return mask.size(1) - 1 - mask.flip(1).int().argmax(1, keepdim=True)


@exercise("dpo.3", expects="a function dpo_loss(chosen, rejected, chosen_ref, rejected_ref, beta)")
def dpo_loss(answer: Any) -> str:
    """The mean over pairs of -log σ(β ((chosen - chosen_ref) - (rejected - rejected_ref)))."""
    import torch
    from torch.nn.functional import logsigmoid

    draw = torch.Generator().manual_seed(1)
    start = -30 * torch.rand(2, 4, generator=draw)
    one = call(answer, *start, *start, 0.1, what="dpo_loss")
    close(one, torch.tensor(math.log(2)), "where policy and reference agree, the loss is ln 2", "dpo_loss")
    for beta in (0.1, 0.5):
        w, l, w_ref, l_ref = -30 * torch.rand(4, 6, generator=draw)  # noqa: E741
        current = w.clone().requires_grad_()
        got = call(answer, current, l, w_ref, l_ref, beta, what="dpo_loss")
        h = (w - w_ref) - (l - l_ref)
        want = -logsigmoid(beta * h).mean()
        if isinstance(got, torch.Tensor) and got.dim() == 0:
            hints = {
                "the sign of h: the loss falls as the chosen answer becomes likelier": -logsigmoid(-beta * h).mean(),
                "β is missing: h is multiplied with it before σ": -logsigmoid(h).mean(),
                "the mean over pairs comes last, after -log σ of each": -logsigmoid(beta * h.mean()),
                "that is the sum over pairs; the mean is wanted": -logsigmoid(beta * h).sum(),
                "that is σ(β h) without its logarithm": -torch.sigmoid(beta * h).mean(),
            }
            for hint, value in hints.items():
                need(not torch.allclose(got.detach(), value, atol=1e-5), hint)
        close(got, want, "the loss is wrong: write h, then -log σ(β h), then the mean", "dpo_loss")
        need(got.requires_grad, "no gradient reaches log π of the chosen answer: is something detached?")
    far = torch.tensor([1000.0])
    sure = call(answer, -far, 0 * far, 0 * far, -far, 1.0, what="dpo_loss")
    need(math.isfinite(float(sure)), "a pair that is far on the wrong side gives infinity: take log σ in one function")
    return "Four numbers a pair, and no reward model: `DPO.compute_loss` does the same."

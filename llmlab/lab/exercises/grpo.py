"""Exercises of lesson 57, GRPO."""

from __future__ import annotations

from typing import Any

from . import call, close, exercise, need, number


@exercise("grpo.1", expects="a number")
def advantage(answer: Any) -> str:
    """(1 - ¼) / √(¼ · ¾) = √3."""
    wrong = {
        0.75: "that is how far it is above the mean; it is still to be divided by the deviation",
        1.5: "that is what a std that divides by G - 1 gives; here it divides by G",
        4.0: "that is divided by the variance; std is its square root",
        -0.57735: "that is the advantage of the three others",
    }
    for value, hint in wrong.items():
        need(not _near(answer, value), hint)
    number(answer, 3**0.5, "mean ¼; each reward's squared distance from it, their mean, its root", tolerance=0.01)
    return "¾ above the mean, at a deviation of √3/4: √3. The three others share the blame, -1/√3 each."


def _near(answer: Any, value: float) -> bool:
    return isinstance(answer, int | float) and not isinstance(answer, bool) and abs(answer - value) < 5e-3


@exercise("grpo.2", expects="a function advantages(score, group)")
def advantages(answer: Any) -> str:
    """(r - mean r) / std r, group by group, 0 where all are equal."""
    import torch

    def group_by_group(score: Any, group: int) -> Any:
        rows = score.view(-1, group)
        above, std = rows - rows.mean(1, keepdim=True), rows.std(1, correction=0, keepdim=True)
        return torch.where(std > 1e-6, above / std.clamp(min=1e-6), torch.zeros(())).flatten()

    score = torch.randn(12, generator=torch.Generator().manual_seed(0)) + torch.arange(12) / 3
    got, want = call(answer, score, 3, what="advantages"), group_by_group(score, 3)
    if isinstance(got, torch.Tensor) and got.shape == want.shape:
        rows = score.view(4, 3)
        strangers = group_by_group(score.view(3, 4).T.flatten(), 3).view(4, 3).T.flatten()
        wrong = {
            "all answers are compared with all: each belongs to its own group": group_by_group(score, 12),
            "the groups are the wrong way round: the answers to one prompt stand together": strangers,
            "the deviation is missing": (rows - rows.mean(1, keepdim=True)).flatten(),
            "this std divides by G - 1; here it divides by G": want * (2 / 3) ** 0.5,
        }
        for hint, values in wrong.items():
            need(not torch.allclose(got, values, atol=1e-4), hint)
    close(got, want, "groups of 3 are wrong: subtract each group's mean, divide by its std", "advantages")
    equal = torch.cat([torch.full((2,), 0.25), torch.tensor([1.0, 0.0])])
    got = call(answer, equal, 2, what="advantages")
    if isinstance(got, torch.Tensor):
        need(bool(got.isfinite().all()), "where all rewards are equal there comes something that is no number")
    close(got, group_by_group(equal, 2), "a group whose rewards are all equal has advantages of 0", "advantages")
    return "Each answer against its siblings, and silence where they agree: `group_advantages`."


@exercise("grpo.3", expects="a function grpo_loss(logp, old, reference, advantages, mask, clip, beta)")
def loss(answer: Any) -> str:
    """mean_i mean_t of max(-A ρ, -A clip(ρ)) + β k3."""
    import torch

    draw = torch.Generator().manual_seed(2)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    old = -torch.rand(3, 4, generator=draw)
    reference = old + 0.5 * torch.randn(3, 4, generator=draw)
    logp = old + 0.6 * torch.randn(3, 4, generator=draw)
    A = torch.randn(3, generator=draw)

    def by(clip: float, beta: float, mean: str = "answer", estimate: str = "k3") -> Any:
        ratio, log_r = (logp - old).exp(), reference - logp
        both = -A[:, None] * ratio, -A[:, None] * ratio.clamp(1 - clip, 1 + clip)
        k = {"k3": log_r.exp() - 1 - log_r, "k1": -log_r, "reverse": (-log_r).exp() - 1 + log_r}[estimate]
        each = (torch.maximum(*both) + beta * k) * mask
        return (each.sum(1) / mask.sum(1)).mean() if mean == "answer" else each.sum() / mask.sum()

    for clip, beta in ((0.2, 0.0), (0.2, 0.5), (0.05, 2.0)):
        current = logp.clone().requires_grad_()
        got = call(answer, current, old, reference, A, mask, clip, beta, what="grpo_loss")
        want = by(clip, beta)
        if isinstance(got, torch.Tensor) and got.dim() == 0:
            wrong = {
                "the sign of the KL is turned round: distance costs": by(clip, -beta),
                "the mean is over all tokens: first over each answer's, then over the answers": by(clip, beta, "token"),
                "that is k1, log π - log π_ref: the loss takes k3": by(clip, beta, estimate="k1"),
                "the ratio in k3 is upside down: π_ref over π": by(clip, beta, estimate="reverse"),
            }
            for hint, values in wrong.items():
                need(not torch.allclose(got.detach(), values, atol=1e-5) or torch.allclose(want, values), hint)
        hint = "with β = 0 it is PPO's clipped loss, each answer's mean first" if not beta else "the part of β is wrong"
        close(got, want, hint, "grpo_loss")
        need(got.requires_grad, "no gradient reaches log π: is something detached?")
    return "PPO's clipping, one advantage an answer, and the distance paid in the loss: `GRPO.compute_loss`."

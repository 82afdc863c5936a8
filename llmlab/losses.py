"""Losses: cross-entropy without ever holding all the logits, preferences of pairs, and PPO's clipped objectives.

Shapes: N pairs or labels; B rows of T tokens, of which `mask` (B, T) is True where a token counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

IGNORE = -100  # the label of a position that does not count
CHUNK = 512  # rows of logits alive at a time


def labelled(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Keep what is to be learnt: (B, T, D), (B, T) -> (N, D), (N,). ValueError if that is nothing."""
    where = labels != IGNORE
    if where.all():
        return hidden.flatten(0, -2), labels.flatten()
    if not where.any():
        raise ValueError("every label of this batch is masked, so it teaches nothing: check prompts and lengths")
    return hidden[where], labels[where]


class _LinearCrossEntropy(torch.autograd.Function):
    """mean CE(h Wᵀ + b, y), its gradients made chunk by chunk in the forward pass, while the logits are there.

    With p = softmax(h Wᵀ + b): dL/dlogits = (p - onehot(y)) / N, from which dh, dW and db follow.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> Tensor:
        N = h.size(0)
        need_h, need_w, need_b, _ = ctx.needs_input_grad
        dh = torch.empty_like(h) if need_h else None
        sums = torch.promote_types(weight.dtype, torch.float32)  # many small terms: not in bfloat16
        dw = torch.zeros_like(weight, dtype=sums) if need_w else None
        db = torch.zeros_like(bias, dtype=sums) if need_b and bias is not None else None
        total = torch.zeros((), dtype=sums, device=h.device)
        for i in range(0, N, CHUNK):
            hc, yc = h[i : i + CHUNK], y[i : i + CHUNK, None]
            logp = torch.nn.functional.linear(hc, weight, bias).to(sums).log_softmax(-1)  # (chunk, V)
            total -= logp.gather(1, yc).sum()
            if not (need_h or need_w or need_b):
                continue
            d = logp.exp_()
            d.scatter_add_(1, yc, torch.full_like(yc, -1, dtype=d.dtype))
            d = d.div_(N).to(h.dtype)
            if dh is not None:
                torch.mm(d, weight, out=dh[i : i + CHUNK])
            if dw is not None and dw.dtype == d.dtype:
                dw.addmm_(d.t(), hc)
            elif dw is not None:
                dw += d.t() @ hc
            if db is not None:
                db += d.sum(0)
        ctx.save_for_backward(dh, dw, db)
        ctx.dtype = weight.dtype
        return total / N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if d is None else (d * g).to(ctx.dtype) for d in ctx.saved_tensors), None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
    """Mean cross-entropy in nats of softmax(hidden Wᵀ + b) against target: (N, D), (V, D), (V,), (N,) -> ().

    The full (N, V) logits never exist. There is no second derivative.
    """
    if not torch.is_grad_enabled():  # so that no gradient is made that nobody will ask for
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, target)
    return loss


def preference_loss(better: Tensor, worse: Tensor, preference: Tensor | float = 1.0) -> Tensor:
    """Bradley & Terry (1952) as in Ouyang et al. (2022), of rewards (N,) and (N,) -> (N,), in nats.

        L = -p log σ(r_better - r_worse) - (1 - p) log σ(r_worse - r_better)

    p, `preference`, is how sure the labeller was that the first is better: 1, or a soft label in [0, 1].
    """
    margin = better - worse
    return -preference * F.logsigmoid(margin) - (1 - preference) * F.logsigmoid(-margin)


def preference_accuracy(margin: Tensor, preference: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """The share of pairs, all (N,) -> (), whose `margin` r_better - r_worse is on the side of their label p.

    A margin of 0 is half right. A label of ½ says nothing and does not count; ½ if all are such.
    """
    counted = weight * (preference != 0.5)
    right = ((margin * (preference - 0.5)).sign() + 1) / 2 * counted
    return right.sum() / counted.sum() if counted.any() else right.new_tensor(0.5)


def kl_estimates(logp: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Schulman's (2020) three estimates of KL(π ‖ π_ref) from a token that π drew, elementwise, in nats.

        log r = log π_ref - log π        k1 = -log r        k2 = (log r)² / 2        k3 = r - 1 - log r

    The mean of k1 and of k3 is the divergence; a single k1 may be negative, k2 and k3 never are; k2 is a little off.
    """
    log_r = reference - logp
    return -log_r, log_r.square() / 2, log_r.expm1() - log_r


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of what the mask keeps: (B, T), (B, T) -> ()."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def clipped_policy_loss(logp: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
    """PPO's objective (Schulman et al. 2017, equation 7), all (B, T), as a loss: () .

    ρ = π / π_old        L = mean max(-A ρ, -A clip(ρ, 1 - ε, 1 + ε))
    """
    ratio = (logp - old).exp()
    return mean_over(torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)), mask)


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """½ mean max((V - R)², (V_old + clip(V - V_old, ±ε) - R)²), all (B, T) -> ()."""
    near = old + (values - old).clamp(-clip, clip)
    return mean_over(torch.maximum((values - returns).square(), (near - returns).square()), mask) / 2

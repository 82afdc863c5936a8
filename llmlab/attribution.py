"""Which tokens a decision leans on: input x gradient, and integrated gradients (Sundararajan et al. 2017).

    input x gradient_t      = (x_t - x'_t) · ∂F(x)/∂x_t
    integrated gradients_t  = (x_t - x'_t) · (1/n) Σ_k ∂F(x' + (k - ½)/n (x - x'))/∂x_t,    k = 1 … n

x are the embeddings (T, D) of the tokens and x' a baseline that says nothing; F is one number, such as the logit of the
answer. Completeness: integrated gradients add up to F(x) - F(x'), but for the error of a finite n.

1. The baseline is the mean of the vocabulary's embeddings at every place, or what is given. The paper suggests zero for
   text; but a model that begins with a norm leaps as soon as its input leaves zero, and no sum of steps follows a leap.
2. The sum is taken by the midpoint rule.
3. Positions are no part of the input: what rotary or learnt positions add is the same for x and x'.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .generate import evaluating
from .model import Transformer
from .surgery import unwrap

Score = Callable[[Tensor], Tensor]  # logits after the last token (B, V) -> one number a row (B,)


def integrated_gradients(
    model: Transformer, tokens: Tensor, score: Score, steps: int = 64, baseline: Tensor | None = None
) -> Tensor:
    """Integrated gradients of `score` by each token: (T,) ids -> (T,), in the units of the score.

    `baseline` is (D,) or (T, D). It takes `steps` passes, as one batch. ValueError for an encoder-decoder, which reads
    two texts.
    """
    share = (torch.arange(steps, device=tokens.device) + 0.5) / steps
    difference, gradients = _gradients(model, tokens, score, share, baseline)
    return (difference * gradients.mean(0)).sum(-1)


def input_x_gradient(model: Transformer, tokens: Tensor, score: Score, baseline: Tensor | None = None) -> Tensor:
    """(x - x') times the gradient of `score` at x, summed over the width: (T,) ids -> (T,)."""
    difference, gradients = _gradients(model, tokens, score, torch.ones(1, device=tokens.device), baseline)
    return (difference * gradients[0]).sum(-1)


def taken_out(model: Transformer, tokens: Tensor, score: Score) -> Tensor:
    """How far `score` falls without each token, F(x) - F(x without t) (erasure, Li et al. 2016): (T,) ids -> (T,).

    The last token has to stay, since F is read there: it gets 0. What follows a token that is taken out moves up.
    """
    rest = torch.stack([torch.cat([tokens[:t], tokens[t + 1 :]]) for t in range(len(tokens) - 1)])  # (T - 1, T - 1)
    with evaluating(model):
        scores = [score(model.logits(model(x))[:, -1]) for x in (tokens[None], rest)]
    return torch.cat([scores[0] - scores[1], scores[0].new_zeros(1)])


def score_at(
    model: Transformer, tokens: Tensor, score: Score, share: float = 1.0, baseline: Tensor | None = None
) -> float:
    """F at `share` of the way from the baseline, 0, to the text, 1."""
    x, start = _ends(model, tokens, baseline)
    with torch.no_grad():
        return float(_score(model, tokens, score, start + share * (x - start))[0])


def _gradients(
    model: Transformer, tokens: Tensor, score: Score, shares: Tensor, baseline: Tensor | None
) -> tuple[Tensor, Tensor]:
    """x - x' (T, D), and ∂F/∂x at each of n shares of the way: (n, T, D)."""
    x, start = _ends(model, tokens, baseline)
    points = (start + shares.to(x.dtype)[:, None, None] * (x - start)).requires_grad_()  # (n, T, D)
    with torch.enable_grad():
        (gradients,) = torch.autograd.grad(_score(model, tokens, score, points).sum(), points)
    return x - start, gradients


def _ends(model: Transformer, tokens: Tensor, baseline: Tensor | None) -> tuple[Tensor, Tensor]:
    """x and x', both (T, D)."""
    stack = model.decoder if model.encoder is None else model.encoder if model.decoder is None else None
    if stack is None:
        raise ValueError("attributions are for a decoder or an encoder, which read one text; this model reads two")
    x = stack.embeddings.token(tokens).detach()
    if baseline is None:
        table = unwrap(stack.embeddings.token)
        assert isinstance(table, nn.Embedding)
        baseline = table.weight.detach().mean(0)
    return x, baseline.to(x).expand_as(x)


def _score(model: Transformer, tokens: Tensor, score: Score, points: Tensor) -> Tensor:
    """F with the embeddings of the tokens (T,) replaced by each of n points (n, T, D): (n,)."""
    stack = model.decoder or model.encoder
    assert stack is not None
    was, points = model.training, points.view(-1, *points.shape[-2:])
    model.eval()
    handle = stack.embeddings.token.register_forward_hook(lambda *_: points)
    try:
        output = model(tokens.expand(len(points), -1))
        return score(model.logits(output._replace(hidden=output.hidden[:, -1])))
    finally:
        handle.remove()
        model.train(was)

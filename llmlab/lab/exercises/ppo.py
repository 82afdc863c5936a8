"""Exercises of lesson 52, PPO."""

from __future__ import annotations

from typing import Any

from . import call, close, exercise, need, number


@exercise("ppo.1", expects="a number")
def advantage(answer: Any) -> str:
    """A_1 for rewards 0, 0, 1, values .2, .3, .7, γ = 1 and λ = ½: δ = .1, .4, .3 and A = .375, .55, .3."""
    wrong = {
        0.3: "that is the last token's advantage, with which you begin; A_1 is the first token's",
        0.55: "that is the second token's advantage; one more step back",
        0.1: "that is δ_1 alone: what do the later tokens add?",
        0.8: "that is what λ = 1 gives; here each step back halves what comes from later",
        0.575: "that is A + V, what the value head learns towards; the advantage is wanted",
        -0.2: "that takes the first token's value off a reward of 0: where does V_2 come in?",
    }
    for value, hint in wrong.items():
        need(not _near(answer, value), hint)
    number(answer, 0.375, "write δ_1, δ_2, δ_3 down, then go from the last token to the first")
    return "A_3 = .3, A_2 = .4 + .15 = .55, A_1 = .1 + .275: a half, a quarter of what comes later."


def _near(answer: Any, value: float) -> bool:
    return isinstance(answer, int | float) and not isinstance(answer, bool) and abs(answer - value) < 1e-6


@exercise("ppo.2", expects="a function rewards(score, logp, reference, mask, beta)")
def rewards(answer: Any) -> str:
    """r_t = -β (log π - log π_ref) on real tokens, and the score on top at the last of them."""
    import torch

    def given(*shape: int) -> tuple[Any, Any, Any]:
        draw = torch.Generator().manual_seed(sum(shape))
        logp, reference = (-torch.rand(*shape, generator=draw) for _ in range(2))
        return torch.randn(shape[0], generator=draw), logp, reference

    full = torch.ones(2, 3, dtype=torch.bool)
    ragged = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    score, logp, reference = given(2, 3)
    plain = call(answer, score, logp, reference, full, 0.0, what="rewards")
    want = torch.zeros(2, 3)
    want[:, -1] = score
    if isinstance(plain, torch.Tensor) and plain.shape == want.shape:
        every = torch.allclose(plain, score[:, None].expand(2, 3), atol=1e-5)
        need(not every, "each token gets the score: it belongs to the last one alone")
    close(plain, want, "with β = 0 and no padding there is the score at the last token, and 0 before it", "rewards")
    for mask, beta in ((full, 0.5), (ragged, 0.5), (ragged, 0.0), (ragged, 2.0)):
        score, logp, reference = given(*mask.shape)
        got = call(answer, score, logp, reference, mask, beta, what="rewards")
        kl = (logp - reference) * mask
        last = torch.zeros(mask.shape).scatter(1, mask.sum(1, keepdim=True) - 1, score[:, None])
        if isinstance(got, torch.Tensor) and got.shape == mask.shape:
            flipped = beta and torch.allclose(got, last + beta * kl, atol=1e-5)
            need(not flipped, "moving away from the reference is rewarded: mind the sign")
            need(bool((got[~mask] == 0).all()), "padding gets a reward: it is no token of the answer")
        hint = "rows of unequal length are wrong: each row has a last token of its own" if mask is ragged else ""
        close(
            got, last - beta * kl, hint or "the KL's part is wrong: -β (log π - log π_ref), token by token", "rewards"
        )
    return "The KL is paid token by token, the score once: `token_rewards` does the same."


@exercise("ppo.3", expects="a function clipped_loss(logp, old, advantages, mask, clip)")
def clipped(answer: Any) -> str:
    """Mean over real tokens of max(-A ρ, -A clip(ρ, 1 - ε, 1 + ε))."""
    import torch

    draw = torch.Generator().manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    old = -torch.rand(3, 4, generator=draw)
    logp = old + 0.6 * torch.randn(3, 4, generator=draw)
    advantages = torch.randn(3, 4, generator=draw)
    one = call(answer, old, old, advantages, mask, 0.2, what="clipped_loss")
    start = -(advantages * mask).sum() / mask.sum()
    if isinstance(one, torch.Tensor) and one.dim() == 0:
        need(not torch.allclose(one, -start), "the sign is turned round: a loss falls as good answers grow likelier")
        need(not torch.allclose(one, -advantages.mean()), "padding counts: the mean is over the mask's tokens")
        rows = (-(advantages * mask).sum(1) / mask.sum(1)).mean()
        need(not torch.allclose(one, rows), "that is a mean of the rows' means: each token counts alike")
    close(one, start, "with π = π_old every ratio is 1, and minus the mean advantage is wanted", "clipped_loss")
    for clip in (0.2, 0.05, 1.0):
        current = logp.clone().requires_grad_()
        got = call(answer, current, old, advantages, mask, clip, what="clipped_loss")
        ratio = (logp - old).exp()
        both = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
        want = (torch.maximum(*both) * mask).sum() / mask.sum()
        if isinstance(got, torch.Tensor) and got.dim() == 0:
            found = got.detach()
            wrong = {
                "nothing is clipped": both[0],
                "the clipped term stands alone: then a ratio that went too far the wrong way is left there": both[1],
                "the smaller loss of the two is taken: which of them is the pessimistic one?": torch.minimum(*both),
            }
            for hint, values in wrong.items():
                other = (values * mask).sum() / mask.sum()
                need(not torch.allclose(found, other, atol=1e-5) or torch.allclose(want, other, atol=1e-5), hint)
        close(got, want, "the clipped loss is wrong: write ρ, both products, and then their maximum", "clipped_loss")
        need(got.requires_grad, "no gradient reaches log π: is something detached?")
    return "Of the two losses the larger counts, so a ratio beyond 1 ± ε earns nothing more: `clipped_policy_loss`."

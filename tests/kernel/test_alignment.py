"""The mathematics of learning from preferences and rewards, against independent NumPy code and the papers' numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from llmlab import losses
from llmlab.rollout import adapted, advantages_of, kl_of_answers, token_rewards, whiten

B, T = 5, 9
EXACT = dict(rtol=0, atol=1e-12)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def mask():
    """Answers that begin and end anywhere, one of a single token."""
    spans = [(0, 9), (2, 9), (3, 4), (0, 5), (4, 8)]
    return torch.tensor([[a <= t < b for t in range(T)] for a, b in spans])


def test_preference_loss():
    better, worse, p = draw(40), draw(40, seed=1), torch.rand(40, dtype=torch.float64)
    d = (better - worse).numpy()
    sure = np.log1p(np.exp(-d))
    np.testing.assert_allclose(losses.preference_loss(better, worse), sure, atol=1e-12)
    soft = p.numpy() * sure + (1 - p.numpy()) * np.log1p(np.exp(d))
    np.testing.assert_allclose(losses.preference_loss(better, worse, p), soft, atol=1e-12)
    torch.testing.assert_close(losses.preference_loss(better + 3, worse + 3), losses.preference_loss(better, worse))
    assert losses.preference_loss(better, better) == pytest.approx(np.full(40, math.log(2)))
    assert torch.equal(losses.preference_loss(better, worse, p), losses.preference_loss(worse, better, 1 - p))
    far = torch.tensor([2000.0])
    assert losses.preference_loss(far, -far).item() == 0 and losses.preference_loss(-far, far).item() == 4000


def test_preference_accuracy():
    """Pairs on the side of their label, a tie half right, by plain counting; labels of a half are left out."""
    margin, p = draw(60).round(), torch.rand(60, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    p[::7], weight = 0.5, draw(60, seed=2).abs()
    won, total = 0.0, 0.0
    for m, q, w in zip(margin.tolist(), p.tolist(), weight.tolist(), strict=True):
        if q != 0.5:
            total += w
            won += w * (0.5 if m == 0 else (m > 0) == (q > 0.5))
    assert (margin == 0).any() and losses.preference_accuracy(margin, p, weight).item() == pytest.approx(won / total)
    assert losses.preference_accuracy(margin, torch.full((60,), 0.5)) == 0.5


def test_kl_estimates_are_right_on_average():
    """Against the divergence of two distributions over ten tokens, summed exactly."""
    p, q = draw(10).softmax(0), draw(10, seed=1).softmax(0)
    exact = float((p * (p / q).log()).sum())
    k1, k2, k3 = losses.kl_estimates(p.log(), q.log())  # of each token; their mean under p follows exactly
    assert float((p * k1).sum()) == pytest.approx(exact, abs=1e-12)
    assert float((p * k3).sum()) == pytest.approx(exact, abs=1e-12)
    assert abs(float((p * k2).sum()) - exact) > 1e-3  # biased
    assert k1.min() < 0 <= min(k2.min(), k3.min())
    r = (q / p).numpy()
    for found, wanted in ((k1, -np.log(r)), (k2, np.log(r) ** 2 / 2), (k3, r - 1 - np.log(r))):
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_kl_of_answers(mask):
    logp, reference = -draw(B, T).abs(), -draw(B, T, seed=1).abs()
    found = kl_of_answers(logp, reference, mask)
    for i in range(B):
        x = (logp - reference)[i][mask[i]].numpy()
        assert found["kl"][i].item() == pytest.approx(x.sum())
        assert found["k2"][i].item() == pytest.approx((x**2 / 2).sum())
        assert found["k3"][i].item() == pytest.approx((np.exp(-x) - 1 + x).sum())
        assert found["length"][i] == mask[i].sum()


def test_advantages_by_hand():
    rewards, values = torch.tensor([[0.0, 0, 1]]).double(), torch.full((1, 3), 0.5).double()
    found = advantages_of(rewards, values, torch.ones(1, 3, dtype=torch.bool), 1.0, 0.95)
    torch.testing.assert_close(found, torch.tensor([[0.45125, 0.475, 0.5]], dtype=torch.float64), **EXACT)


@pytest.mark.parametrize(("discount", "smoothing"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_advantages(mask, discount, smoothing):
    """By the definition, Σ (γλ)^l δ_{t+l}, of each answer alone; what is outside of it is not looked at."""
    rewards, values = draw(B, T), draw(B, T, seed=1)
    found = advantages_of(rewards, values, mask, discount, smoothing)
    spoilt = [torch.where(mask, t, torch.full_like(t, 1e6)) for t in (rewards, values)]
    assert torch.equal(found, advantages_of(*spoilt, mask, discount, smoothing))
    assert (found[~mask] == 0).all()
    for i in range(B):
        r, v = rewards[i][mask[i]].numpy(), np.append(values[i][mask[i]].numpy(), 0)
        delta = r + discount * v[1:] - v[:-1]
        wanted = [sum((discount * smoothing) ** (j - t) * delta[j] for j in range(t, len(r))) for t in range(len(r))]
        np.testing.assert_allclose(found[i][mask[i]], wanted, atol=1e-12)
    if smoothing == 1.0:  # then A + V is the sum of what is still to come
        assert float((found + values)[1][2]) == pytest.approx(float(rewards[1][2:].sum()))


def test_token_rewards(mask):
    kl, score = draw(B, T), draw(B, seed=1)
    found = token_rewards(score, kl, mask, 0.3)
    for i in range(B):
        wanted = -0.3 * kl[i][mask[i]].numpy()
        wanted[-1] += score[i].item()
        np.testing.assert_allclose(found[i][mask[i]], wanted, atol=1e-12)
    assert (found[~mask] == 0).all()


@pytest.mark.parametrize("shift", [True, False])
def test_whiten(mask, shift):
    values = draw(B, T) * 7 + 3
    found, kept = whiten(values, mask, shift), values[mask].numpy()
    wanted = (kept - kept.mean()) / np.sqrt(kept.var() + 1e-8) + (0 if shift else kept.mean())
    np.testing.assert_allclose(found[mask], wanted, atol=1e-12)
    assert (found[~mask] == 0).all()
    same = whiten(torch.full_like(values, 2.0), mask)
    assert same.abs().max() < 1e-6  # nothing to tell apart, and no NaN


def test_clipped_losses(mask):
    logp, old, advantages = draw(B, T) * 0.3, draw(B, T, seed=1) * 0.3, draw(B, T, seed=2)
    keep = mask.numpy()
    ratio, A = np.exp((logp - old).numpy()), advantages.numpy()
    wanted = np.maximum(-A * ratio, -A * np.clip(ratio, 0.8, 1.2))[keep].mean()
    assert losses.clipped_policy_loss(logp, old, advantages, mask, 0.2).item() == pytest.approx(wanted, abs=1e-12)
    v, v_old, R = logp.numpy(), old.numpy(), A
    near = v_old + np.clip(v - v_old, -0.2, 0.2)
    wanted = 0.5 * np.maximum((v - R) ** 2, (near - R) ** 2)[keep].mean()
    assert losses.clipped_value_loss(logp, old, advantages, mask, 0.2).item() == pytest.approx(wanted, abs=1e-12)


def test_no_gradient_where_the_ratio_is_clipped_to_profit():
    mask = torch.ones(1, 4, dtype=torch.bool)
    logp = torch.log(torch.tensor([[1.5, 0.5, 1.5, 0.5]])).requires_grad_()
    advantages = torch.tensor([[1.0, -1.0, -1.0, 1.0]])  # too far already, twice; on the way back, twice
    losses.clipped_policy_loss(logp, torch.zeros(1, 4), advantages, mask, 0.2).backward()
    assert (logp.grad[0, :2] == 0).all() and (logp.grad[0, 2:] != 0).all()


def test_the_price_is_steered_by_a_fifth_at_most():
    assert adapted(0.15, 12, 6, 256, 10_000) == pytest.approx(0.150768)
    assert adapted(0.15, 600, 6, 256, 10_000) == adapted(0.15, 12, 6, 256, 10_000) > 0.15
    assert adapted(0.15, -3, 6, 256, 10_000) == pytest.approx(0.15 * (1 - 0.2 * 256 / 10_000))
    assert adapted(0.15, 6, 6, 256, 10_000) == 0.15
    assert adapted(0.15, 6.6, 6, 1000, 10_000) == pytest.approx(0.15 * 1.01)

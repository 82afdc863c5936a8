"""Cross-entropy without the logits, against torch's own and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import build, some
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from llmlab.losses import CHUNK, IGNORE, labelled, linear_cross_entropy
from llmlab.model import Output

D, V = 6, 17


def problem(n, dtype, bias=True, scale=1.0):
    torch.manual_seed(n)
    h, w, b = (torch.randn(*s, dtype=torch.float64) * scale for s in ((n, D), (V, D), (V,)))
    leaves = [t.to(dtype).requires_grad_() for t in ((h, w, b) if bias else (h, w))]
    return leaves, torch.randint(0, V, (n,))


def both(leaves, y):
    """(value, gradients) of ours and of torch's, the latter in double precision."""
    h, w, *b = leaves
    ours = linear_cross_entropy(h, w, b[0] if b else None, y)
    found = torch.autograd.grad(3 * ours, leaves)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    theirs = F.cross_entropy(F.linear(*exact), y)
    return (ours, found), (theirs, torch.autograd.grad(3 * theirs, exact))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
@pytest.mark.parametrize(
    ("dtype", "value", "gradient"),
    [(torch.float64, 1e-12, 1e-12), (torch.float32, 1e-5, 1e-5), (torch.bfloat16, 0.02, 0.02)],
)
def test_value_and_gradient(dtype, value, gradient, n, bias):
    (ours, found), (theirs, wanted) = both(*problem(n, dtype, bias))
    assert ours.item() == pytest.approx(theirs.item(), rel=value)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == dtype
        assert (a.double() - b).norm() <= gradient * b.norm()


def test_the_gradient_against_finite_differences():
    leaves, y = problem(9, torch.float64)
    assert torch.autograd.gradcheck(lambda *t: linear_cross_entropy(*t, y), leaves)


def test_large_logits_and_some_frozen():
    (h, w, b), y = problem(5, torch.float32, scale=200.0)
    loss = linear_cross_entropy(h, w, b, y)
    loss.backward()
    assert math.isfinite(loss.item()) and h.grad.isfinite().all()
    for frozen in (0, 1, 2):
        leaves, y = problem(5, torch.float64)
        leaves[frozen].requires_grad_(False)
        linear_cross_entropy(*leaves, y).backward()
        exact, _ = problem(5, torch.float64)
        F.cross_entropy(F.linear(*exact), y).backward()
        for i, (a, e) in enumerate(zip(leaves, exact, strict=True)):
            assert a.grad is None if i == frozen else torch.allclose(a.grad, e.grad, rtol=0, atol=1e-12)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor any operation made, and the matrix products."""

    numel, products = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.products += "mm" in func.__name__
        for t in out if isinstance(out, tuple | list) else [out]:
            if isinstance(t, torch.Tensor):
                self.numel = max(self.numel, t.numel())
        return out


def test_all_the_logits_never_exist():
    n, v = 4 * CHUNK, 1000
    h, w = torch.randn(n, 8).requires_grad_(), torch.randn(v, 8).requires_grad_()
    with Largest() as ours:
        linear_cross_entropy(h, w, None, torch.randint(0, v, (n,))).backward()
    with Largest() as theirs:
        F.cross_entropy(F.linear(h, w), torch.randint(0, v, (n,))).backward()
    assert ours.numel == CHUNK * v
    assert theirs.numel == n * v


def test_measuring_makes_no_gradient():
    leaves, y = problem(CHUNK, torch.float32)
    with torch.no_grad(), Largest() as seen:
        value = linear_cross_entropy(*leaves, y)
    assert seen.products == 1
    assert value.item() == pytest.approx(linear_cross_entropy(*leaves, y).item())


def test_labelled():
    hidden, labels = torch.randn(2, 3, D), torch.tensor([[1, IGNORE, 2], [IGNORE, 3, IGNORE]])
    h, y = labelled(hidden, labels)
    assert y.tolist() == [1, 2, 3]
    assert torch.equal(h, torch.stack([hidden[0, 0], hidden[0, 2], hidden[1, 1]]))
    with pytest.raises(ValueError, match="every label of this batch is masked"):
        labelled(hidden, torch.full((2, 3), IGNORE))


@pytest.mark.parametrize("settings", [{}, dict(head_transform=True, head_bias=True), dict(tied=False)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_model_s_loss(settings, smoothing):
    model, tokens = build(**settings), some()
    labels = tokens.masked_fill(torch.rand(tokens.shape) < 0.4, IGNORE)
    output = model(tokens)
    ours = model.loss(output, labels, smoothing=smoothing)
    logits = model.head(output.hidden)
    theirs = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, label_smoothing=smoothing)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12 if not smoothing else 1e-6)
    parameters = [p for n, p in model.named_parameters() if "pooler" not in n]
    for a, b in zip(*(torch.autograd.grad(x, parameters, retain_graph=True) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 if not smoothing else 1e-6)
    with pytest.raises(ValueError, match="every label of this batch is masked"):
        model.loss(output, torch.full_like(labels, IGNORE))


def test_logprobs():
    model, tokens = build(), some()
    labels = tokens.clone()
    labels[:, :4] = IGNORE
    output = model(tokens)
    found = model.logprobs(output, labels)
    wanted = model.logits(output).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    assert (found[:, :4] == 0).all()
    torch.testing.assert_close(found[:, 4:], wanted[:, 4:], rtol=0, atol=1e-6)
    assert model.loss(output, labels).item() == pytest.approx(-found[:, 4:].mean().item(), abs=1e-6)
    (a,) = torch.autograd.grad(found.sum(), output.hidden, retain_graph=True)
    (b,) = torch.autograd.grad(wanted[:, 4:].sum(), output.hidden)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    nothing = model.logprobs(Output(output.hidden), torch.full_like(labels, IGNORE))
    assert nothing.shape == labels.shape and not nothing.any()

"""Exercises of lesson 55, responsible use."""

from __future__ import annotations

import math
from typing import Any

from . import NotYet, as_number, call, close, exercise, need, number


@exercise("responsible_use.1", expects="a number")
def bits(answer: Any) -> str:
    """log₂ of a million less log₂ of 125."""
    got = as_number(answer)
    need(abs(got - math.log2(1e6)) > 0.01, "that is the most it could be, at rank 1")
    need(abs(got - math.log2(125)) > 0.01, "that is what is left to guess; what has been given away?")
    need(abs(got - 8000) > 0.5, "that is how many times fewer guesses it takes: how many halvings is that?")
    need(abs(got - math.log(8000)) > 0.01, "these are nats; bits take the logarithm to base 2")
    need(abs(got - math.log10(8000)) > 0.01, "bits take the logarithm to base 2")
    number(answer, math.log2(8000), "log₂ of how many there are, less log₂ of the rank")
    return "Of twenty bits of secret thirteen are out: 125 guesses in place of a million."


@exercise("responsible_use.2", expects="a function bias(scores) that returns two numbers")
def mean_and_error(answer: Any) -> str:
    """The mean difference of pairs and its standard error, for hidden pairs."""
    for scores in (
        [(-1.0, -3.0), (-2.0, -2.5), (-4.0, -3.5), (-1.0, -2.0)],
        [(-2.0, -1.0), (-5.0, -3.0)],
        [(-1.0, -1.0), (-2.0, -2.0), (-3.0, -3.0)],
    ):
        d = [a - b for a, b in scores]
        n, mean = len(d), sum(d) / len(d)
        spread = sum((x - mean) ** 2 for x in d)
        error = math.sqrt(spread / (n - 1) / n)
        got = call(answer, list(scores), what="bias")
        need(
            isinstance(got, tuple | list) and len(got) == 2, "it returns two numbers: the mean, and its standard error"
        )
        first, second = as_number(got[0]), as_number(got[1])
        need(abs(first + mean) > 1e-9 or mean == 0, "the sign is the wrong way round: a positive d is for c_a")
        need(abs(first - mean) < 1e-6, "the first number is not the mean of log p(y | c_a) - log p(y | c_b)")
        wrong = {
            math.sqrt(spread / (n - 1)): "that is the standard deviation of one pair; what of the mean of n?",
            math.sqrt(spread / n / n): "divide the squares by n - 1: the mean was taken from the same pairs",
            spread / (n - 1) / n: "that is the error squared: a root is missing",
        }
        for value, hint in wrong.items():
            need(abs(second - value) > 1e-9 or abs(error - value) < 1e-9, hint)
        need(abs(second - error) < 1e-6, "the second number is not s / √n, with s from n - 1")
    return "A bias without its error is a rumour: the error falls with the root of the number of pairs."


@exercise("responsible_use.3", expects="a function attribute(gradient, x, baseline, n) that returns a tensor")
def integrated(answer: Any) -> str:
    """Integrated gradients of hidden functions, complete, and each by the midpoint rule."""
    import torch

    torch_sin = lambda v: torch.cos(v)  # noqa: E731
    for gradient, F in ((lambda v: 2 * v, lambda v: (v**2).sum()), (torch_sin, lambda v: torch.sin(v).sum())):
        x, start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), torch.tensor([0.5, 1.0, 0.0]).double()
        for n in (50, 3):
            seen: list[Any] = []

            def watched(v: Any, gradient: Any = gradient, seen: list[Any] = seen) -> Any:
                seen.append(v)
                return gradient(v)

            got = call(answer, watched, x.clone(), start.clone(), n, what="attribute")
            need(isinstance(got, torch.Tensor) and got.shape == x.shape, "it returns one number for each entry of x")
            points = [start + (k - 0.5) / n * (x - start) for k in range(1, n + 1)]
            mean = torch.stack([gradient(p) for p in points]).mean(0)
            need(not torch.allclose(got, mean), "that is the mean gradient; what is it multiplied with?")
            need(
                not torch.allclose(got, x * mean), "completeness asks for the distance from the baseline, not x itself"
            )
            need(not torch.allclose(got, n * (x - start) * mean), "the sum over n points is divided by n")
            at_x = (x - start) * gradient(x)
            need(not torch.allclose(got, at_x), "that is the gradient at x alone; walk the whole way from the baseline")
            ends = [start + k / n * (x - start) for k in range(1, n + 1)]
            at_ends = (x - start) * torch.stack([gradient(p) for p in ends]).mean(0)
            need(not torch.allclose(got, at_ends), "these are the ends of the n parts of the way; take their middles")
            if n == 50 and abs(float(got.sum() - (F(x) - F(start)))) > 0.01:
                raise NotYet("it is not complete: the attributions do not add up to F(x) - F(x')")
            close(got, (x - start) * mean, "it is not the midpoint rule with n points", "attribute")
    return "They add up to the difference that they explain: that much of an explanation can be checked."

"""Exercises of the lesson on Template."""

from __future__ import annotations

from typing import Any

from llmlab.lab.exercises import call, close, exercise, need, number


@exercise("template.1", expects="a number")
def one_pull(answer: Any) -> str:
    """3 - 0.1 (3 - 1)."""
    need(answer != 2.7, "the pull is towards the start, which is 1 and not 0")
    number(answer, 2.8, "put θ = 3, θ⁰ = 1 and λ = 0.1 into the equation")
    return "A tenth of the way back."


@exercise("template.2", expects="a number")
def all_the_way(answer: Any) -> str:
    """λ = 1 undoes each step."""
    number(answer, 1, "for which λ is nothing left of θ in the equation?")
    return "Then every step is undone, and nothing is learnt."


@exercise("template.3", expects="a function pull(theta, start, strength)")
def pull(answer: Any) -> str:
    """θ - λ (θ - θ⁰)."""
    import torch

    theta, start = torch.tensor([3.0, -1.0, 0.5]), torch.tensor([1.0, 1.0, 0.5])
    for strength in (0.0, 0.1, 1.0):
        got = call(answer, theta, start, strength, what="pull")
        close(got, theta - strength * (theta - start), "from θ, a share of the way to θ⁰", "pull")
    return "As torch.lerp does."

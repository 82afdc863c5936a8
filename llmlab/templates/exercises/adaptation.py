"""Exercises of the lesson on Template."""

from __future__ import annotations

from typing import Any

from llmlab.lab.exercises import call, close, exercise, need, number


@exercise("template.1", expects="a whole number")
def count(answer: Any) -> str:
    """Two numbers for each of 512 outputs."""
    need(answer != 512, "each output has a scale and a shift")
    need(answer != 128 * 512, "W does not train")
    number(answer, 1024, "how long are γ and β for a layer of 512 outputs?")
    return "Two for each output, whatever the number of inputs."


@exercise("template.2", expects="a number")
def start(answer: Any) -> str:
    """A scale of one."""
    number(answer, 1, "which γ leaves y as it is, with β = 0?")
    return "With γ = 1 and β = 0 the first step starts from the base exactly."


@exercise("template.3", expects="a function merged(W, gamma)")
def merged(answer: Any) -> str:
    """diag(γ) W."""
    import torch

    draw = torch.Generator().manual_seed(0)
    for outputs, inputs in ((3, 5), (4, 4)):
        W, gamma = torch.randn(outputs, inputs, generator=draw), torch.randn(outputs, generator=draw)
        got = call(answer, W, gamma, what="merged")
        need(
            not (outputs == inputs and isinstance(got, torch.Tensor) and torch.allclose(got, W * gamma)),
            "that scales the columns, which are the inputs",
        )
        close(got, gamma[:, None] * W, "row i of W makes output i, so it is multiplied by γ_i", "merged")
    return "One matrix with the same function: nothing is left to compute when the model is used."

"""Exercises of the lesson on Template."""

from __future__ import annotations

import math
from typing import Any

from llmlab.lab.exercises import call, close, exercise, need, number


@exercise("template.1", expects="a number")
def sure(answer: Any) -> str:
    """(1 - 0.9)² · -ln 0.9."""
    need(answer != -math.log(0.9), "that is the ordinary loss; the focal loss multiplies it by (1 - p)^γ")
    number(answer, 0.01 * -math.log(0.9), "put p = 0.9 and γ = 2 into the equation, with the natural logarithm")
    return "A hundredth of the ordinary loss: what is known already hardly counts."


@exercise("template.2", expects="a number")
def ordinary(answer: Any) -> str:
    """γ = 0: the factor is 1 whatever p is."""
    number(answer, 0, "for which power is (1 - p)^γ equal to 1, whatever p is?")
    return "Then every token counts alike, and the loss is the cross-entropy."


@exercise("template.3", expects="a function focal(logp, gamma)")
def focal(answer: Any) -> str:
    """-(1 - p)^γ log p, from log-probabilities."""
    import torch

    logp = torch.tensor([0.9, 0.5, 0.01]).log()
    for gamma in (0.0, 1.0, 2.0):
        got = call(answer, logp, gamma, what="focal")
        close(got, -((1 - logp.exp()) ** gamma) * logp, "p is exp(logp); mind the sign, and the power", "focal")
    return "One line, from the log-probabilities that the model gives."

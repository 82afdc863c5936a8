"""Answers to the exercises of the lesson on Template."""

from __future__ import annotations

import math


def focal(logp, gamma):
    return -((1 - logp.exp()) ** gamma) * logp


ANSWERS = {
    "template.1": (0.01 * -math.log(0.9), [-math.log(0.9), 0.01, 0.1 * -math.log(0.9)]),
    "template.2": (0, [1, 2, -1]),
    "template.3": (
        focal,
        [
            lambda logp, gamma: -logp,
            lambda logp, gamma: (1 - logp.exp()) ** gamma * logp,
            lambda logp, gamma: -(1 - logp) * gamma * logp,
        ],
    ),
}

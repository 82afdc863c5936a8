"""Answers to the exercises of the lesson on Template."""

from __future__ import annotations


def pull(theta, start, strength):
    return theta - strength * (theta - start)


ANSWERS = {
    "template.1": (2.8, [2.7, 3.2, 1.2]),
    "template.2": (1, [0, -1, 0.5]),
    "template.3": (
        pull,
        [
            lambda theta, start, strength: theta - strength * theta,
            lambda theta, start, strength: theta + strength * (theta - start),
            lambda theta, start, strength: start,
        ],
    ),
}

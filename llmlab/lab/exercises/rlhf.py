"""Exercises of lesson 53, the chain of RLHF."""

from __future__ import annotations

import math
from typing import Any

from . import call, close, exercise, need, number


@exercise("rlhf.1", expects="a number of nats")
def how_far(answer: Any) -> str:
    """KL of the best of 16 from the model that wrote them."""
    number_of = 16
    if isinstance(answer, int | float):
        need(
            abs(answer - math.log(number_of)) > 1e-3, "that is log n; what is taken off, because the others count too?"
        )
        need(abs(answer - math.log2(number_of)) > 1e-3, "that is in bits, and without the second term")
        need(abs(answer - (math.log2(number_of) - 15 / 16)) > 1e-3, "that is in bits; nats need the natural logarithm")
        need(abs(answer - (math.log(number_of) - 1 / 16)) > 1e-3, "the second term is (n - 1)/n, not 1/n")
    number(answer, math.log(number_of) - 15 / 16, "put n = 16 into the equation of best of n")
    return "log 16 - 15/16 = 1.84 nats: sixteen times the writing for less than two nats."


@exercise("rlhf.2", expects="a function best_answers(said, scores)")
def best_of_n(answer: Any) -> str:
    """The answer with the highest score, prompt by prompt."""
    said = [["a", "b", "c"], ["d"], ["e", "f"]]
    scores = [[0.1, 0.9, 0.3], [-2.0], [-1.0, -3.0]]
    got = call(answer, said, scores, what="best_answers")
    need(got != ["a", "d", "f"], "these are the answers with the lowest scores")
    need(got != [1, 0, 0], "these are the places of the best answers; the answers themselves are wanted")
    need(not isinstance(got, str), "one answer for each prompt is wanted, a list")
    need(list(got) == ["b", "d", "e"], "of [['a','b','c'], ['d'], ['e','f']] with the best in places 1, 0, 0: b, d, e")
    ties = call(answer, [["x", "y", "z"]], [[0.5, 1.0, 1.0]], what="best_answers")
    need(list(ties) == ["y"], "of equal scores the first is wanted")
    below = call(answer, [["x", "y"]], [[-5.0, -4.0]], what="best_answers")
    need(list(below) == ["y"], "all scores may be below zero: is the best so far started at 0?")
    kept = [[3.0, 1.0]]
    answer([["x", "y"]], kept)
    need(kept == [[3.0, 1.0]], "it changes the scores that it is given")
    return "That is all there is to best of n: no gradient, n times the writing."


@exercise("rlhf.3", expects="a function worth(score, logp, reference, beta)")
def token_rewards(answer: Any) -> str:
    """-β (log π - log π_ref) for each token, and the score at the last."""
    import torch

    draw = torch.Generator().manual_seed(0)
    for T, score, beta in ((5, 2.0, 0.1), (1, -1.0, 0.5), (7, 0.25, 2.0)):
        logp, reference = (-torch.rand(T, generator=draw) * 3 for _ in range(2))
        right = -beta * (logp - reference)
        last = right.clone()
        last[-1] += score
        kept = logp.clone()
        got = call(answer, score, logp, reference, beta, what="worth")
        if isinstance(got, torch.Tensor) and got.shape == last.shape:
            near = lambda other: torch.allclose(got, other, atol=1e-5)  # noqa: B023, E731
            need(not near(right), "the score is missing: it comes on top at the last token")
            need(not near(right + score) or T == 1, "the score is counted at every token; a text is scored once")
            flipped = -right
            flipped[-1] += score
            need(not near(flipped), "the sign of the penalty: a token likelier than the reference had it costs")
            unscaled = right / beta
            unscaled[-1] += score
            need(not near(unscaled) or beta == 1, "β is missing: it says how much a nat costs")
        close(got, last, "each token costs β times the difference of its logarithms", "worth")
        answer(score, logp, reference, beta)
        need(torch.equal(kept, logp), "it changes the tensors that it is given, so that a second call is wrong")
    return "Summed up, these are the score less β times the answer's KL: what PPO makes larger."

"""Exercises of lesson 54, constitutional AI."""

from __future__ import annotations

import math
from typing import Any

from . import as_number, call, exercise, need, number


@exercise("constitution.1", expects="a number between 0 and 1")
def both_orders(answer: Any) -> str:
    """P(A) is 0.9 with y₁ as (A), and 0.6 with y₂ as (A)."""
    value = as_number(answer)
    need(not math.isclose(value, 0.9), "that is the first question alone; the second one counts as much")
    need(not math.isclose(value, 0.75), "in the second question (A) is the other answer: what does 0.6 say of y₁?")
    need(not math.isclose(value, 0.35), "that is how probable it is that y₂ is better")
    need(not math.isclose(value, 0.4), "that is the second question alone; the first one counts as much")
    number(answer, 0.65, "turn each answer into the probability that y₁ is better, then take the mean")
    return "½ (0.9 + (1 - 0.6)): asked twice, a judge who likes (A) shows how much of its 0.9 was the place."


@exercise("constitution.2", expects="a function label(first, second, clamp)")
def soft_label(answer: Any) -> str:
    """From the logarithms of probabilities in both orders to a clamped soft label."""
    cases = [((-1.0, -3.0), (-0.5, -0.5)), ((-2.0, -0.1), (-1.0, -2.0)), ((-9.0, -1.0), (-0.2, -7.0))]
    for first, second in cases:
        right = _label(first, second)
        got = as_number(call(answer, first, second, 0.0, what="label"), "What label returns")
        back = (second, first)
        need(
            not math.isclose(got, _label(first, second[::-1]), rel_tol=1e-6) or math.isclose(got, right),
            "in the second question (A) is y₂, so that P(A) there speaks against y₁",
        )
        need(0 <= got <= 1, f"{got:g} is no probability: normalise over (A) and (B), exp first")
        need(math.isclose(got, right, rel_tol=1e-4), f"wrong for {first} and {second}: work one through by hand")
        other = as_number(call(answer, *back, 0.0, what="label"), "What label returns")
        need(math.isclose(other, 1 - right, rel_tol=1e-4), "with the two answers exchanged it is not 1 - p")
    lopsided = ((-0.01, -8.0), (-1.2, -0.3))
    got = as_number(call(answer, *lopsided, 0.2, what="label"), "What label returns")
    need(got <= 0.8 + 1e-9, "with clamp = 0.2 no label is above 0.8")
    need(math.isclose(got, min(0.8, _label(*lopsided)), rel_tol=1e-4), "the mean is what is clamped, not its parts")
    got = as_number(call(answer, *lopsided[::-1], 0.2, what="label"), "What label returns")
    need(math.isclose(got, max(0.2, 1 - _label(*lopsided)), rel_tol=1e-4), "with clamp = 0.2 no label is below 0.2")
    return "Normalise, turn the second question round, take the mean, clamp: so the plugin makes its labels."


def _label(first: tuple[float, float], second: tuple[float, float]) -> float:
    a, b = (1 / (1 + math.exp(no - yes)) for yes, no in (first, second))
    return (a + 1 - b) / 2


@exercise("constitution.3", expects="a function revise(write, prompt, principles)")
def the_loop(answer: Any) -> str:
    """Answer, then a critique and a revision by each principle."""
    from ...data.tinytown import critique_prompt, revision_prompt

    prompt, principles = "User: Hello.\nAssistant:", ["Be kind.", "Be true.", "Be brief."]
    for said in (
        [" zero", " c1", " one", " c2", " two", " c3", " three"],
        [" zero", " c1", "", " c2", " two", " c3", ""],
    ):
        asked: list[str] = []
        left = iter(said)

        def write(text: Any, asked: list[str] = asked, left: Any = left) -> str:
            need(isinstance(text, str), "write is given one text, the prompt to continue")
            need(len(asked) < 7, "write is called more than seven times for three principles")
            asked.append(text)
            return str(next(left))

        got = call(answer, write, prompt, list(principles), what="revise")
        need(asked and asked[0] == prompt, "first the prompt itself is answered")
        need(len(asked) == 7, f"write was called {len(asked)} times: an answer, and two texts for each principle")
        now, wanted = " zero", [" zero"]
        for i, principle in enumerate(principles):
            ask, critique, better = asked[2 * i + 1], said[2 * i + 1], said[2 * i + 2]
            need(
                i == 0 or ask != critique_prompt(prompt, " zero", principle) or now == " zero",
                "each round criticises the latest answer, not the first",
            )
            right = critique_prompt(prompt, now, principle)
            need(ask == right, f"the critique of round {i + 1} is not asked for by critique_prompt as it should be")
            ask, right = asked[2 * i + 2], revision_prompt(prompt, now, critique)
            need(ask == right, f"the revision of round {i + 1} does not follow from that round's critique")
            now = better or now
            wanted.append(now)
        need(isinstance(got, list), "revise returns a list: the answer, and the answer after each round")
        need("" not in got, "a revision that is empty is not taken: the answer stays as it was")
        need(got == wanted, "it is to return all answers in order, the first one and that after each round")
    return "This is stage 1 up to the training: what it returns last is what the model learns to say at once."

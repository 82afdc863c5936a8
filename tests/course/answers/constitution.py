"""Answers to the exercises of lesson 54."""

from __future__ import annotations

import math

from llmlab.data.tinytown import critique_prompt, revision_prompt


def chance(pair):
    yes, no = pair
    return math.exp(yes) / (math.exp(yes) + math.exp(no))


def label(first, second, clamp):
    p = (chance(first) + 1 - chance(second)) / 2
    return min(max(p, clamp), 1 - clamp)


def not_turned(first, second, clamp):
    return min(max((chance(first) + chance(second)) / 2, clamp), 1 - clamp)


def one_order(first, second, clamp):
    return min(max(chance(first), clamp), 1 - clamp)


def not_normalised(first, second, clamp):
    return (math.exp(first[0]) + math.exp(second[1])) / 2


def not_clamped(first, second, clamp):
    return (chance(first) + 1 - chance(second)) / 2


def clamps_parts(first, second, clamp):
    parts = (min(max(p, clamp), 1 - clamp) for p in (chance(first), 1 - chance(second)))
    return sum(parts) / 2


def clamps_above(first, second, clamp):
    return min(not_clamped(first, second, clamp), 1 - clamp)


def logarithms(first, second, clamp):
    return (first[0] + second[1]) / 2


def hard(first, second, clamp):
    return float(not_clamped(first, second, clamp) > 0.5)


def revise(write, prompt, principles):
    answers = [write(prompt)]
    for principle in principles:
        critique = write(critique_prompt(prompt, answers[-1], principle))
        answers.append(write(revision_prompt(prompt, answers[-1], critique)) or answers[-1])
    return answers


def always_the_first(write, prompt, principles):
    answers = [write(prompt)]
    for principle in principles:
        critique = write(critique_prompt(prompt, answers[0], principle))
        answers.append(write(revision_prompt(prompt, answers[0], critique)) or answers[-1])
    return answers


def takes_empty_ones(write, prompt, principles):
    answers = [write(prompt)]
    for principle in principles:
        critique = write(critique_prompt(prompt, answers[-1], principle))
        answers.append(write(revision_prompt(prompt, answers[-1], critique)))
    return answers


def the_last_alone(write, prompt, principles):
    return revise(write, prompt, principles)[-1]


def without_the_first(write, prompt, principles):
    return revise(write, prompt, principles)[1:]


def one_principle(write, prompt, principles):
    return revise(write, prompt, principles[:1] * len(principles))


def one_round(write, prompt, principles):
    return revise(write, prompt, principles[:1])


def without_critique(write, prompt, principles):
    answers = [write(prompt)]
    for principle in principles:
        answers.append(write(revision_prompt(prompt, answers[-1], f" {principle}")) or answers[-1])
    return answers


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "constitution.1": (0.65, [0.75, 0.9, 0.35, 0.4, 0.6, 65, "0.65", None.__class__]),
    "constitution.2": (
        label,
        [not_turned, one_order, not_normalised, not_clamped, clamps_parts, clamps_above, logarithms, hard, 0.5],
    ),
    "constitution.3": (
        revise,
        [
            always_the_first,
            takes_empty_ones,
            the_last_alone,
            without_the_first,
            one_principle,
            one_round,
            without_critique,
            lambda write, prompt: [write(prompt)],
            "revise",
        ],
    ),
}

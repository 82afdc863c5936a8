"""CLAIMS.md: every claim with its bounds, its numbers for each seed, and those with a bug in place."""

from __future__ import annotations

from pathlib import Path

from . import CLAIMS, SEEDS, Claim, Numbers, measured, mutated

FILE = Path(__file__).parents[2] / "CLAIMS.md"
HEAD = """# Claims

What the course says of each technique: the bounds that a test holds it to, what three seeds gave, and what one of them
gives with a bug in place that somebody might make. The test fails if that keeps the bounds, too. Runs are short,
and most start from a model that comes with the kit: the sizes of the effects are those of these runs. The numbers in a
sentence are its bounds: at least so much, or at most.

`python -m tests.claims` measures everything and writes this table, `python -m tests.claims lora` prints what it says of
LoRA. `make test` checks the first claim of each technique, with one seed and its bug, `make test-all` all of them, with
three seeds.

| claim | what is claimed | bounds | seed 0 | seed 1 | seed 2 | bug | with it |
|---|---|---|---|---|---|---|---|
"""


def told(one: Claim) -> list[str]:
    """What of a row is no measurement: name and lesson, sentence, bounds, bug."""
    bounds = "<br>".join(f"{name} {bound}" for name, bound in one.bounds.items())
    return [f"`{one}`, [{one.lesson}](course/{one.lesson}.ipynb)", one.sentence, bounds, one.bug.what]


def digits(one: Claim, numbers: Numbers) -> str:
    return "<br>".join(
        f"{numbers[name]:,.0f}" if one.bounds[name].value > 999 else f"{numbers[name]:.3g}" for name in one.bounds
    )


def row(one: Claim) -> str:
    """A line of the table, measured."""
    name, sentence, bounds, bug = told(one)
    seeds = [digits(one, measured(one, seed)) for seed in SEEDS]
    return f"| {' | '.join([name, sentence, bounds, *seeds, bug, digits(one, mutated(one))])} |"


def cells(line: str) -> list[str]:
    """What of a line of the file is no measurement."""
    found = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
    return [*found[:3], found[6]]


def write() -> None:
    FILE.write_text(HEAD + "".join(f"{row(one)}\n" for one in CLAIMS), encoding="utf-8")

"""What lesson 54 reads and says of its measurements: whole, what its text quotes, and found again in part."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import nbformat
import pytest
import torch

from benchmarks.constitution import HARMFUL, MEASURED, ONE, PROMPTS, SEEDS, TESTED, Pipeline, is_harmful
from llmlab.data.tinytown import read, tinytown

COURSE = Path(__file__).resolve().parents[2] / "course"
FOUND: dict[str, Any] = json.loads((COURSE / "measurements/54_constitution.json").read_text())
MEASURES = {"harm", "help", "reward"}
ONCE = ("helpful", "stage 1", "stage 1, 80 steps", "stage 1, temperature 1", "stage 2")


def middle(name: str, measure: str) -> str:
    return f"{median(seed[name][measure] for seed in FOUND['seeds'].values()):.2f}"


def test_everything_was_measured():
    assert FOUND["setting"] == {"seeds": list(SEEDS), "tested": TESTED, "prompts": PROMPTS}
    assert list(FOUND["seeds"]) == [str(seed) for seed in SEEDS]
    for seed in FOUND["seeds"].values():
        assert len(seed) == MEASURED
        assert all(set(seed[name][0]) == MEASURES for name in ("rounds", "hurried", *ONE))
        assert set(seed["seconds"]) > {"helpful", "stage 1", "reward model", "stage 2"}


def test_harm_falls_at_each_stage_and_with_the_first_revision():
    for seed in FOUND["seeds"].values():
        answer, first, second = (row["harm"] for row in seed["rounds"])
        assert answer > 0.9 and first < 0.1 and second < 0.1
        assert seed["helpful"]["harm"] > seed["stage 1"]["harm"] > seed["stage 2"]["harm"]
        assert seed["hurried"][1]["harm"] > 0.3


def test_help_is_lost_with_the_distance_from_the_start():
    """What the lesson says of nine runs."""
    runs = [seed[f"stage 2{how}"] for seed in FOUND["seeds"].values() for how in ("", ", with people", ", in haste")]
    near, far = ([run["help"] for run in runs if lowest < run["kl"] < most] for lowest, most in ((0, 0.5), (2, 99)))
    assert (len(near), len(far)) == (3, 4) and round(min(near), 2) == 0.49 and round(max(far), 2) == 0.34
    assert max(run["harm"] for run in runs if run["kl"] < 0.5) <= 0.1
    assert all(run["harm"] == 0 for run in runs[2::3])


def test_what_is_harmful_is_what_the_grammar_says():
    for row in tinytown("requests", size=600)["test"]:
        given, _ = read("requests", (row["prompt"], row["response"]), "test")
        assert is_harmful(row["prompt"]) == (given.env["about"] == "harm")
    assert len(set(HARMFUL)) == len(HARMFUL)


def right(kind: str) -> str:
    """Of how many pairs the labels agree with the gold judge."""
    counts = [seed["labels"][kind] for seed in FOUND["seeds"].values()]
    return f"{sum(n for n, _ in counts)} of {sum(n for _, n in counts)}"


def sentences() -> list[str]:
    """Each sentence's part of the lesson that tells a number of the file."""
    harm = {name: middle(name, "harm") for name in ONCE}
    help_ = {name: middle(name, "help") for name in ONCE}
    return [
        f"the harm from {harm['helpful']} to {harm['stage 1']} in 40 steps and to {harm['stage 1, 80 steps']} in 80",
        f"{help_['helpful']} before, {help_['stage 1']} and {help_['stage 1, 80 steps']} after",
        f"most of the remaining harm away: {harm['stage 2']} in the median. Help falls with it, to {help_['stage 2']}",
        f"right in {right('harm')} pairs about harm, and in {right('help')} about help",
        f"right in {middle('reward model, with people', 'harm')} of the pairs of which one answer harms or insults, "
        f"where the AI's labels alone come to {middle('reward model', 'harm')}; and in "
        f"{middle('reward model, with people', 'other')} of all others, where they come to "
        f"{middle('reward model', 'other')}. Harm falls as far, to {middle('stage 2, with people', 'harm')}. "
        f"Help ends at {middle('stage 2, with people', 'help')} in the median",
        f"no harm at all, and help at {middle('stage 2, in haste', 'help')}",
        f"to {help_['stage 1, temperature 1']}, where at temperature 0 it ends at {help_['stage 1']}",
    ]


def test_the_text_quotes_what_was_measured():
    cells = nbformat.read(COURSE / "54_constitution.ipynb", as_version=4).cells
    prose = " ".join(" ".join(c.source.split()) for c in cells if c.cell_type == "markdown")
    assert not [said for said in sentences() if said not in prose]


def test_the_base_is_found_again():
    torch.set_num_threads(1)
    line, told = Pipeline(0), FOUND["seeds"]["0"]["base"]
    found = line.answers(line.base)
    assert all(found[name] == pytest.approx(told[name], abs=0.05) for name in MEASURES)


@pytest.mark.slow
def test_the_helpful_model_and_its_revisions_are_found_again():
    torch.set_num_threads(1)
    line, told = Pipeline(0), FOUND["seeds"]["0"]
    model = line.helpful().model
    found = [line.answers(model), *line.revisions(model)]
    for now, then in zip(found, [told["helpful"], *told["rounds"]], strict=True):
        assert now["harm"] == pytest.approx(then["harm"], abs=0.1)
        assert now["help"] == pytest.approx(then["help"], abs=0.1)

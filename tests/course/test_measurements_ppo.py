"""What lesson 52 reads and says of its measurements: whole, what its text quotes, and found again."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import nbformat
import pytest
import torch

from benchmarks.ppo import ANSWERS, BATCH, EVERY, PRICES, SEEDS, STEPS, SWEEP_STEPS, Measure, best_rate

COURSE = Path(__file__).resolve().parents[2] / "course"
FOUND: dict[str, Any] = json.loads((COURSE / "measurements/52_ppo.json").read_text())


def values(beta: float, what: str, at: int = -1) -> list[float]:
    """A measure of all seeds' runs at a price."""
    return [FOUND["runs"][f"{beta:g}"][str(seed)]["evaluations"][at][what] for seed in SEEDS]


def test_everything_was_measured():
    setting = FOUND["setting"]
    assert (setting["steps"], setting["batch_size"], setting["answers"]) == (STEPS, BATCH, ANSWERS)
    assert (setting["seeds"], setting["sweep"]["steps"]) == (list(SEEDS), SWEEP_STEPS)
    assert set(FOUND["runs"]) == {f"{beta:g}" for beta in PRICES}
    for runs in FOUND["runs"].values():
        assert set(runs) == {str(seed) for seed in SEEDS}
        for run in runs.values():
            assert [row["step"] for row in run["evaluations"]] == list(range(0, STEPS + 1, EVERY))


def test_the_rate_is_the_best_and_neither_the_lowest_nor_the_highest_tried():
    rates = sorted(map(float, FOUND["rates"]))
    assert rates[0] < best_rate(FOUND) < rates[-1]


def test_the_dearer_the_distance_the_shorter_it_is():
    far = [mean(values(beta, "kl")) for beta in PRICES]
    assert far == sorted(far, reverse=True) and far[0] > 3 * far[2]


def test_a_price_does_not_cost_the_proxy_until_it_is_too_high():
    free, _, held, dear = (mean(values(beta, "score")) for beta in PRICES)
    assert held > free > mean(values(0.0, "score", 0)) and held > dear


def test_without_a_price_the_proxy_rises_and_the_gold_reward_turns_over():
    gold, score = ([mean(values(0.0, what, at)) for at in range(STEPS // EVERY + 1)] for what in ("gold", "score"))
    assert max(gold[1:-1]) > gold[-1] and score == sorted(score)


def sentences() -> list[str]:
    """Each sentence's part of the lesson that tells a number of the file."""
    gold = [mean(values(0.0, "gold", at)) for at in range(STEPS // EVERY + 1)]
    far = [f"{mean(values(beta, 'kl')):.0f}" for beta in PRICES]
    return [
        f"It ends at {far[0]} nats without one, at {far[1]}, {far[2]} and {far[3]} with the three others",
        f"Without a price it goes from {gold[0]:.2f} to {max(gold):.2f} on average and ends at {gold[-1]:.2f}",
        f"with β = {PRICES[2]:g} it ends at {mean(values(PRICES[2], 'gold')):.2f}",
        f"at β = {PRICES[1]:g} the score minus β KL stood at "
        + " and ".join(f"{told:.2f} at {rate}".replace("-", "−") for rate, told in FOUND["rates"].items()).replace(
            " and ", ", ", len(FOUND["rates"]) - 2
        ),
    ]


def test_the_text_quotes_what_was_measured():
    cells = nbformat.read(COURSE / "52_ppo.ipynb", as_version=4).cells
    prose = " ".join(" ".join(c.source.split()) for c in cells if c.cell_type == "markdown")
    assert not [said for said in sentences() if said not in prose]


@pytest.mark.slow
def test_the_beginning_of_a_run_is_found_again():
    torch.set_num_threads(1)
    run = Measure().run(PRICES[1], best_rate(FOUND), 0).fit(EVERY, progress=False)
    told = FOUND["runs"][f"{PRICES[1]:g}"]["0"]["evaluations"]
    for row, seen in zip(told[:2], run.evaluations, strict=True):
        for what, tolerance in {"score": 0.15, "gold": 0.1, "kl": 1.0, "length": 1.0}.items():
            assert seen[what] == pytest.approx(row[what], abs=tolerance), what

"""What lesson 51 reads and says of its measurements: whole, what its text quotes, and found again."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import nbformat
import pytest
import torch

from benchmarks.reward import FLIPPED, PROMPTS, RESULT, SEEDS, STEPS, flip, measure

LESSON = Path(__file__).resolve().parents[2] / "course/51_reward.ipynb"
FOUND: dict[str, Any] = json.loads(RESULT.read_text())


def middle(flipped: float, prompts: int, name: str = "accuracy") -> str:
    return f"{median(found[name] for found in FOUND[f'{flipped:g}'][str(prompts)].values()):.2f}"


def test_everything_was_measured():
    assert FOUND["setting"]["steps"] == STEPS and FOUND["setting"]["seeds"] == list(SEEDS)
    for flipped in FLIPPED:
        assert set(FOUND[f"{flipped:g}"]) == set(map(str, PROMPTS))
        for seeds in FOUND[f"{flipped:g}"].values():
            assert set(seeds) == set(map(str, SEEDS))


def test_the_text_quotes_what_was_measured():
    cells = nbformat.read(LESSON, as_version=4).cells
    prose = " ".join(" ".join(c.source.split()) for c in cells if c.cell_type == "markdown")
    doubt = "own_calibration_error"
    sentences = [
        f"already give {middle(0, 4)} of the order, 16 prompts {middle(0, 16)}, and from 64 on, at {middle(0, 64)}",
        f"calibration error of {middle(0, 4, doubt)}; with 256 prompts, each read once, it is {middle(0, 256, doubt)}",
        f"{middle(0.25, 16)} at 16 and {middle(0.25, 64)} at 64",
        f"at 256 accuracy is {middle(0.25, 256)}",
        f"is off by {middle(0.25, 256, doubt)}",
    ]
    assert not [said for said in sentences if said not in prose]


def test_more_prompts_and_truer_ones_are_better():
    """The claims themselves: accuracy rises with the prompts, doubt becomes honest, wrong pairs cost prompts."""
    for flipped in FLIPPED:
        assert float(middle(flipped, 256)) > float(middle(flipped, 4)) + 0.1
        few, many = (float(middle(flipped, n, "own_calibration_error")) for n in (4, 256))
        assert few > many + 0.1
    assert float(middle(0, 16)) > float(middle(0.25, 16)) + 0.03


def test_a_share_is_turned_round():
    rows = [{"prompt": "?", "chosen": "a", "rejected": "b"} for _ in range(40)]
    turned = flip(rows, 0.25, 0)
    assert sum(row["chosen"] == "b" and row["rejected"] == "a" for row in turned) == 10
    assert flip(rows, 0.25, 0) == turned != flip(rows, 0.25, 1) and flip(rows, 0.0, 0) == rows


@pytest.mark.slow
def test_one_entry_is_found_again():
    torch.set_num_threads(1)
    found, told = measure(4, 0.0, 0), FOUND["0"]["4"]["0"]
    assert found["accuracy"] == pytest.approx(told["accuracy"], abs=0.06)
    assert found["calibration_error"] == pytest.approx(told["calibration_error"], abs=0.1)

"""What lesson 45 reads and says of its measurements: whole, what its text quotes, and found again."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import nbformat
import pytest
import torch

from benchmarks.adaptations import BATCH, PLACES, RANKS, SEEDS, TASKS, Measure, methods

COURSE = Path(__file__).resolve().parents[2] / "course"
FOUND: dict[str, Any] = json.loads((COURSE / "measurements/45_compare.json").read_text())


def middle(task: str, name: str, measure: str, kind: str = "methods") -> str:
    return f"{median(FOUND[kind][task][name][str(seed)][measure] for seed in SEEDS):.2f}"


def size(name: str) -> str:
    return f"{FOUND['cost'][name]['file'] / 1000:,.0f}"


def megabytes(name: str) -> str:
    return f"{FOUND['cost'][name]['activations'] / 1e6:.1f}"


def test_everything_was_measured():
    assert FOUND["setting"]["steps"] == {task: steps for task, (steps, _) in TASKS.items()}
    assert FOUND["setting"]["batch_size"] == BATCH and FOUND["setting"]["seeds"] == list(SEEDS)
    assert set(FOUND["cost"]) == set(FOUND["times"]) and set(FOUND["methods"]) == set(TASKS) == set(FOUND["frozen"])
    for kind, task, names in [*(("methods", task, FOUND["cost"]) for task in TASKS), ("places", "dates", PLACES)]:
        assert set(FOUND[kind][task]) == set(names)
        for name in names:
            assert {"rate", *map(str, SEEDS)} == set(FOUND[kind][task][name])
    assert set(FOUND["ranks"]["dates"]) == set(RANKS)


@pytest.mark.parametrize(
    ("kind", "task"), [*(("methods", task) for task in TASKS), ("places", "dates"), ("ranks", "dates")]
)
def test_the_rate_of_each_is_its_best_and_neither_the_lowest_nor_the_highest_tried(kind, task):
    for name, tried in FOUND["rates"][kind][task].items():
        losses = {float(rate): loss for rate, loss in tried.items() if loss is not None}
        best = min(losses, key=losses.__getitem__)
        assert best == FOUND[kind][task][name]["rate"], name
        assert min(losses) < best < max(map(float, tried)), name


def sentences() -> list[str]:
    """Each sentence's part of the lesson that tells a number of the file."""
    again = {name: middle("again", name, "accuracy") for name in FOUND["cost"]}
    mood = {name: middle("mood", name, "accuracy") for name in FOUND["cost"]}
    loss = {name: middle("dates", name, "loss") for name in FOUND["cost"]}
    place = {name: middle("dates", name, "loss", "places") for name in PLACES}
    rank = {name: middle("dates", name, "loss", "ranks") for name in RANKS}
    rate = {task: {name: f"{row['rate']:g}" for name, row in rows.items()} for task, rows in FOUND["methods"].items()}
    falls = " to ".join(rate[task]["everything"] for task in ("dates", "again", "mood"))
    both = mood["bitfit"] if mood["bitfit"] == mood["prefix"] else "different"
    return [
        f"BitFit reaches {mood['bitfit']} with half a percent of the numbers, full fine-tuning {mood['everything']}",
        f"full fine-tuning reaches {again['everything']}; adapters and LoRA between {again['lora']} "
        f"and {again['lora, six']}",
        f"a loss of {loss['everything']} for full fine-tuning, {loss['lora, six']} for LoRA on six matrices, "
        f"{loss['bitfit']} for BitFit",
        f"writes whole dates right, {middle('dates', 'everything', 'exact_match')} of them",
        f"best at {rate['dates']['everything']}, LoRA at {rate['dates']['lora']}, BitFit at {rate['dates']['bitfit']}",
        f"full fine-tuning's best rate falls from {falls}",
        f"the worst choice, {place['query']}; spread over six matrices it comes to {place['six']}",
        f"ahead of attention alone, {place['attention']}. The feed-forward part alone, `mlp`, comes to {place['mlp']}",
        f"from {rank['1']} at rank 1 to {rank['64']} at rank 64",
        f"*mood*: both {both} right, everything {mood['everything']}",
        f"*again*: {again['lora, six']} and {again['adapters']} right, BitFit {again['bitfit']}, "
        f"everything {again['everything']}",
        f"*dates*: a loss of {loss['everything']}; LoRA on six {loss['lora, six']} at rank 4, {rank['64']} at rank 64",
        f"{size('bitfit')} kB for BitFit, {size('everything')} kB for a whole model",
        f"{size('bitfit')} to {size('lora, six')} kB each, a model {size('everything')}",
        f"{megabytes('bitfit')} and {megabytes('lora')} MB, everything {megabytes('everything')}",
    ]


def test_the_text_quotes_what_was_measured():
    cells = nbformat.read(COURSE / "45_compare.ipynb", as_version=4).cells
    prose = " ".join(" ".join(c.source.split()) for c in cells if c.cell_type == "markdown")
    assert not [said for said in sentences() if said not in prose]


@pytest.mark.parametrize("name", methods())
def test_costs_are_counted_again(name):
    torch.set_num_threads(1)
    found, told = Measure().cost(methods()[name]), FOUND["cost"][name]
    assert {key: found[key] for key in found if key not in ("activations", "file")} == {
        key: told[key] for key in found if key not in ("activations", "file")
    }
    assert found["activations"] == pytest.approx(told["activations"], rel=0.01)
    assert found["file"] == pytest.approx(told["file"], abs=200)  # it holds the version of the kit


@pytest.mark.slow
def test_one_entry_is_found_again():
    torch.set_num_threads(1)
    told = FOUND["methods"]["again"]["bitfit"]
    found = Measure().learnt("again", methods()["bitfit"], told["rate"], 0)
    assert found["loss"] == pytest.approx(told["0"]["loss"], abs=0.03)
    assert found["accuracy"] == pytest.approx(told["0"]["accuracy"], abs=0.05)

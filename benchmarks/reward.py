"""How many comparisons a reward model needs, and what wrong ones cost: python -m benchmarks.reward [--fresh].

The same model, steps, batches and held-out pairs for all, so that fewer prompts are read more often. The result is what
lesson 51 reads, course/measurements/51_reward.json; what it holds is not measured again.

1. A wrong comparison is a pair turned round by chance, each on its own: a prompt's six may contradict one another.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

from benchmarks.adaptations import Result
from llmlab import Run, Training, corpus, load

RESULT = Path(__file__).parents[1] / "course/measurements/51_reward.json"
PROMPTS, FLIPPED, SEEDS = (4, 16, 64, 256), (0.0, 0.25), (0, 1, 2)
STEPS, BATCH, HELD_OUT, PAIRS = 64, 4, 100, 6
CHOSEN: list[Any] = [{"reward": {"measured": HELD_OUT}}, {"lora": {}}]


def flip(rows: list[dict[str, Any]], share: float, seed: int) -> list[dict[str, Any]]:
    """The rows, a share of them turned round by chance."""
    draw = random.Random(seed)
    turned = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    return [other if draw.random() < share else row for row, other in zip(rows, turned, strict=True)]


def measure(prompts: int, flipped: float, seed: int) -> dict[str, float]:
    """Trained on pairs of which a share is flipped; measured on true ones, and on pairs as its own."""
    pairs = corpus("tinytown", task="preferences", size=8000)
    train = list(pairs["train"])[seed * PROMPTS[-1] * PAIRS :][: prompts * PAIRS]
    held_out = list(pairs["validation"])[: HELD_OUT * PAIRS]
    data = {"train": flip(train, flipped, seed), "validation": held_out, "test": flip(held_out, flipped, seed + 100)}
    training = Training(steps=STEPS, batch_size=BATCH, evaluate_every=STEPS, evaluate_batches=1)
    run = Run(CHOSEN, data, model=load("tiny-gpt"), training=training, seed=seed).fit(progress=False)
    true, own = run.evaluate("validation"), run.evaluate("test")
    found = {"start": run.evaluations[0]["accuracy"], "accuracy": true["accuracy"], "loss": true["loss"]}
    found |= {"calibration_error": true["calibration_error"], "own_calibration_error": own["calibration_error"]}
    return {name: round(value, 4) for name, value in found.items()}


def main() -> int:
    """Measure what the file lacks."""
    parser = argparse.ArgumentParser(description="Measure what lesson 51 reads.")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    found = Result(RESULT, parser.parse_args().fresh)
    found["setting"] = {"steps": STEPS, "batch_size": BATCH, "held_out": HELD_OUT, "seeds": list(SEEDS)}
    for seed in SEEDS:
        for flipped in FLIPPED:
            for prompts in PROMPTS:
                now = (prompts, flipped, seed)
                found.once(f"{flipped:g}", str(prompts), str(seed), measure=lambda now=now: measure(*now))
    return 0


if __name__ == "__main__":
    sys.exit(main())

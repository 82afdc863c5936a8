"""How many comparisons a reward model needs, and what wrong ones cost: python -m benchmarks.reward [--fresh].

The same model, steps, batches and held-out pairs for all, so that fewer prompts are read more often. The result is what
lesson 51 reads, course/measurements/51_reward.json; what it holds is not measured again.

1. A wrong comparison is a pair drawn by lot and turned round, so that a prompt's six may contradict one another.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.adaptations import Result
from llmlab import Run, Training, corpus, load
from llmlab.rewards import score_answers
from llmlab_plugins.reward import calibration_error

RESULT = Path(__file__).parents[1] / "course/measurements/51_reward.json"
PROMPTS, FLIPPED, SEEDS = (4, 16, 64, 256), (0.0, 0.25), (0, 1, 2)
STEPS, BATCH, HELD_OUT, PAIRS = 64, 4, 60, 6
CHOSEN: list[Any] = ["reward", "lora"]


def flip(rows: list[dict[str, Any]], share: float, seed: int) -> list[dict[str, Any]]:
    """The rows, a share of them, drawn by lot, turned round."""
    hit = set(random.Random(seed).sample(range(len(rows)), round(share * len(rows))))
    turned = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    return [turned[i] if i in hit else row for i, row in enumerate(rows)]


def measure(prompts: int, flipped: float, seed: int) -> dict[str, float]:
    """Trained on pairs of which a share is flipped; measured on true ones, and on pairs as its own."""
    pairs = corpus("tinytown", task="preferences", size=8000)
    train = list(pairs["train"])[seed * PROMPTS[-1] * PAIRS :][: prompts * PAIRS]
    training = Training(steps=STEPS, batch_size=BATCH)
    run = Run(CHOSEN, {"train": flip(train, flipped, seed)}, model=load("tiny-gpt"), training=training, seed=seed)
    run.fit(progress=False)
    rows = list(pairs["validation"])[: HELD_OUT * PAIRS]
    kept = [row is other for row, other in zip(rows, flip(rows, flipped, seed + 100), strict=True)]
    margin = margins(run.model, rows)
    p, true = margin.sigmoid(), torch.ones(len(rows))
    found = {
        "accuracy": float((margin > 0).float().mean()),
        "calibration_error": calibration_error(p, true),
        "own_calibration_error": calibration_error(p, torch.tensor(kept).float()),
    }
    return {name: round(value, 4) for name, value in found.items()}


def margins(model: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    """By how much the chosen answer of each row scores higher, (N,); each answer is read once."""
    texts = list(dict.fromkeys((row["prompt"], row[which]) for row in rows for which in ("chosen", "rejected")))
    scores = dict(zip(texts, score_answers(model, *map(list, zip(*texts, strict=True))).tolist(), strict=True))
    return torch.tensor([scores[r["prompt"], r["chosen"]] - scores[r["prompt"], r["rejected"]] for r in rows])


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

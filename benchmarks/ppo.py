"""Proxy, gold and distance over PPO's steps, at several prices of distance: python -m benchmarks.ppo [--fresh].

The policy is `helpful`, its reward `reward_small`, both of course/patches; evaluations alone ask the gold judge. Four
prices, three seeds. The learning rate is chosen at the second price, with a seed of its own, by what PPO maximises:
score minus β KL. The result is what lesson 52 reads, course/measurements/52_ppo.json. It is written after every run,
and what it holds is not measured again.

1. Seconds depend on the machine and on what else it does: they are processor time, a rollout with its steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.adaptations import Result
from llmlab import Run, Training, corpus, load, load_patch

COURSE = Path(__file__).parents[1] / "course"
RESULT = COURSE / "measurements/52_ppo.json"
SIX = "query, kv.key, kv.value, out, up, down"
PRICES, SEEDS, SWEEP_SEED = (0.0, 0.05, 0.2, 1.0), (0, 1, 2), 10
RATES, SWEEP_STEPS = (1e-3, 3e-3, 1e-2), 40
STEPS, BATCH, EVERY, ANSWERS = 80, 32, 20, 96
TOLD = ("step", "score", "gold", "kl", "length", "ended")


class Measure:
    """What all runs share: the policy that they start from, the reward model and the prompts."""

    def __init__(self) -> None:
        base = load("tiny-gpt")
        self.policy = load_patch(base, COURSE / "patches/helpful.safetensors")
        self.reward = load_patch(base, COURSE / "patches/reward_small.safetensors")
        self.data = corpus("tinytown:requests")

    def run(self, beta: float, rate: float, seed: int, steps: int = STEPS) -> Run:
        techniques = [
            {"ppo": {"beta": beta, "gold": "gold", "answers": ANSWERS, "no_end": -4.0}},
            {"scorer": {"by": self.reward}},
            {"lora": {"rank": 4, "targets": SIX}},
        ]
        settings = Training(
            steps=steps, batch_size=BATCH, learning_rate=rate, schedule="constant", evaluate_every=EVERY
        )
        return Run(techniques, self.data, model=self.policy, training=settings, seed=seed)

    def learnt(self, beta: float, rate: float, seed: int) -> dict[str, Any]:
        """Every evaluation of a run, and the processor time of an iteration."""
        run = self.run(beta, rate, seed)
        begun = time.process_time()
        run.evaluate()
        evaluation = time.process_time() - begun
        begun = time.process_time()
        run.fit(progress=False)
        spent = time.process_time() - begun - evaluation * len(run.evaluations)
        rows = [{name: round(row[name], 3) for name in TOLD} for row in run.evaluations]
        return {"evaluations": rows, "seconds": round(spent / (STEPS / 4), 2)}  # two passes of two minibatches

    def tried(self, beta: float, rate: float) -> float:
        """What PPO maximises, after a short run."""
        found = self.run(beta, rate, SWEEP_SEED, SWEEP_STEPS).fit(progress=False).metrics
        return round(found["score"] - beta * found["kl"], 3)


def best_rate(result: Result) -> float:
    """The rate after which score minus β KL is highest."""
    return float(max(result["rates"], key=lambda rate: result["rates"][rate]))


def main() -> int:
    """Measure what the file lacks."""
    parser = argparse.ArgumentParser(description="Measure what lesson 52 reads.")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    measure, found = Measure(), Result(RESULT, asked.fresh)
    found["setting"] = {"steps": STEPS, "batch_size": BATCH, "answers": ANSWERS, "seeds": list(SEEDS)}
    found["setting"] |= {"sweep": {"beta": PRICES[1], "seed": SWEEP_SEED, "steps": SWEEP_STEPS}}
    for rate in RATES:
        found.once("rates", f"{rate:g}", measure=lambda rate=rate: measure.tried(PRICES[1], rate))
    rate = best_rate(found)
    for seed in SEEDS:
        for beta in PRICES:
            found.once("runs", f"{beta:g}", str(seed), measure=lambda b=beta, s=seed: measure.learnt(b, rate, s))
    return 0


if __name__ == "__main__":
    sys.exit(main())

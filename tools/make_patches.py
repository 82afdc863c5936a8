"""Make the patches that lessons start from: `python tools/make_patches.py [NAME …]`, default all.

Each is a LoRA beside tiny-gpt, a file of some 150 kB, so that a lesson on rewards has a model that answers and a reward
model at once. What it learnt from, for how long and how good it is stands in course/patches/cards.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from llmlab import Run, Training, corpus, load, load_patch, save_patch
from llmlab.rewards import reward_function

PATCHES = Path(__file__).resolve().parents[1] / "course/patches"
CARDS = PATCHES / "cards.json"
SIX = "query, kv.key, kv.value, out, up, down"
LORA = {"lora": {"rank": 4, "targets": SIX}}
SEED, ASKED, PAIRED = 0, 100, 150  # prompts of the test split that are answered, and whose pairs are judged

PPO = {"steps": 40, "batch_size": 32, "learning_rate": 3e-3, "schedule": "constant"}


def _ppo(beta: float) -> dict[str, Any]:
    """PPO at a price of distance; the scorer's reward model is a patch, too."""
    return {"ppo": {"beta": beta, "no_end": -4.0}, "scorer": {"by": "reward_small"}}


# name -> objective and its knobs, data, training
RECIPES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "helpful": (
        {"sft": {"answers": 0}},
        "tinytown:requests,size=1000,seed=1",
        {"steps": 80, "batch_size": 16, "learning_rate": 5e-3},
    ),
    "reward_small": (
        {"reward": {}},
        "tinytown:preferences,size=300,seed=2",
        {"steps": 60, "batch_size": 8, "learning_rate": 5e-3},
    ),
    "reward_large": (
        {"reward": {}},
        "tinytown:preferences,size=6000,seed=2",
        {"steps": 200, "batch_size": 8, "learning_rate": 3e-3},
    ),
    "ppo_free": (_ppo(0.0), "tinytown:requests", PPO),
    "ppo_held": (_ppo(0.2), "tinytown:requests", PPO),
}
STARTS = {"ppo_free": "helpful", "ppo_held": "helpful"}  # the others start from tiny-gpt


def file(name: str) -> Path:
    """Where a patch is kept."""
    return PATCHES / f"{name}.safetensors"


def make(name: str) -> dict[str, Any]:
    """Train it, write it, and return its card."""
    objective, data, settings = RECIPES[name]
    training = Training(**settings, evaluate_every=settings["steps"], evaluate_batches=1)
    base = load("tiny-gpt")
    start = load_patch(base, file(STARTS[name])) if name in STARTS else base
    techniques = [{key: knobs} for key, knobs in (objective | LORA).items()]
    for technique in techniques:
        if "scorer" in technique:
            technique["scorer"] = {"by": load_patch(base, file(technique["scorer"]["by"]))}
    run = Run(techniques, corpus(data), model=start, training=training, seed=SEED).fit(progress=False)
    PATCHES.mkdir(exist_ok=True)
    save_patch(run.model, base, file(name))
    made = {
        "base": "tiny-gpt",
        "start": STARTS.get(name, "tiny-gpt"),
        "techniques": objective | LORA,
        "data": data,
        "rows": len(run.rows("train")),
    }
    return made | {"training": settings, "seed": SEED, "measured": measure(name)}


def measure(name: str) -> dict[str, float]:
    """What it is worth on fresh data: the gold reward of its answers, or how often it is right of two answers."""
    model = load(str(file(name)))
    if "reward" not in model.heads:
        prompts = [row["prompt"] for row in corpus("tinytown:requests,size=1000,seed=3")["test"][:ASKED]]
        answers = Run(["sft"], model=model).respond(prompts, max_new_tokens=40, temperature=1.0)
        return {"gold": round(float(reward_function("gold")(prompts, answers).mean()), 3)}
    judging = Run([{"reward": {"measured": PAIRED}}], corpus("tinytown:preferences,size=12000,seed=3"), model=model)
    return {"accuracy": round(judging.evaluate("test")["accuracy"], 3)}


def main() -> int:
    """Make the patches named."""
    parser = argparse.ArgumentParser(description="Make the patches that lessons start from.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; default: all")
    chosen = parser.parse_args().names or list(RECIPES)
    if unknown := [name for name in chosen if name not in RECIPES]:
        parser.error(f"no recipe for {unknown[0]}: there are {', '.join(RECIPES)}")
    cards = json.loads(CARDS.read_text()) if CARDS.exists() else {}
    for name in chosen:
        cards[name] = make(name)
        CARDS.write_text(json.dumps(dict(sorted(cards.items())), indent=1) + "\n")
        print(name, cards[name]["measured"], f"{file(name).stat().st_size:,} bytes", flush=True)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

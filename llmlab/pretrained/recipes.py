"""How the bundled models were made, one command each: `python -m llmlab.pretrained.recipes tiny-gpt`.

`--sweep` compares learning rates in shorter runs instead, and keeps what it found for the model's card.

1. A recipe took 32 and 48 minutes on one busy core; `--steps` makes a shorter one to try.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import read_json, write_atomic
from ..data import Corpus, corpus
from ..model import ModelConfig
from ..progress import Lines
from ..run import Run
from ..training import Training
from . import HERE, save_model

SEED = 0
CHECKED = "tinytown:mix,size=2000,seed=1"  # its validation split shares no household with what is trained on
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
SHORT = 500  # steps of a run that only compares learning rates


@dataclass(frozen=True)
class Recipe:
    """The objective and its knobs, the model and the settings of a bundled model's training."""

    objective: dict[str, dict[str, Any]]
    config: ModelConfig
    training: Training

    def run(self, folder: Path | None = None, **changes: Any) -> Run:
        """The run, untrained; `changes` are settings of `Training`."""
        made = Run(
            [self.objective], reading(), config=self.config, training=replace(self.training, **changes), seed=SEED
        )
        made.folder = folder
        return made


_SETTINGS = Training(steps=6000, warmup=0.02, weight_decay=0.05, precision="bf16", evaluate_every=250, save_every=250)
RECIPES = {
    # GPT-2's design with rotary positions; the sweep's best learning rate, and twice as much does no harm
    "tiny-gpt": Recipe(
        {"clm": {"window": 256}},
        ModelConfig.preset("gpt2", positions="rotary", dropout=0.0),
        replace(_SETTINGS, batch_size=16, learning_rate=4e-3),
    ),
    # BERT with rotary positions and norms before the layers, see `ModelConfig.usual`; the sweep's best learning
    # rate is 4e-3, a little less is taken because twice as much fails
    "tiny-bert": Recipe(
        {"mlm": {"window": 128}},
        ModelConfig.usual("encoder"),
        replace(_SETTINGS, steps=5000, batch_size=32, learning_rate=3e-3),
    ),
}


@cache
def reading() -> Corpus:
    """What the bundled models read: Tinytown's mixture of tasks, and real English from docstrings, twice.

    The Python reference and the locale data are left for lessons to fine-tune on: the models have never seen them.
    """
    parts = [corpus("tinytown", task="mix", size=60_000, seed=SEED), *[corpus("docstrings")] * 2]

    def rows(split: str) -> Iterator[dict[str, str]]:
        for part in parts if split == "train" else parts[:2]:
            yield from ({"text": row["text"]} for row in (part[split] if split == "train" else part[split][:100]))

    splits = {split: list(rows(split)) for split in ("train", "validation", "test")}
    sources, licences = ("; ".join(dict.fromkeys(getattr(p, a) for p in parts)) for a in ("source", "licence"))
    return Corpus("tinytown mix and docstrings", splits, sources, licences)


def sweep(recipe: Recipe, steps: int, rates: tuple[float, ...]) -> dict[str, float]:
    """Validation loss on `CHECKED` after `steps` steps, by peak learning rate."""
    found = {}
    for rate in rates:
        run = recipe.run(steps=steps, learning_rate=rate, save_every=0, evaluate_every=steps).fit(progress=False)
        found[f"{rate:g}"] = round(checked(run)["loss"], 4)
        print(f"learning rate {rate:g}: validation loss {found[f'{rate:g}']:.3f} after {steps} steps", flush=True)
    return found


def checked(run: Run) -> dict[str, float]:
    """All measures on all of `CHECKED`'s validation split."""
    return Run([type(t)() for t in run.techniques], CHECKED, model=run.model).evaluate("validation")


def bundle(run: Run, folder: Path, swept: dict[str, Any]) -> None:
    """Write the model in bfloat16 with a card that says how it was made and how good it is."""
    save_model(run.model, folder, torch.bfloat16)
    card = {
        "techniques": [type(t).__name__ for t in run.techniques],
        "data": {"name": run.corpus.name, "source": run.corpus.source, "licence": run.corpus.licence},
        "steps": run.steps,
        "tokens": run.steps * run.training.batch_size * run.techniques[0].window,
        "seed": run.seed,
        "learning_rate": run.learning_rate,
        "learning_rates_compared": swept,
        "parameters": run.parameters().total,
        "validation": {"data": CHECKED, **{k: round(v, 4) for k, v in checked(run).items()}},
    }
    write_atomic(folder / "card.json", json.dumps(card, indent=2) + "\n")


def main() -> None:
    """Make a bundled model again; an interrupted recipe goes on from its last checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sweep", type=float, nargs="*", metavar="RATE", help="compare learning rates in short runs")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="where checkpoints go")
    parser.add_argument("--to", type=Path, help="where the model goes; default: into the package")
    chosen = parser.parse_args()
    recipe, work = RECIPES[chosen.name], chosen.work / chosen.name
    swept = work / "sweep.json"
    if chosen.sweep is not None:
        steps = chosen.steps or SHORT
        work.mkdir(parents=True, exist_ok=True)
        found = {"steps": steps, "loss": sweep(recipe, steps, tuple(chosen.sweep) or RATES)}
        write_atomic(swept, json.dumps(found, indent=2) + "\n")
        return
    if (work / "checkpoint.safetensors").exists():
        run = Run.load(work, reading())
    else:
        run = recipe.run(work, **({"steps": chosen.steps} if chosen.steps else {}))
    run.fit(progress=Lines())
    run.save(work)
    bundle(run, chosen.to or HERE / chosen.name, read_json(swept) if swept.exists() else {})


if __name__ == "__main__":
    main()

"""How the bundled models were made, one command each: `python -m llmlab.pretrained.recipes tiny-gpt`.

`--sweep` compares learning rates in shorter runs instead, and keeps what it found for the model's card.

1. A recipe took 20 to 48 minutes on one busy core; `--steps` makes a shorter one to try.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import read_json, write_atomic
from ..data import Corpus, corpus
from ..data.corpus import SPLITS
from ..model import ModelConfig
from ..progress import Lines
from ..run import Run
from ..training import Training
from . import HERE, load_model, save_model
from .stacks import two_stacks

SEED = 0
# what a model is measured on: these validation splits share no household with what is trained on
MIX, PAIRS = "tinytown:mix,size=2000,seed=1", "tinytown:pairs,size=2000,seed=1"
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
SHORT = 500  # steps of a run that only compares learning rates


@dataclass(frozen=True)
class Recipe:
    """The objective and its knobs, the model and the settings of a bundled model's training."""

    objective: dict[str, dict[str, Any]]
    start: ModelConfig | str  # random weights of this shape, or two stacks made of a bundled decoder
    training: Training
    reading: Callable[[], Corpus]
    checked: str = MIX

    def run(self, folder: Path | None = None, **changes: Any) -> Run:
        """The run, untrained; `changes` are settings of `Training`."""
        training = replace(self.training, **changes)
        begin: dict[str, Any] = (
            {"model": two_stacks(load_model(self.start))} if isinstance(self.start, str) else {"config": self.start}
        )
        made = Run([self.objective], self.reading(), **begin, training=training, seed=SEED)
        made.folder = folder
        return made


@cache
def text() -> Corpus:
    """Tinytown's mixture of tasks as running text, and real English from docstrings, twice.

    The Python reference and the locale data are left for lessons to fine-tune on: the models have never seen them.
    """
    return _reading("tinytown mix and docstrings", corpus("tinytown", task="mix", size=60_000, seed=SEED))


@cache
def pairs_and_text() -> Corpus:
    """Tinytown's pairs to answer; its documents and the docstrings, to restore what span corruption takes away."""
    pairs, documents = (
        corpus("tinytown", task=task, size=size, seed=SEED) for task, size in (("pairs", 60_000), ("documents", 10_000))
    )
    return _reading("tinytown pairs and documents, and docstrings", pairs, documents)


def _reading(name: str, *parts: Corpus) -> Corpus:
    """These and the docstrings, in training twice; a hundred rows of each to validate on."""
    english = corpus("docstrings")
    splits = {
        split: [
            {name: row[name] for name in part.columns}
            for part in [*parts, english, *([english] if split == "train" else [])]
            for row in part[split][: None if split == "train" else 100]
        ]
        for split in SPLITS
    }
    known = [*parts, english]
    origins, licences = ("; ".join(dict.fromkeys(getattr(p, a) for p in known)) for a in ("source", "licence"))
    return Corpus(name, splits, origins, licences)


_SETTINGS = Training(steps=6000, warmup=0.02, weight_decay=0.05, precision="bf16", evaluate_every=250, save_every=250)
RECIPES = {
    # GPT-2's design with rotary positions; the sweep's best learning rate, and twice as much does no harm
    "tiny-gpt": Recipe(
        {"clm": {"window": 256}},
        ModelConfig.preset("gpt2", positions="rotary", dropout=0.0),
        replace(_SETTINGS, batch_size=16, learning_rate=4e-3),
        text,
    ),
    # BERT with rotary positions and norms before the layers, see `ModelConfig.usual`; the sweep's best learning
    # rate is 4e-3, a little less is taken because twice as much fails
    "tiny-bert": Recipe(
        {"mlm": {"window": 128}},
        ModelConfig.usual("encoder"),
        replace(_SETTINGS, steps=5000, batch_size=32, learning_rate=3e-3),
        text,
    ),
    # T5's way to read and write; both stacks start as tiny-gpt. In a sweep made afterwards 1e-3 was a little better
    "tiny-t5": Recipe(
        {"seq2seq": {"window": 128}},
        "tiny-gpt",
        replace(_SETTINGS, steps=3000, batch_size=32, learning_rate=2e-3),
        pairs_and_text,
        PAIRS,
    ),
}


def sweep(recipe: Recipe, steps: int, rates: tuple[float, ...]) -> dict[str, float]:
    """Loss on what the recipe is checked on after `steps` steps, by peak learning rate."""
    found = {}
    for rate in rates:
        run = recipe.run(steps=steps, learning_rate=rate, save_every=0, evaluate_every=steps).fit(progress=False)
        found[f"{rate:g}"] = round(checked(run, recipe)["loss"], 4)
        print(f"learning rate {rate:g}: validation loss {found[f'{rate:g}']:.3f} after {steps} steps", flush=True)
    return found


def checked(run: Run, recipe: Recipe) -> dict[str, float]:
    """All measures on all of the validation split of what the recipe is checked on."""
    return Run([type(t)() for t in run.techniques], recipe.checked, model=run.model).evaluate("validation")


def bundle(run: Run, recipe: Recipe, folder: Path, swept: dict[str, Any]) -> None:
    """Write the model in bfloat16 with a card that says how it was made and how good it is."""
    save_model(run.model, folder, torch.bfloat16)
    card = {
        "techniques": [type(t).__name__ for t in run.techniques],
        "start": f"two stacks of {recipe.start}" if isinstance(recipe.start, str) else "random weights",
        "data": {"name": run.corpus.name, "source": run.corpus.source, "licence": run.corpus.licence},
        "steps": run.steps,
        "tokens": round(run.steps * run.training.batch_size * _length(run)),
        "seed": run.seed,
        "learning_rate": run.learning_rate,
        "learning_rates_compared": swept,
        "parameters": run.parameters().total,
        "validation": {"data": recipe.checked, **{k: round(v, 4) for k, v in checked(run, recipe).items()}},
    }
    write_atomic(folder / "card.json", json.dumps(card, indent=2) + "\n")


def _length(run: Run) -> float:
    """Tokens that the model reads of an example, on average."""
    lengths = getattr(run.rows("train"), "lengths", None)
    return sum(lengths) / len(lengths) if lengths else run.techniques[0].window


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
        run = Run.load(work, recipe.reading())
    else:
        run = recipe.run(work, **({"steps": chosen.steps} if chosen.steps else {}))
    run.fit(progress=Lines())
    run.save(work)
    bundle(run, recipe, chosen.to or HERE / chosen.name, read_json(swept) if swept.exists() else {})


if __name__ == "__main__":
    main()

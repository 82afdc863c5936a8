"""How the bundled models were made, one command each: `python -m llmlab.pretrained.recipes tiny-gpt`.

1. A recipe takes about a quarter of an hour on two quiet cores; `--steps` makes a shorter one to try.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ..checkpoint import write_atomic
from ..data import Corpus, corpus
from ..model import ModelConfig
from ..progress import Lines
from ..run import Run
from ..training import Training
from . import HERE, save_model

SEED = 0
CHECKED = "tinytown:mix,size=2000,seed=1"  # its validation split shares no household with what is trained on


def reading() -> Corpus:
    """What tiny-gpt reads: Tinytown's mixture of tasks, and real English from docstrings, twice.

    The Python reference and the locale data are left for lessons to fine-tune on: the model has never seen them.
    """
    parts = [corpus("tinytown", task="mix", size=60_000, seed=SEED), *[corpus("docstrings")] * 2]

    def rows(split: str) -> Iterator[dict[str, str]]:
        for part in parts if split == "train" else parts[:2]:
            yield from ({"text": row["text"]} for row in (part[split] if split == "train" else part[split][:100]))

    splits = {split: list(rows(split)) for split in ("train", "validation", "test")}
    sources, licences = ("; ".join(dict.fromkeys(getattr(p, a) for p in parts)) for a in ("source", "licence"))
    return Corpus("tinytown mix and docstrings", splits, sources, licences)


def tiny_gpt(steps: int | None, folder: Path) -> Run:
    """A decoder of a million parameters: GPT-2's design with rotary positions, causal language modelling."""
    config = ModelConfig.preset("gpt2", positions="rotary", context=256, dropout=0.0)
    training = Training(
        steps=steps or 3000,
        batch_size=16,
        learning_rate=3e-3,
        warmup=0.02,
        weight_decay=0.05,
        precision="bf16",
        evaluate_every=250,
        save_every=250,
    )
    run = Run([{"clm": {"window": 256}}], reading(), config=config, training=training, seed=SEED)
    run.folder = folder
    return run


RECIPES: dict[str, Callable[[int | None, Path], Run]] = {"tiny-gpt": tiny_gpt}


def bundle(run: Run, folder: Path) -> None:
    """Write the model in bfloat16 with a card that says how it was made and how good it is."""
    save_model(run.model, folder, torch.bfloat16)
    check = Run(["clm"], CHECKED, model=run.model)
    card = {
        "techniques": [type(t).__name__ for t in run.techniques],
        "data": {"name": run.corpus.name, "source": run.corpus.source, "licence": run.corpus.licence},
        "steps": run.steps,
        "tokens": run.steps * run.training.batch_size * run.model.config.context,
        "seed": run.seed,
        "learning_rate": run.learning_rate,
        "parameters": run.parameters().total,
        "validation": {"data": CHECKED, **{k: round(v, 4) for k, v in check.evaluate("validation").items()}},
    }
    write_atomic(folder / "card.json", json.dumps(card, indent=2) + "\n")


def main() -> None:
    """Make a bundled model again; an interrupted recipe goes on from its last checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--work", type=Path, default=Path("runs"), help="where checkpoints go")
    parser.add_argument("--to", type=Path, help="where the model goes; default: into the package")
    chosen = parser.parse_args()
    work = chosen.work / chosen.name
    if (work / "checkpoint.safetensors").exists():
        run = Run.load(work, reading())
    else:
        run = RECIPES[chosen.name](chosen.steps, work)
    run.fit(progress=Lines())
    run.save(work)
    bundle(run, chosen.to or HERE / chosen.name)


if __name__ == "__main__":
    main()

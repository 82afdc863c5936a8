"""What each adaptation learns and costs, beside full fine-tuning: python -m benchmarks.adaptations [--times] [--fresh].

Three tasks, the same model, steps and batches for all. The learning rate is chosen for each on validation data with a
seed of its own; what is reported is measured on the test split, with three other seeds. The result is what lesson 45
reads, course/measurements/45_compare.json. It is written after every run, and what it holds is not measured again.

1. Costs are counted, not sampled: bytes of the tensors themselves. Activations are what autograd keeps of one batch
   from the forward pass to the backward pass, parameters left out; what a kernel needs for a moment is not counted.
2. Times alone depend on the machine: `--times` measures them again, a few steps of each in turn.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.__main__ import machine
from llmlab import Run, Training, corpus, load, merge, save_patch
from llmlab.catalogue import techniques
from llmlab.checkpoint import write_atomic
from llmlab.technique import hookimpl

RESULT = Path(__file__).parents[1] / "course/measurements/45_compare.json"
BATCH, SEEDS, SWEEP_SEED, ANSWERS = 8, (0, 1, 2), 10, 100
ROUNDS, ROUND = 7, 6  # of the times: rounds, and steps a round
SIX = "query, kv.key, kv.value, out, up, down"
Chosen = list[Any]  # techniques beside the objective: {name: knobs}


def reviews(cue: str, words: dict[str, str] | None = None) -> dict[str, list[dict[str, str]]]:
    """Tinytown's reviews, which the base has read, with another question than its own, and perhaps other answers."""
    rows, words = corpus("tinytown:sentiment"), words or {}
    return {
        split: [{"text": r["text"], "label": words.get(r["label"], r["label"]), "cue": cue} for r in rows[split]]
        for split in rows.splits
    }


# from far to near: steps of training, and the data
TASKS: dict[str, tuple[int, Any]] = {
    "dates": (200, lambda: corpus("dates:fr")),
    "again": (100, lambda: reviews("Again?", {"positive": "yes", "negative": "no", "neutral": "perhaps"})),
    "mood": (100, lambda: reviews("Mood:")),
}


def lora(rank: int, targets: str) -> Chosen:
    """LoRA with the scale α / r of its defaults, 2."""
    return [{"lora": {"rank": rank, "alpha": 2.0 * rank, "targets": targets}}]


def methods() -> dict[str, Chosen]:
    """Full fine-tuning, and every adaptation that ships with the kit as it is by default; LoRA on all matrices, too."""
    shipped = [e.name for e in techniques().values() if e.source == "shipped" and e.needs.kind == "adaptation"]
    found: dict[str, Chosen] = {"everything": []} | {name: [{name: {}}] for name in shipped}
    return found | {"lora, six": lora(4, SIX)}


# place -> (rank, targets): as many numbers train in each, 36,864, or 35,840 in `mlp`
PLACES = {
    "query": (36, "query"),
    "query, value": (18, "query, kv.value"),
    "attention": (9, "query, kv.key, kv.value, out"),
    "mlp": (7, "up, down"),
    "six": (4, SIX),
}
RANKS = {str(rank): (rank, SIX) for rank in (1, 4, 16, 64)}


class Measure:
    """One base, and what is measured of methods on it."""

    def __init__(self) -> None:
        self.base = load("tiny-gpt")
        self.data = {name: make() for name, (_, make) in TASKS.items()}

    def run(self, task: str, chosen: Chosen, rate: float | None = None, seed: int = 0) -> Run:
        steps = TASKS[task][0]
        settings = Training(steps=steps, batch_size=BATCH, learning_rate=rate, evaluate_every=steps, evaluate_batches=1)
        return Run([{"sft": {"answers": 0}}, *chosen], self.data[task], model=self.base, training=settings, seed=seed)

    def tried(self, task: str, chosen: Chosen, rate: float) -> float:
        """Validation loss after training at a rate; infinite if it blew up."""
        try:
            return self.run(task, chosen, rate, SWEEP_SEED).fit(progress=False).losses("validation", 25)["loss"]
        except FloatingPointError:
            return math.inf

    def learnt(self, task: str, chosen: Chosen, rate: float, seed: int) -> dict[str, float]:
        """What is measured on the test split after training."""
        return self.tested(task, self.run(task, chosen, rate, seed).fit(progress=False).model)

    def tested(self, task: str, model: Any) -> dict[str, float]:
        asking = Run([{"sft": {"answers": ANSWERS}}], self.data[task], model=model, training=Training(batch_size=32))
        found = asking.evaluate("test")
        return {key: round(found[key], 4) for key in ("loss", "exact_match", "f1", "accuracy") if key in found}

    def cost(self, chosen: Chosen) -> dict[str, int]:
        """Numbers that train and are kept, and bytes: of a training step, and of the file that keeps a task."""
        run = self.run("dates", chosen).fit(1, progress=False)
        assert run.optimizer is not None
        table, trained = run.parameters(), [p for p in run.model.parameters() if p.requires_grad]
        moments = [state[key] for state in run.optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
        model = run.model if not merges_itself(run.model) else merge(run.model)
        with tempfile.TemporaryDirectory() as folder:
            file = save_patch(model, self.base, Path(folder) / "task.safetensors").stat().st_size
        kept = sum(row.count for row in Run(["sft"], model=model).parameters() if row.owner != "base")
        own = sum(row.count for row in table if row.trains and row.owner == "base")
        return {
            "trains": table.trainable,
            "kept": kept + own,
            "weights": size(run.model.parameters()),
            "gradients": size(p.grad for p in trained if p.grad is not None),
            "moments": size(moments),
            "activations": activations(run),
            "file": file,
        }


def merges_itself(model: Any) -> bool:
    """Whether merging makes what is kept smaller: a part that only helped in training is dropped."""
    try:
        merged = merge(model)
    except ValueError:
        return False
    return bool(merged.adaptations) and sum(p.numel() for p in merged.parameters()) < sum(
        p.numel() for p in model.parameters()
    )


def size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def activations(run: Run) -> int:
    """Bytes that autograd keeps of a training batch, each storage once, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in run.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = run.make_batches(first_chunk(run))[0]
    run.model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = run.step(batch)["loss"]
    found = sum(kept.values())
    del loss
    run.model.eval()
    return found


def first_chunk(run: Run) -> Any:
    from llmlab.batch import Chunk

    return Chunk(run.rows("train")[:BATCH], list(range(BATCH)), 0, 0)


# -- what is kept ------------------------------------------------------------------------------------------------


class Result(dict[str, Any]):
    """The file: what it holds is not measured again."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        super().__init__(json.loads(path.read_text()) if path.is_file() and not fresh else {})
        self.path = path
        self.setdefault("setting", {"batch_size": BATCH, "seeds": list(SEEDS), "answers": ANSWERS})
        self["setting"]["steps"] = {task: steps for task, (steps, _) in TASKS.items()}

    def once(self, *keys: str, measure: Any) -> Any:
        """What stands under the keys, measured if nothing does."""
        inner: dict[str, Any] = self
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        if keys[-1] not in inner:
            inner[keys[-1]] = measure()
            print(*keys, inner[keys[-1]], flush=True)
            self.write()
        return inner[keys[-1]]

    def write(self) -> None:
        self["machine"] = machine(torch.get_num_threads()).partition(", load")[0]
        self["versions"] = {name: version(name) for name in ("torch", "llmlab")}
        write_atomic(self.path, json.dumps(self, indent=1) + "\n")


def best_rate(measure: Measure, result: Result, kind: str, task: str, name: str, chosen: Chosen) -> float:
    """A third of the recommended rate, itself and three times it; then on towards the better end while that helps."""

    def tried(rate: float) -> float:
        keys = ("rates", kind, task, name, f"{rate:g}")
        loss = result.once(*keys, measure=lambda: short(measure.tried(task, chosen, rate)))
        return math.inf if loss is None else loss

    done = result.get(kind, {}).get(task, {}).get(name, {})
    if "rate" in done:
        return float(done["rate"])
    start = measure.run(task, chosen).learning_rate
    factors = [1 / 3, 1.0, 3.0]
    while True:
        rates = [float(f"{start * f:.1g}") for f in factors]
        losses = [tried(rate) for rate in rates]
        best = losses.index(min(losses))
        if 0 < best < len(rates) - 1 or len(factors) > 5:
            return rates[best]
        factors = [factors[0] / 3, *factors] if best == 0 else [*factors, factors[-1] * 3]


def short(loss: float) -> float | None:
    return round(loss, 4) if math.isfinite(loss) else None


def learn(measure: Measure, result: Result, kind: str, task: str, name: str, chosen: Chosen) -> None:
    rate = best_rate(measure, result, kind, task, name, chosen)
    for seed in SEEDS:
        result.once(kind, task, name, f"{seed}", measure=lambda s=seed: measure.learnt(task, chosen, rate, s))
    result[kind][task][name]["rate"] = rate
    result.write()


class Clock:
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    @hookimpl
    def after_step(self, run: Run, step: int, metrics: dict[str, float]) -> None:
        self.ends.append(time.perf_counter())


def times(measure: Measure) -> dict[str, list[float]]:
    """Milliseconds a step, the methods in turn: the median of rounds, the lowest and the highest."""
    clocks = {name: Clock() for name in methods()}
    runs = {name: measure.run("dates", [*chosen, clocks[name]]) for name, chosen in methods().items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + ROUNDS):
        for name, run in runs.items():
            clocks[name].ends.clear()
            run.fit(1 + ROUND, progress=False)
            found[name].append(1e3 * (clocks[name].ends[-1] - clocks[name].ends[0]) / ROUND)
    return {name: [round(v, 2) for v in (median(t[1:]), min(t[1:]), max(t[1:]))] for name, t in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptations", description=__doc__.split("\n")[0])
    parser.add_argument("--times", action="store_true", help="measure the times again, and nothing else")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--to", type=Path, default=RESULT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    measure, result = Measure(), Result(asked.to, asked.fresh)
    if asked.times:
        result["times"] = times(measure)
        result.write()
        return
    for name, chosen in methods().items():
        result.once("cost", name, measure=lambda c=chosen: measure.cost(c))
    for task in TASKS:
        result.once("frozen", task, measure=lambda t=task: measure.tested(t, measure.base))
        for name, chosen in methods().items():
            learn(measure, result, "methods", task, name, chosen)
    for kind, several in (("places", PLACES), ("ranks", RANKS)):
        for name, (rank, targets) in several.items():
            learn(measure, result, kind, "dates", name, lora(rank, targets))
    result.once("times", measure=lambda: times(measure))


if __name__ == "__main__":
    sys.exit(main())

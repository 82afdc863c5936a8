"""A run on disk: `run.json` (how to do it again), the model, and a checkpoint (how to go on).

runs/x/run.json                techniques, data, training, seed: a few lines to read and to repeat
       model.safetensors       all weights under their plain names; with config.json and tokenizer.json
       checkpoint.safetensors  weights, optimiser, place in the data, batches made and not yet used
       history.jsonl           one line a step
       MODEL_CARD.md           what it was made from and how it was measured, for people; see `card.py`
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from . import __version__
from .batch import Batch
from .card import FILE as CARD
from .card import model_card
from .catalogue import make
from .checkpoint import load_tree, read_json, save_tree, write_atomic
from .data import Corpus, corpus
from .data.memory import IN_MEMORY
from .hookspecs import API
from .loop import Position
from .pretrained import load_model, save_model
from .surgery import named_parameters, named_tensors
from .technique import needs_of, values
from .training import Training, make_optimizer

if TYPE_CHECKING:
    from .run import Run

Recipe = dict[str, Any]


def recipe(run: Run) -> Recipe:
    """Everything needed to do a run again; what a file cannot hold is named, with a hash."""
    return describe(run.techniques, run.data, _describe_model(run), run.training, run.seed)


def describe(
    techniques: Iterable[Any], data: Corpus | None, model: dict[str, Any], training: Training, seed: int
) -> Recipe:
    """A recipe of a run that need not exist yet; `model` is {"from": name}, {"config": …} or {} for the usual one."""
    return {
        "llmlab": __version__,
        "hooks": API,
        "techniques": [{needs_of(t).name: _knobs(t)} for t in techniques],
        "data": _describe_data(data),
        "model": model,
        "training": values(training),
        "seed": seed,
    }


def _knobs(technique: Any) -> dict[str, Any]:
    if not is_dataclass(technique):
        return _unheld(technique)
    return {f.name: _plain(getattr(technique, f.name)) for f in fields(technique) if f.init}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {k: _plain(v) for k, v in value.items()}
    return _unheld(value)


def _unheld(value: Any) -> dict[str, Any]:
    name = getattr(value, "__qualname__", type(value).__qualname__)
    try:
        content = inspect.getsource(value if callable(value) and hasattr(value, "__code__") else type(value))
    except (OSError, TypeError):
        content = repr(value)
    return {IN_MEMORY: name, "hash": hashlib.sha256(content.encode()).hexdigest()[:16]}


def _describe_data(data: Corpus | None) -> Any:
    if data is None:
        return None
    return {"name": data.name, "options": dict(data.options), "fingerprint": data.fingerprint}


def _describe_model(run: Run) -> dict[str, Any]:
    if not run.given:
        return {"config": run.model.config.to_dict()}
    if run.source:
        return {"from": str(run.source)}
    digest = hashlib.sha256()
    for name, p in named_parameters(run.model):
        if not p.requires_grad:
            digest.update(name.encode() + p.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {IN_MEMORY: "a model", "hash": digest.hexdigest()[:16]}


def build(recipe: Recipe, data: Any = None, model: Any = None, techniques: Iterable[Any] = ()) -> Run:
    """A fresh run from a recipe. ValueError names what it could not hold and is not given here."""
    from .run import Run

    for key in ("techniques", "training", "seed"):
        if key not in recipe:
            raise ValueError(f"the run file has no {key!r}: it is no run.json of llmlab")
    if recipe.get("hooks", API) > API:
        raise ValueError(f"the run file needs version {recipe['hooks']} of the hooks; this llmlab has {API}: upgrade")
    given = {needs_of(t).name: t for t in techniques}
    chosen = [given.get(next(iter(described)), described) for described in recipe["techniques"]]
    for technique in chosen:
        missing = _find_unheld(technique)
        if missing:
            raise ValueError(
                f"the run used {missing}, which was in memory: give that technique again, techniques=[...]"
            )
    source = recipe.get("model") or {}
    if model is None and IN_MEMORY in source:
        raise ValueError("the run started from a model in memory: give it again as model=, or load the run folder")
    if model is None and "from" in source:
        model = load_model(source["from"])
    if data is None:
        data = _find_data(recipe.get("data"))
    config = None if model is not None else _config(source)
    return Run(
        chosen,
        data,
        model=model,
        training=Training(**recipe["training"]),
        seed=recipe["seed"],
        config=config,
    )


def _config(source: dict[str, Any]) -> Any:
    from .model import ModelConfig

    return ModelConfig.from_dict(source["config"]) if "config" in source else None


def _find_unheld(value: Any) -> str | None:
    if isinstance(value, dict):
        if IN_MEMORY in value:
            return str(value[IN_MEMORY])
        return next(filter(None, map(_find_unheld, value.values())), None)
    return next(filter(None, map(_find_unheld, value)), None) if isinstance(value, list) else None


def _find_data(described: Any) -> Corpus | None:
    if described is None:
        return None
    if described["name"] == IN_MEMORY:
        raise ValueError("the run's data was in memory: give it again as data=")
    return corpus(described["name"], **described["options"])


def _check_data(data: Corpus | None, described: Any) -> None:
    if data is not None and described and data.fingerprint != described["fingerprint"]:
        raise ValueError(
            f"the data of {described['name']} has changed since the run was saved "
            f"({described['fingerprint']} then, {data.fingerprint} now): it cannot go on exactly; start a new run"
        )


def save(run: Run, folder: Path) -> Path:
    """Write a run folder; each file whole or not at all. OSError in one line if it cannot be written."""
    at = run.position
    tree = {
        "recipe": json.dumps(recipe(run)),
        "weights": dict(named_tensors(run.model)),
        "optimizer": _optimizer_state(run),
        "position": asdict(at),
        "pending": [vars(b) for b in run.pending],
        "state": dict(run.state),
        "history": run.history,
        "evaluations": run.evaluations,
        "best": run.best,
    }
    save_tree(folder / "checkpoint.safetensors", tree)
    save_model(run.model, folder)
    write_atomic(folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in run.history))
    write_atomic(folder / "run.json", json.dumps(recipe(run) | {"results": run.metrics}, indent=2) + "\n")
    card = folder / CARD
    write_atomic(card, model_card(run, card.read_text("utf-8", errors="replace") if card.is_file() else ""))
    run.folder = folder
    run.model.source = str(folder)
    return folder


def _optimizer_state(run: Run) -> dict[str, Any]:
    if run.optimizer is None:
        return {}
    return {name: dict(run.optimizer.state[p]) for name, p in named_parameters(run.model) if p in run.optimizer.state}


def load(folder: Path, data: Any = None, techniques: Iterable[Any] = ()) -> Run:
    """Read a run folder and put the run where it stopped.

    FileNotFoundError without one; ValueError if it is damaged, if its data changed, or if it needs what was in memory.
    """
    from .data.memory import as_corpus

    tree = load_tree(folder / "checkpoint.safetensors")
    plan = json.loads(tree["recipe"])
    found = as_corpus(data) if data is not None else _find_data(plan["data"])
    _check_data(found, plan["data"])
    given = list(techniques)
    run = build(plan | {"model": {}}, found, load_model(folder, given), given)
    run.given, run.source = "config" not in plan["model"], plan["model"].get("from")
    weights = tree["weights"]
    with torch.no_grad():
        for name, tensor in named_tensors(run.model):
            tensor.copy_(weights[name])
    run.position = Position(**tree["position"])
    run.pending = deque(Batch(**b).to(run.device) for b in tree["pending"])
    for name, kept in tree["state"].items():
        run.state[name].update(kept)
    run.history, run.evaluations, run.best = tree["history"], tree["evaluations"], tree["best"]
    trained = [(n, p) for n, p in named_parameters(run.model) if p.requires_grad]
    run.optimizer = make_optimizer(trained, run.training)
    for name, p in trained:
        if name in tree["optimizer"]:
            run.optimizer.state[p] = {
                k: v.to(p.device) if k != "step" else v for k, v in tree["optimizer"][name].items()
            }
    run.folder = folder
    return run


def repeat(path: Path) -> Run:
    """A fresh run from a `run.json`, or from the folder that holds one."""
    return build(read_json(path / "run.json" if path.is_dir() else path))


__all__ = ["build", "describe", "load", "make", "recipe", "repeat", "save"]

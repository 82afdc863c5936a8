"""Models to start from: bundled ones by name, run folders, patches, and folders in Hugging Face's layout.

A model folder holds `model.safetensors`, `config.json` (its shape, and what techniques built into it) and
`tokenizer.json`. Weights are stored under plain names, in bfloat16 if the config says so; what a tensor was before an
adaptation trained it, under "before <adaptation>: <name>".
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save
from torch import Tensor

from ..catalogue import find
from ..checkpoint import read_json, write_atomic
from ..hooks import Hooks
from ..model import ModelConfig, Transformer
from ..surgery import adapt, named_tensors
from ..technique import needs_of
from ..tokenizer import Tokenizer

HERE = Path(__file__).parent
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


def bundled() -> list[str]:
    """Names of the models that come with the kit."""
    return sorted(path.parent.name for path in HERE.glob(f"*/{WEIGHTS}"))


def load_model(name: str | Path, techniques: Iterable[Any] = ()) -> Transformer:
    """A bundled model by name, or that of a run folder, a patch, or a Hugging Face folder (gpt2, llama, qwen2, bert).

    ValueError or FileNotFoundError says what is wrong.

    `techniques` built into the model and unknown to the catalogue, such as one written in a notebook, are given.
    """
    folder = HERE / str(name) if str(name) in bundled() else Path(name)
    if folder.is_file():
        from ..patch import load_patched

        return load_patched(folder, techniques)
    if not folder.is_dir():
        near = difflib.get_close_matches(str(name), bundled(), 1)
        hint = (
            f"did you mean {near[0]}?" if near else f"there are {', '.join(bundled()) or 'none'}, or give a run folder"
        )
        raise FileNotFoundError(f"no model is called {str(name)!r} and no folder is there: {hint}")
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} holds no {CONFIG}: it is no model or run folder")
    described = read_json(folder / CONFIG)
    if "model_type" in described:
        from .huggingface import load_huggingface

        model = load_huggingface(folder)
        model.source = str(name)
        return model
    if "model" not in described:
        raise ValueError(f"{folder / CONFIG} describes no model: it lacks the key 'model'")
    model = Transformer(ModelConfig.from_dict(described["model"]))
    model.tokenizer = Tokenizer.load(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else None
    weights = _read(folder / WEIGHTS)
    rebuild(model, described.get("adaptations", {}), {needs_of(t).name: t for t in techniques})
    _take_originals(model, weights)
    _fill(model, weights, folder)
    model.source = str(name)
    return model.eval()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: the folder is not whole")
    try:
        return parse(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}; copy or train it again") from error


def rebuild(model: Transformer, adaptations: dict[str, Any], given: dict[str, Any]) -> None:
    """Let the techniques that built into the model do so again, before its weights are read."""
    for name, had in adaptations.items():
        if not had["parameters"]:  # it trained what was there
            model.adaptations[name] = {**had, "originals": {}}
            continue
        technique = given[name] if name in given else find(name)(**had["knobs"])
        hooks = Hooks([technique])
        build = lambda h=hooks, t=technique: h.only(t, "adapt_model", model=model)  # noqa: E731
        adapt(model, needs_of(technique).name, had["knobs"], True, 0, build)


def _take_originals(model: Transformer, weights: dict[str, Tensor]) -> None:
    for owner, adaptation in model.adaptations.items():
        for key in [k for k in weights if k.startswith(_before(owner, ""))]:
            adaptation["originals"][key.removeprefix(_before(owner, ""))] = weights.pop(key)


def _before(owner: str, name: str) -> str:
    return f"before {owner}: {name}"


def _fill(model: Transformer, weights: dict[str, Tensor], folder: Path) -> None:
    wanted = dict(named_tensors(model))
    for problem, names in (("lacks", set(wanted) - set(weights)), ("has a strange", set(weights) - set(wanted))):
        if names:
            raise ValueError(f"{folder / WEIGHTS} {problem} weight {min(names)}: it does not fit its {CONFIG}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if parameter.shape != weights[name].shape:
                shapes = f"{tuple(weights[name].shape)}, not {tuple(parameter.shape)}"
                raise ValueError(f"{folder / WEIGHTS}: {name} has shape {shapes}")
            parameter.copy_(weights[name])


def save_model(model: Transformer, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a model folder, each file whole or not at all; `dtype` torch.bfloat16 halves its size."""
    weights = {n: p.detach().to("cpu", dtype).contiguous().clone() for n, p in named_tensors(model)}
    built = {}
    for owner, adaptation in model.adaptations.items():
        built[owner] = {key: value for key, value in adaptation.items() if key != "originals"}
        for n, t in adaptation["originals"].items():
            weights[_before(owner, n)] = t.to("cpu", dtype).contiguous().clone()
    described = {"model": model.config.to_dict(), "adaptations": built}
    write_atomic(folder / CONFIG, json.dumps(described, indent=2) + "\n")
    if model.tokenizer is not None:
        write_atomic(folder / TOKENIZER, model.tokenizer.to_json())
    write_atomic(folder / WEIGHTS, save(weights))

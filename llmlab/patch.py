"""A task as one small file: the tensors in which a model differs from its base, and what techniques built into it.

    save_patch(run.model, base, "french.safetensors")       # after LoRA: A and B; after BitFit: the biases
    model = load_patch(base, "french.safetensors")          # shares every other tensor with `base`
    model = load("french.safetensors")                      # the same; the file tells where its base is found

1. What is the same is found by comparing bits, so a patch of a model that trained as a whole is as large as the model.
2. A merged update has become the matrices it was merged into: save a patch before, unless `merge` makes it smaller.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import __version__
from .checkpoint import load_tensors, save_tensors
from .model import Transformer
from .pretrained import load_model, rebuild
from .surgery import named_tensors, pass_on
from .technique import needs_of


def save_patch(model: Transformer, base: Transformer, file: str | Path) -> Path:
    """Write what `model`, which was made from `base`, has and `base` has not; atomically, with a checksum.

    ValueError if they are of different shapes, or do not differ at all.
    """
    theirs = dict(named_tensors(base))
    lacking = set(theirs) - {name for name, _ in named_tensors(model)}
    if model.config != base.config or model.tokenizer != base.tokenizer or lacking:
        raise ValueError("the model does not have the shape of this base: save all of it, run.save(folder)")
    kept = {n: t for n, t in _tensors(model) if not _same(t, theirs.get(n.rpartition(": ")[2]))}
    if not kept:
        raise ValueError("the model does not differ from its base: there is nothing to keep")
    built = {n: a | {"originals": sorted(a["originals"])} for n, a in model.adaptations.items()}
    about = {"patch": __version__, "base": base.source, "fingerprint": _fingerprint(base), "adaptations": built}
    try:
        text = json.dumps(about)
    except TypeError as error:
        raise ValueError(f"a knob of {', '.join(built)} cannot be kept in a file: {error}") from error
    save_tensors(file, kept, text)
    return Path(file)


def load_patch(base: Transformer, file: str | Path, techniques: Iterable[Any] = ()) -> Transformer:
    """The model that was saved, made of `base`, which does not change, and the file's tensors.

    `techniques` built into it and unknown to the catalogue are given. FileNotFoundError; ValueError if the file is
    damaged or no patch, belongs to another base, or needs an unknown technique.
    """
    about, tensors = _read(file)
    if about["fingerprint"] != _fingerprint(base):
        made = about["base"] or "a model that was in memory"
        raise ValueError(f"{file} belongs to another base, {made}: a patch fits no model but the one it was made from")
    built = about["adaptations"]
    model = pass_on(base)
    try:
        rebuild(model, {n: a | {"originals": {}} for n, a in built.items()}, {needs_of(t).name: t for t in techniques})
    except ValueError as error:
        error.add_note(f"{file} was made with {', '.join(built)}; load_patch(base, file, techniques=[…]) gives yours")
        raise
    theirs = dict(named_tensors(base))
    for owner, adaptation in built.items():
        before = {n: tensors.pop(f"before {owner}: {n}", theirs.get(n)) for n in adaptation["originals"]}
        model.adaptations[owner]["originals"] = {n: t.detach() for n, t in before.items() if t is not None}
    wanted = dict(named_tensors(model))
    odd = {n for n, t in tensors.items() if n not in wanted or wanted[n].shape != t.shape}
    if odd := odd | (set(wanted) - set(theirs) - set(tensors)):
        raise ValueError(f"{file}: {min(odd)} does not fit what {', '.join(built)} builds: were they changed since?")
    for name, tensor in tensors.items():
        wanted[name].data = tensor.to(wanted[name].device)
    model.source = str(file) if about["base"] else None
    return model.eval()


def load_patched(file: str | Path, techniques: Iterable[Any] = ()) -> Transformer:
    """The model of a patch, its base loaded from where the file says. ValueError if it cannot say."""
    source = _read(file)[0]["base"]
    if not source:
        raise ValueError(f"{file} was made from a model in memory: give that model, load_patch(base, file)")
    techniques = list(techniques)
    return load_patch(load_model(source, techniques), file, techniques)


def _read(file: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    text, tensors = load_tensors(file, "patch")
    about = json.loads(text)
    if "patch" not in about:
        raise ValueError(f"{file} is no patch: it may be a run's checkpoint; give its folder")
    return about, tensors


def _tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Tensors by name, then what was there before an adaptation trained it, which `detach` needs."""
    yield from named_tensors(model)
    for owner, adaptation in model.adaptations.items():
        yield from ((f"before {owner}: {n}", t) for n, t in adaptation["originals"].items())


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)


def _same(one: Tensor, other: Tensor | None) -> bool:
    if other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return one.data_ptr() == other.data_ptr() or torch.equal(_bits(one), _bits(other))


def _fingerprint(model: Transformer) -> str:
    digest = hashlib.blake2b(json.dumps(model.config.to_dict(), sort_keys=True).encode(), digest_size=16)
    for name, parameter in sorted(named_tensors(model)):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(_bits(parameter).numpy().tobytes())
    return digest.hexdigest()

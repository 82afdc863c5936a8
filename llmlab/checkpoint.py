"""Files that survive a crash: nested values and tensors in one safetensors file, written whole or not at all.

1. Tensors, numbers, text, None, lists, tuples and dicts can be kept; anything else is an error that names it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new and nothing between."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def pack(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """JSON for a nested value; its tensors go into `tensors` under their path. TypeError names what cannot be kept."""
    if isinstance(value, Tensor):
        name = f"{path}#{len(tensors)}"
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[pack(k, tensors, path), pack(v, tensors, f"{path}.{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [pack(v, tensors, f"{path}.{i}") for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path.lstrip('.')} holds a {type(value).__name__}: a checkpoint keeps tensors, numbers and text")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `pack`."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {unpack(k, tensors): unpack(v, tensors) for k, v in content}
    items = [unpack(v, tensors) for v in content]
    return tuple(items) if kind == "tuple" else items


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: str) -> None:
    """Write tensors, and a text about them, to one safetensors file, atomically, with a checksum."""
    # clones: the format refuses tensors that share memory
    own = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    write_atomic(path, save(own, metadata={"tree": about, "digest": _digest(about, own)}))


def load_tensors(path: str | Path, what: str) -> tuple[str, dict[str, Tensor]]:
    """The text and the tensors that `save_tensors` wrote. FileNotFoundError, or ValueError if `what` is damaged."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(str(path), "pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = meta["tree"]
        intact = meta["digest"] == _digest(text, tensors)
    except (SafetensorError, KeyError, OSError) as error:
        raise ValueError(f"{path} is damaged or no {what}: {error}") from error
    if not intact:
        raise ValueError(f"{path} is damaged: its checksum does not match; go back to an earlier copy")
    return text, tensors


def save_tree(path: str | Path, tree: Mapping[str, Any]) -> None:
    """Write a nested value with its tensors to one file, atomically, with a checksum."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(tree, tensors))
    save_tensors(path, tensors, text)


def load_tree(path: str | Path) -> dict[str, Any]:
    """Read what `save_tree` wrote. FileNotFoundError, or ValueError if the file is damaged."""
    text, tensors = load_tensors(path, "checkpoint")
    tree: dict[str, Any] = unpack(json.loads(text), tensors)
    return tree


def read_json(path: str | Path) -> Any:
    """Parse a JSON file. FileNotFoundError, or ValueError that names file and line."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error

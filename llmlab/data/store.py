"""Keeps what is slow to make in the user's cache folder, so that it is made once.

1. LLMLAB_CACHE names another folder. Where nothing can be written, the value is made anew each time.
2. Old entries are not swept: the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def folder() -> Path:
    """Return the cache folder; it may not exist yet."""
    chosen = os.environ.get("LLMLAB_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("llmlab", appauthor=False))


def remembered(key: str, build: Callable[[], Any]) -> Any:
    """Return `build()`, a value of JSON types, from the cache where `key` was built before.

    `key` names everything that the value depends on, such as versions. A cut-off, altered or
    unreadable entry counts as none: it is built again and replaced.
    """
    path = folder() / (re.sub(r"[^\w.+-]", "_", key) + ".json")
    try:
        return _read(path)
    except (OSError, ValueError):
        value = build()
        _write(path, value)
        return value


def _read(path: Path) -> Any:
    """Return the value in `path`; OSError or ValueError where it is missing or not what was written."""
    digest, _, body = path.read_bytes().partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError(f"{path} does not match its checksum")
    return json.loads(body)


def _write(path: Path, value: Any) -> None:
    """Put `value` into `path` in one step: a reader sees the old entry or the new one, never a part."""
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:  # a full or read-only disk costs time on the next call, nothing else
        if temporary:
            Path(temporary).unlink(missing_ok=True)

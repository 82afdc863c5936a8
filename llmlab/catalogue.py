"""Which techniques there are: shipped ones, installed ones (entry points), and files in folders you name.

A technique that cannot be imported is warned about and listed with its error; the others work.
`LLMLAB_STRICT=1` raises instead. Only these three places are ever imported from.
"""

from __future__ import annotations

import difflib
import os
import pkgutil
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module, metadata, util
from pathlib import Path
from types import ModuleType
from typing import Any

from .technique import Needs

SHIPPED = "llmlab_plugins"
GROUP = "llmlab.plugins"
FOLDERS = "LLMLAB_PLUGINS"
PATIENCE = 20.0  # seconds that importing a technique from elsewhere may take


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue: a technique and where it came from, or the reason why it is missing."""

    name: str
    source: str
    cls: type | None = None
    error: str | None = None

    @property
    def needs(self) -> Needs:
        return getattr(self.cls, "llmlab", Needs(self.name))

    @property
    def summary(self) -> str:
        """First line of its docstring, or its error."""
        return self.error or (getattr(self.cls, "__doc__", None) or "").strip().split("\n")[0]


def techniques() -> dict[str, Entry]:
    """Every technique by name, broken ones included. Scanned once a process; `techniques.cache_clear()` rescans."""
    return _scan(os.environ.get(FOLDERS, ""))


@lru_cache(maxsize=8)
def _scan(folders: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in _entries(folders):
        if entry.name in found:
            first = found[entry.name].source
            _complain(ValueError(f"the name {entry.name} is taken by {first}"), entry.source)
            entry = Entry(f"{entry.name} ({entry.source})", entry.source, error=f"its name is taken by {first}")
        found[entry.name] = entry
    return found


techniques.cache_clear = _scan.cache_clear  # type: ignore[attr-defined]


def find(name: str) -> type:
    """The class called `name`; ValueError names the nearest one, or why it could not be loaded."""
    entry = techniques().get(name.lower())
    if entry is None:
        near = difflib.get_close_matches(name.lower(), techniques(), 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(techniques())}"
        raise ValueError(f"no technique is called {name!r}: {hint}")
    if entry.cls is None:
        raise ValueError(f"the technique {name} from {entry.source} could not be loaded: {entry.error}")
    return entry.cls


def from_file(path: Path) -> list[type]:
    """The techniques in one file. FileNotFoundError, or ValueError, which says why there are none."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    entries = _load(path.stem, str(path), partial(_from_file, path), complain=False)
    if broken := [entry.error for entry in entries if entry.cls is None]:
        raise ValueError(f"{path} could not be loaded: {broken[0]}")
    return [entry.cls for entry in entries if entry.cls]


def make(description: Any) -> Any:
    """An instance from what a run file holds: "sft", {"lora": {"rank": 4}}, or an instance as it is."""
    if isinstance(description, str):
        return find(description)()
    if isinstance(description, Mapping):
        if len(description) != 1:
            raise ValueError(f"a technique is written {{name: knobs}}, not {dict(description)!r}")
        ((name, knobs),) = description.items()
        return find(name)(**(knobs or {}))
    return description


def _entries(folders: str) -> Iterator[Entry]:
    package = import_module(SHIPPED)
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")):
        yield from _load(module, "shipped", partial(import_module, f"{SHIPPED}.{module}"))
    for point in metadata.entry_points(group=GROUP):
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else "an installed package"
        yield from _load(point.name, origin, partial(_in_time, point.load))
    for folder in filter(None, folders.split(os.pathsep)):
        if not Path(folder).is_dir():
            _complain(FileNotFoundError(f"{FOLDERS} names {folder}, which is no folder"), folder)
        for path in sorted(Path(folder).glob("[!_]*.py")):
            if path.name.startswith("test_"):
                continue
            yield from _load(path.stem, str(path), partial(_in_time, partial(_from_file, path)))


def _load(name: str, source: str, importer: Callable[[], Any], complain: bool = True) -> list[Entry]:
    """Import one source. Whatever goes wrong in it, an attempt to leave the process included, becomes an entry."""
    try:
        found = importer()
        classes = [found] if isinstance(found, type) else list(_classes(found))
        if not classes:
            raise ValueError("it defines no class marked with @technique")
        return [Entry(cls.llmlab.name, source, cls) for cls in classes]  # type: ignore[attr-defined]
    except (Exception, SystemExit) as error:
        if complain:
            _complain(error, f"{name} from {source}")
        return [Entry(name, source, error=f"{type(error).__name__}: {error}".split("\n")[0])]


def _in_time(importer: Callable[[], Any]) -> Any:
    """What `importer` returns or raises; TimeoutError if that takes over PATIENCE seconds; it may go on."""
    ended: Future[Any] = Future()

    def work() -> None:
        try:
            ended.set_result(importer())
        except BaseException as error:  # an attempt to leave the process, too: it is told where the catalogue is made
            ended.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return ended.result(PATIENCE)
    except TimeoutError:
        if ended.done():  # its own
            raise
        raise TimeoutError(f"importing it takes over {PATIENCE:g} seconds: let a hook do what takes long") from None


def _classes(module: ModuleType) -> Iterator[type]:
    """Techniques defined in `module`, not those it imported."""
    for value in vars(module).values():
        own = isinstance(value, type) and value.__module__ == module.__name__
        if own and isinstance(vars(value).get("llmlab"), Needs):
            yield value


def _from_file(path: Path) -> ModuleType:
    """Import one file. Dataclasses and tracebacks look a module up by its name, so it is listed while it loads."""
    name = f"llmlab_dropin_{path.stem}"
    if (other := sys.modules.get(name)) is not None and other.__file__ != str(path):
        name = f"{name}_{zlib.crc32(str(path).encode()):08x}"
    spec = util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = sys.modules[name] = util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _complain(error: BaseException, what: str) -> None:
    if os.environ.get("LLMLAB_STRICT"):
        raise error
    warnings.warn(f"left out {what}: {type(error).__name__}: {error}", stacklevel=6)

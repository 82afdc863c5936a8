"""What `llmlab` does for authors of techniques: `new` writes one, `check` tries whether it keeps the rules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer


def new(
    name: Annotated[str, typer.Argument(help="What the technique is called: WeightNoise, or gain.")],
    kind: Annotated[str, typer.Option(help="objective, adaptation or extra.")] = "adaptation",
    folder: Annotated[
        Path | None, typer.Option(help="Write all files there; else, in a clone of the kit, each to its place.")
    ] = None,
) -> None:
    """Write a technique that works, with its lesson, exercises and test, to change into your own."""
    from .scaffold import clone, create

    written = [_short(path) for path in create(name, kind, folder)]
    print("\n".join(f"wrote {path}" for path in written))
    plugin, lesson, *_ = written
    if folder is None and clone(Path.cwd()):
        print(
            f"next: change {plugin} into yours; `llmlab check {plugin.stem}` tries it\n"
            f"then: write {lesson}; `python tools/refresh_notebooks.py {lesson}` runs it and stores what it shows\n"
            "last: give it its row in README's tables, of techniques (as `llmlab list` shows it) and of lessons"
        )
    else:
        print(
            f"next: change {plugin} into yours; `llmlab check {plugin}` tries it\n"
            f"then: LLMLAB_PLUGINS={plugin.parent.resolve()} puts it into `llmlab list`, `llmlab run` and every panel\n"
            "(each .py there is imported, but for those that begin with _ or test_: keep scripts elsewhere)"
        )


def check(
    techniques: Annotated[
        list[str] | None, typer.Argument(help="Names, or files of your own; default: every technique there is.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A knob to try it with: lora.rank=4.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Try this rule alone; may be repeated.")] = None,
) -> None:
    """Try whether techniques keep the rules; of each that fails, say why and the way out."""
    from .catalogue import techniques as catalogue
    from .testing.conformance import with_knobs

    found = [cls for name in techniques or catalogue() for cls in _classes(name)]
    knobs = settings_of([cls.llmlab.name for cls in found], set_ or [])  # type: ignore[attr-defined]
    failed = 0
    for cls in found:
        cls(**(given := knobs[cls.llmlab.name]))  # type: ignore[attr-defined]  # a wrong knob is told before any work
        failed += _told(with_knobs(cls, **given) if given else cls, only or [])
    if failed:
        raise typer.Exit(1)


def _classes(name: str) -> list[type]:
    """The technique called so, or all in a file."""
    from .catalogue import find, from_file

    return from_file(Path(name)) if name.endswith(".py") else [find(name)]


def _told(cls: Any, only: Sequence[str]) -> int:
    """Try one technique and print a line a rule; how many it breaks."""
    from .testing import CHECKS, examine

    signs = {"passed": "ok", "failed": "FAILS", "does not apply": "-"}
    width = max(map(len, CHECKS))
    print(f"{cls.llmlab.name} ({cls.llmlab.kind})", flush=True)
    count = dict.fromkeys(signs, 0)
    for result in examine(cls, only):
        count[result.status] += 1
        shown = result.said if result.status == "does not apply" else result.check.holds
        print(f"  {signs[result.status]:5}  {result.check.name:{width}}  {shown}", flush=True)
        if result.status == "failed":
            print(f"         {'':{width}}  {result.said}\n         {'':{width}}  way out: {result.check.way_out}")
    print("  " + ", ".join(f"{n} {status}" for status, n in count.items() if n), flush=True)
    return count["failed"]


def settings_of(names: Sequence[str], settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `--set owner.knob=value` says, by owner; ValueError names one that is wrong."""
    knobs: dict[str, dict[str, Any]] = {name.lower(): {} for name in names}
    for setting in settings:
        path, equals, value = setting.partition("=")
        owner, dot, knob = path.partition(".")
        if not (equals and dot and knob):
            raise ValueError(f"--set {setting}: write it as technique.knob=value, for example lora.rank=4")
        if owner.lower() not in knobs:
            raise ValueError(f"--set {setting}: {owner} is not among {', '.join(knobs)}")
        knobs[owner.lower()][knob] = _value(value)
    return knobs


def _value(text: str) -> Any:
    """A knob's value as typed: JSON where it is JSON, else text."""
    try:
        return json.loads(text if text not in ("True", "False", "None") else {"None": "null"}.get(text, text.lower()))
    except json.JSONDecodeError:
        return text


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

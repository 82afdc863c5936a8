"""Rules about what a technique's file says: its docstring, its knobs, its hooks, its imports, its lesson."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from ..hooks import SPECS, Hooks
from ..technique import hookimpl, implemented, knobs
from .conformance import DoesNotApply, Subject, rule

EQUATION = re.compile(r"^.*\S [=←→≈∝~] \S.*$", re.M)
PAPER = re.compile(r"[A-ZÀ-Ž]\w+.{0,80}?\b(19|20)\d\d\b", re.S)


@rule(
    "its docstring says in a line what it does, and gives the equation and the paper",
    'open the file with """Name: what it is (Author et al. 2021).""" and the equation, indented, in the letters of the '
    "code; one line under the class says what it does, and is what `llmlab list` shows. An idea of your own has your "
    "name and the year",
)
def docstring(subject: Subject) -> None:
    own = inspect.cleandoc(subject.cls.__doc__ or "")
    first = own.split("\n")[0]
    assert first and not first.startswith(f"{subject.cls.__name__}("), "the class has no docstring"
    assert len(first) <= 120 and first.endswith("."), f"its first line is no sentence of at most 120 letters: {first!r}"
    module = sys.modules.get(subject.cls.__module__)
    said = f"{own}\n{(module.__doc__ if module else '') or ''}"
    assert EQUATION.search(said), "neither the class nor its file shows an equation, y = …, θ ← … or x ~ …"
    assert PAPER.search(said), "neither the class nor its file names a paper with its authors and year"


@rule(
    "every field is a knob with a sentence of help; numbers have bounds, and what is beyond them is refused",
    'write each field as `rank: int = knob(8, "Rank r of the update.", low=1, high=256)`: type, help, low and high',
)
def knobs_(subject: Subject) -> None:
    cls = subject.cls
    known = knobs(cls)
    other = [f.name for f in dataclasses.fields(cls) if f.name not in known]
    assert not other, f"the field {other[0]} is no knob"
    for name, field in known.items():
        told = field.metadata["help"]
        assert len(told.split()) >= 2 and told.strip().endswith("."), f"the help of {name} is no sentence: {told!r}"
        low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
        number = isinstance(field.default, int | float) and not isinstance(field.default, bool)
        if not number or choices is not None:
            continue
        assert low is not None and high is not None, f"{name} is a number without a {'low' if low is None else 'high'}"
        for beyond in (low - 1, high + 1, math.nan, "much"):
            said = _refused(cls, name, beyond)
            assert said is not None, f"{name} = {beyond!r} is accepted"
            start = f"{cls.__name__}.{name} = {beyond!r}: must be "
            assert said.startswith(start), f"{name} = {beyond!r} is refused with {said!r}, not with {start!r}"


def _refused(cls: type, knob: str, value: Any) -> str | None:
    try:
        cls(**{knob: value})
    except ValueError as error:
        return str(error)
    return None


@rule(
    "its hooks are hooks: each is marked, has a known name, and names only arguments that the hook has",
    "compare with llmlab/hookspecs.py; mark each hook with @hookimpl, and leave out the arguments it does not need",
)
def hooks(subject: Subject) -> None:
    cls = subject.cls
    marked = set(implemented(cls))
    bare = [name for name in SPECS if callable(getattr(cls, name, None)) and name not in marked]
    assert not bare, f"the method {bare[0]} has a hook's name and no @hookimpl, so it is never called"
    Hooks([cls()])  # its errors name the hook, and what is wrong with it
    wanted = {"objective": {"batches", "compute_loss"}, "adaptation": {"trains"}}.get(subject.needs.kind, set())
    assert wanted <= marked, f"an {subject.needs.kind} implements {' and '.join(sorted(wanted))}"
    for name in marked:
        options = getattr(getattr(cls, name), f"{hookimpl.project_name}_impl")
        assert not (options["wrapper"] and not inspect.isgeneratorfunction(getattr(cls, name))), (
            f"{name} is a wrapper without a yield"
        )


@rule(
    "its file imports no other technique",
    "what two techniques share belongs in the kernel; what needs another's hook says so: @technique(needs=('score',))",
)
def imports(subject: Subject) -> None:
    try:
        tree = ast.parse(Path(inspect.getsourcefile(subject.cls) or "").read_text(encoding="utf-8"))
    except (OSError, TypeError, SyntaxError):
        raise DoesNotApply("its source is in no file") from None
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        for name in names:
            assert not name.startswith(("llmlab_plugins", ".")), f"line {node.lineno} imports {name}"  # type: ignore[attr-defined]


@rule(
    "a technique of the kit is in a file of its name, and has a lesson",
    "`llmlab new` writes both: plugins/llmlab_plugins/<name>.py and course/<number>_<name>.ipynb",
)
def lesson(subject: Subject) -> None:
    if not subject.shipped:
        raise DoesNotApply("it is not part of the kit")
    name = subject.needs.name
    assert subject.cls.__module__ == f"llmlab_plugins.{name}", f"{name} is not in a file {name}.py"
    here = Path(__file__).parents[1]
    course = next((c for c in (here / "course", here.parent / "course") if c.is_dir()), None)
    if course is None:
        raise DoesNotApply("the lessons are not installed here")
    if any(course.glob(f"[0-9][0-9]_{name}.ipynb")):
        return
    shown = subject.needs.kind == "extra" and any(
        _uses(json.loads(p.read_text("utf-8")), name) for p in course.glob("*.ipynb")
    )
    assert shown, f"no lesson is called <number>_{name}.ipynb" + (
        ", and none imports it" if subject.needs.kind == "extra" else ""
    )


def _uses(notebook: Any, name: str) -> bool:
    code = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    return f"llmlab_plugins.{name} import" in code or re.search(rf"""["']{name}["']""", code) is not None

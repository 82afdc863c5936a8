"""`show_source` shows a piece of the kit's code as it stands in its file, beside the equation that it implements.

    show_source("lora", "LoRALinear.forward")                      # a technique's file, and a name in it
    show_source("llmlab.losses", "linear_cross_entropy")        # a module, and a name in it
    show_source(LoRA.adapt_model)                               # a class, function or method
    show_source("lora", "LoRA", start="def adapt", end="return")    # from one line to another, by what they contain

1. Line numbers are not told: they would change in stored lessons whenever the file does, and the code would not.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

from ..catalogue import techniques


def show_source(thing: Any, name: str = "", *, start: str = "", end: str = "") -> None:
    """Display the code of `name` in the file of `thing`: a technique's or a module's name, or an object.

    `start` and `end` keep the lines from the first that contains `start` to the next that contains `end`. ValueError
    if there is no such thing, naming the nearest.
    """
    from IPython.display import display

    text = source(thing, name, start=start, end=end)
    fence = "`" * (3 if "```" not in text else 4)
    # Markdown takes the colours of the page, dark ones too; plain text is for readers that show no Markdown.
    display({"text/markdown": f"{fence}python\n{text}\n{fence}", "text/plain": text}, raw=True)


def source(thing: Any, name: str = "", *, start: str = "", end: str = "") -> str:
    """What `show_source` displays: a comment with the file's name, then the code, moved to the left margin."""
    path, name = _locate(thing, name)
    file = path.read_text(encoding="utf-8")
    found = dict(_definitions(ast.parse(file)))
    if name not in found:
        raise ValueError(f"{path.name} defines no {name!r}: {_nearest(name, found)}")
    node = found[name]
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    code = textwrap.dedent("\n".join(file.splitlines()[first - 1 : node.end_lineno]))
    if start or end:
        code = textwrap.dedent(_between(code, name, start, end))
    return f"# {'/'.join(path.parts[-2:])}\n{code}"


def _locate(thing: Any, name: str) -> tuple[Path, str]:
    """The file that defines a thing, and the name of it inside."""
    if not isinstance(thing, str):
        thing = inspect.unwrap(getattr(thing, "fget", None) or getattr(thing, "__func__", None) or thing)
        if inspect.ismodule(thing) and name:
            return _file_of(thing, thing.__name__), name
        inside = getattr(thing, "__qualname__", None)
        if inside is None:
            raise ValueError(
                f"give a class, function or method, or a name in quotation marks, not {type(thing).__name__}"
            )
        home = sys.modules.get(thing.__module__)
        return _file_of(home if home is not None else thing, inside), name or inside
    entry = techniques().get(thing.lower())
    if entry is not None and entry.cls is not None:
        return _locate(entry.cls, name)
    try:
        found = util.find_spec(thing)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.origin or not found.origin.endswith(".py"):
        raise ValueError(f"no technique or module is called {thing!r}: {_nearest(thing, techniques())}")
    if not name:
        raise ValueError(f"say which function or class of {thing} to show, as in show_source({thing!r}, 'name')")
    return Path(found.origin), name


def _file_of(thing: Any, called: str) -> Path:
    try:
        return Path(inspect.getsourcefile(thing) or "")
    except TypeError:
        raise ValueError(f"{called} stands in no file, so there is no source to show") from None


def _definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Everything a module defines by name: functions, classes, what is inside them, and constants."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + child.name, child
            yield from _definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.Assign | ast.AnnAssign) and not isinstance(node, ast.FunctionDef):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            yield from ((prefix + target.id, child) for target in targets if isinstance(target, ast.Name))


def _between(code: str, name: str, start: str, end: str) -> str:
    lines = code.splitlines()
    first = next((i for i, line in enumerate(lines) if start in line), None)
    if first is None:
        raise ValueError(f"no line of {name} contains {start!r}")
    last = next((i for i in range(first, len(lines)) if end and end in lines[i]), None)
    if end and last is None:
        raise ValueError(f"no line of {name} contains {end!r}" + (f" after {start!r}" if start else ""))
    return "\n".join(lines[first : None if last is None else last + 1])


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    own = [k for k in known if k.rpartition(".")[2] == name.rpartition(".")[2]]  # forward: LoRALinear.forward
    best = own or near
    return f"did you mean {best[0]}?" if best else f"there are {', '.join(list(known)[:12]) or 'none'}"

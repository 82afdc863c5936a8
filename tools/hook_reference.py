"""Write docs/hooks.md from the hooks' specifications, the worked example of each and what these print.

`python tools/hook_reference.py` writes it; `--check` writes nothing and exits with 1 if it would change. A worked
example is docs/hooks/<hook>.py: a technique and a run of it, complete.
"""

from __future__ import annotations

import argparse
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE, EXAMPLES = ROOT / "docs/hooks.md", ROOT / "docs/hooks"
OPENING = """# Hooks, and the rules of a technique

Made by `python tools/hook_reference.py` from `llmlab/hookspecs.py`, `llmlab/testing` and the examples in `docs/hooks/`,
which tests run: do not edit it. [CONTRIBUTING](../CONTRIBUTING.md) shows how to add a technique, from `llmlab new` on.

A technique is a class with `@technique(kind=…)` above it. Its fields, written with `knob`, are its hyper-parameters.
Its methods with `@hookimpl` are its hooks: a method has a hook's name and names those of the hook's arguments that it
wants. One that is marked `@hookimpl(wrapper=True)` sees what the others answer, through one `yield`, and may change it.

"""
RULES = """## What `llmlab check` tries

The same is `llmlab.testing.check_technique(MyTechnique)`, and a fixture of that name under pytest.

| rule | what holds | where it fails, the way out |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    from llmlab import hookspecs
    from llmlab.hooks import SPECS

    tree = inspect.getdoc(hookspecs) or ""
    order = tree[tree.index("    run = Run(") :]
    parts = [OPENING, "## In which order\n\n```text\n", inspect.cleandoc(order), "\n```\n\n"]
    parts += [_hook(getattr(hookspecs, name), options) for name, options in SPECS.items()]
    return "".join([*parts, *_rules()])


def _hook(spec: Any, options: dict[str, Any]) -> str:
    name = spec.__name__
    said, _, _ = (inspect.getdoc(spec) or "").partition("\n    @hookimpl")
    answers = (
        "One answer is used: two techniques that give one are refused."
        if options["firstresult"]
        else ("Every technique's answer counts.")
    )
    users = ", ".join(f"`{user}`" for user in _users(name)) or "none of the kit's"
    example = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    return (
        f"## `{name}({', '.join(inspect.signature(spec).parameters)})`\n\n{said.strip()}\n\n{answers} "
        f"It is implemented by {users}.\n\n```python\n{example}```\n\nIt prints\n\n```text\n{printed(name)}```\n\n"
    )


def _users(hook: str) -> list[str]:
    from llmlab.catalogue import techniques
    from llmlab.technique import implemented

    shipped = [entry for entry in techniques().values() if entry.source == "shipped" and entry.cls]
    return [entry.name for entry in shipped if hook in implemented(entry.cls)]


def printed(hook: str) -> str:
    """What the worked example of a hook prints, in a Python of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / f"{hook}.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[-1]} fails: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def _rules() -> list[str]:
    from llmlab.testing import CHECKS

    rows = [f"| `{check.name}` | {check.holds} | {check.way_out} |\n" for check in CHECKS.values()]
    return [RULES, *(row.replace("<", "&lt;") for row in rows)]


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description="Write docs/hooks.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page would change")
    made = page()
    if parser.parse_args().check:
        return int(PAGE.read_text(encoding="utf-8") != made)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

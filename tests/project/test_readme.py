"""What the README claims: its table of techniques, its commands, its Python."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import llmlab
from llmlab.catalogue import techniques
from llmlab.cli import app
from llmlab.pretrained import HERE

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_table_of_techniques_is_the_catalogues():
    shown = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", README, re.M)
    shipped = [e for e in techniques().values() if e.source == "shipped"]
    assert shown == [(e.name, e.needs.kind, e.summary) for e in sorted(shipped, key=lambda e: e.name)]


def test_the_commands_exist_with_their_options():
    import typer

    group = typer.main.get_command(app)
    lines = [shlex.split(line, comments=True) for line in re.findall(r"^llmlab .+$", README, re.M)]
    assert len(lines) >= 5
    for _, command, *arguments in lines:
        options = {o for p in group.commands[command].params for o in p.opts}
        assert {a for a in arguments if a.startswith("--")} <= options, command


def test_the_python_uses_public_names_alone():
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "llmlab":
                assert {alias.name for alias in node.names} <= set(llmlab.__all__)


def test_the_table_of_base_models_is_what_their_cards_say():
    rows = re.findall(
        r"^\| `(tiny-\w+)` \| .+? \| ([\d,]+) \| ([\d,]+) \| loss ([\d.]+), (\w+) ([\d.]+) \|$", README, re.M
    )
    cards = {path.parent.name: json.loads(path.read_text()) for path in HERE.glob("*/card.json")}
    assert {row[0] for row in rows} == set(cards)
    for name, parameters, tokens, loss, other, value in rows:
        card = cards[name]
        assert (parameters, tokens) == (f"{card['parameters']:,}", f"{card['tokens']:,}")
        found = card["validation"]
        assert (loss, value) == (f"{found['loss']:.3f}", f"{found[other]:.3f}")

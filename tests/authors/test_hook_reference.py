"""The reference of the hooks is what the code says, and its worked examples run and print what it shows."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest

from llmlab import hookspecs
from llmlab.hooks import SPECS
from llmlab.testing import CHECKS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/hooks.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("hook_reference", ROOT / "tools/hook_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_page_is_what_the_tool_makes(tool):
    assert tool.page() == PAGE, "run `python tools/hook_reference.py`"


def test_every_hook_and_every_rule_is_on_the_page():
    for name in SPECS:
        arguments = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
        assert f"\n## `{name}({arguments})`\n" in PAGE
        assert (ROOT / f"docs/hooks/{name}.py").is_file()
    for check in CHECKS.values():
        assert f"| `{check.name}` | {check.holds} | " in PAGE


def test_a_worked_example_implements_its_hook():
    for name in SPECS:
        text = (ROOT / f"docs/hooks/{name}.py").read_text(encoding="utf-8")
        assert "@hookimpl" in text and f"    def {name}(self" in text


def test_an_example_that_fails_is_said(tool, tmp_path, monkeypatch):
    (tmp_path / "after_step.py").write_text("1 / 0")
    monkeypatch.setattr(tool, "EXAMPLES", tmp_path)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        tool.printed("after_step")

"""Every lesson is stored so that it reads without a kernel, compares cell by cell and makes small diffs."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

COURSE = Path(__file__).resolve().parents[2] / "course"
NOTEBOOKS = sorted(p for p in COURSE.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
LONGEST, MEAN = 20, 8  # lines of code in a cell
FRESH = "run `make refresh`"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# A path of the machine that ran it; /tmp is a word that a lesson may use.
MACHINE = re.compile(r"/(?:home|root|Users)/\w+|[A-Z]:\\\\?Users")

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def code(notebook: Any) -> list[Any]:
    """The code cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def lines(cell: Any) -> int:
    """Lines of a cell, without blank ones at its ends."""
    return len(cell.source.strip().splitlines())


@pytest.fixture
def notebook(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def test_is_valid(path: Path, notebook: Any) -> None:
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}, f"{FRESH}: it names one Python version"
    assert all(cell.source.strip() for cell in notebook.cells), "an empty cell"


def test_ran_from_top_to_bottom(path: Path, notebook: Any) -> None:
    # nbval compares nothing in a cell that never ran, so a stripped notebook would pass.
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1)), FRESH


def test_holds_nothing_that_changes_from_run_to_run(path: Path, notebook: Any) -> None:
    assert "widgets" not in notebook.metadata, FRESH
    for cell in notebook.cells:
        assert "execution" not in cell.metadata, FRESH
        for output in cell.get("outputs", []):
            assert WIDGET_VIEW not in output.get("data", {}), FRESH


def test_outputs_show_neither_errors_nor_the_machine(path: Path, notebook: Any) -> None:
    for cell in code(notebook):
        told = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.outputs:
            assert told or output.output_type != "error", f"cell {cell.execution_count} failed"
            assert output.get("name") != "stderr", f"cell {cell.execution_count} warns: {output.get('text')}"
            text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
            assert not MACHINE.search(text), f"cell {cell.execution_count} shows a path of this machine"


def test_cells_are_short(path: Path, notebook: Any, record_property: Any) -> None:
    lengths = [lines(cell) for cell in code(notebook)]
    mean = statistics.mean(lengths)
    record_property("mean_lines", round(mean, 1))
    long = {cell.execution_count: lines(cell) for cell in code(notebook) if lines(cell) > LONGEST}
    assert not long, f"cells over {LONGEST} lines (cell: lines): {long}; what is longer belongs in a file"
    assert mean <= MEAN, f"{mean:.1f} lines a cell on average"


def test_no_cell_ends_in_a_semicolon(path: Path, notebook: Any) -> None:
    # nbval shows the value that the semicolon hides in Jupyter, and the comparison fails.
    assert not [cell.execution_count for cell in code(notebook) if cell.source.rstrip().endswith(";")]


def test_is_clean_for_ruff(path: Path) -> None:
    pytest.importorskip("ruff", reason="the `dev` extra is not installed")
    for command in (["check"], ["format", "--check"]):
        ran = subprocess.run([sys.executable, "-m", "ruff", *command, str(path)], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr

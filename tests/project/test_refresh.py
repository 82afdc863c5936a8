"""`make refresh` stores the same bytes twice, whatever differs from run to run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
CELLS = [
    "import ipywidgets as widgets\nimport matplotlib.pyplot as plt",
    "widgets.IntSlider(value=3)",
    "with widgets.Output():\n    print('inside a widget')",
    "plt.plot([1, 2, 3])\nplt.show()",
    "1 + 1",
]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("refresh_notebooks", ROOT / "tools/refresh_notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def notebook(path: Path, cells: list[str]) -> Path:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(made, path)
    return path


@pytest.mark.slow
def test_a_second_refresh_changes_no_byte(tool: ModuleType, tmp_path: Path) -> None:
    path = notebook(tmp_path / "lesson.ipynb", CELLS)
    assert tool.main(["--check", str(path)]) == 1, "outputs were missing"
    assert tool.main([str(path)]) == 0
    first = path.read_bytes()
    assert tool.main(["--check", str(path)]) == 0
    assert tool.main([str(path)]) == 0
    assert path.read_bytes() == first
    stored = nbformat.read(path, as_version=4)
    assert b"widget-view" not in first
    assert "widgets" not in stored.metadata
    assert "image/png" in stored.cells[3].outputs[0].data, "pictures are kept"
    assert stored.cells[4].outputs[0].data["text/plain"] == "2"


@pytest.mark.slow
def test_a_reply_that_is_lost_is_asked_for_again(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    lost = (
        f"import pathlib, time\np = pathlib.Path({str(first)!r})\nif not p.exists(): p.touch(); time.sleep(60)\n'here'"
    )
    monkeypatch.setattr(tool, "CELL_TIME", 5)
    [cell] = tool.execute(notebook(tmp_path / "lesson.ipynb", [lost])).cells
    assert cell.outputs[0].data["text/plain"] == "'here'"


@pytest.mark.slow
def test_times_are_those_of_the_cells_and_are_not_stored(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = notebook(tmp_path / "99_lesson.ipynb", ["import time\ntime.sleep(0.3)", "time.sleep(0.4)"])
    before = path.read_bytes()
    assert 0.7 < tool.seconds(tool.execute(path)) < 2, "without the start of the kernel"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert tool.time_lessons([path], runs=1) == 0
    assert "it says nothing" in capsys.readouterr().out
    monkeypatch.setattr(tool, "MOST", 0.5)
    assert tool.time_lessons([path], runs=1) == 1
    assert "too long: at most 0.5 s" in capsys.readouterr().out
    assert path.read_bytes() == before


def test_a_failing_cell_is_told_and_nothing_is_written(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = notebook(tmp_path / "broken.ipynb", ["1 / 0"])
    before = path.read_bytes()
    assert tool.main([str(path)]) == 1
    assert path.read_bytes() == before
    assert "ZeroDivisionError" in capsys.readouterr().out

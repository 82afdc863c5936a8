"""Every lesson in JupyterLab: all cells run, and each panel trains and stops."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.driver import ROOT, Jupyter

NAMES = [path.name for path in sorted((ROOT / "course").glob("*.ipynb"))]
# `make test` drives the first lesson (test_first_lesson.py) and one of a technique.
LESSONS = [pytest.param(name, marks=[] if i == 1 else [pytest.mark.frontends], id=name) for i, name in enumerate(NAMES)]

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("name", LESSONS)
def test_every_cell_runs_and_every_panel_trains_and_stops(lab: Jupyter, name: str) -> None:
    lesson = lab.open(name)
    try:
        assert lesson.run_all() == []
        panels = lesson.panels()
        assert panels, "a lesson has a panel"
        for i, panel in enumerate(panels):
            panel.use()
            lesson.shot(f"{Path(name).stem}-panel-{i + 1}", panel.at)
        assert lesson.errors() == []
    finally:
        lesson.close()

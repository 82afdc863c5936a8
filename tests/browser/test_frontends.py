"""The first lesson's panel in Notebook 7 and in Voilà, as far as they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser.driver import jupyter

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.frontends]


@pytest.mark.parametrize("app", ["notebook", "voila"])
def test_the_panel_shows_trains_and_stops(browser: Any, tmp_path: Path, app: str) -> None:
    pytest.importorskip(app, reason=f"{app} is not installed: install the `frontends` extra")
    with jupyter(browser, tmp_path, app) as server:
        lesson = server.open("01_start_here.ipynb")
        if app == "notebook":
            assert lesson.run_all() == []
        panel = lesson.panel()
        assert panel.at.locator("img.llmlab-chart").is_visible()
        panel.use()
        lesson.shot(f"{app}-panel", panel.at)
        assert lesson.errors() == []
        lesson.close()

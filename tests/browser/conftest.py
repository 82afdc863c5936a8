"""One JupyterLab and one Chromium for all browser tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser.driver import Jupyter, jupyter


@pytest.fixture(scope="session")
def lab(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """JupyterLab over a copy of the course; skips without Playwright or Chromium."""
    pytest.importorskip("playwright", reason="Playwright is not installed: install the `test` extra")
    with jupyter(chromium_path, tmp_path_factory.mktemp("browser")) as running:
        yield running

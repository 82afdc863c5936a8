"""One Chromium for all browser tests, and one server for each front end that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser.driver import Jupyter, chromium, jupyter


@pytest.fixture(scope="session")
def browser(chromium_path: str) -> Iterator[Any]:
    """Chromium; skips without it or Playwright."""
    pytest.importorskip("playwright", reason="Playwright is not installed: install the `test` extra")
    with chromium(chromium_path) as running:
        yield running


@pytest.fixture(scope="session")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """JupyterLab over a copy of the course."""
    with jupyter(browser, tmp_path_factory.mktemp("browser")) as running:
        yield running

"""What every test may rely on: fixed seeds, a cache of its own, no windows, and Chromium if there is one."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile

import matplotlib as mpl
import pytest

mpl.use("Agg")  # not by MPLBACKEND: kernels would inherit it, and it takes the pictures out of notebooks

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the user's own cache out of the tests: set before any module or kernel reads it."""
    folder = tempfile.mkdtemp(prefix="llmlab-tests-")
    os.environ["LLMLAB_CACHE"] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Every test starts from the same global seeds, whichever ran before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:  # tests that need no torch do not wait for it
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """A Chromium to drive: LLMLAB_CHROMIUM, else the first on the path; skips where there is none."""
    named = os.environ.get("LLMLAB_CHROMIUM")
    if named:
        if not shutil.which(named):
            pytest.fail(f"LLMLAB_CHROMIUM={named} is no program that can be started")
        return named
    for name in CHROMIUM_NAMES:
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium found: install one, or set LLMLAB_CHROMIUM to its path, to run the browser tests")

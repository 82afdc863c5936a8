"""Style and types, as tests: `make test` then always ends with pytest's own summary, whatever failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow  # `make check` runs these tools itself
@pytest.mark.parametrize("command", ["ruff format --check .", "ruff check .", "mypy"])
def test_is_clean_for(command: str) -> None:
    pytest.importorskip(command.split()[0], reason="the `dev` extra is not installed")
    ran = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"

"""A package of its own, installed as pip installs it, is found by its entry point, runs, and keeps the rules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "example"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package in it, built and installed without the network."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(EXAMPLE)], check=True, capture_output=True, text=True)
    return site


def llmlab(site: Path, cwd: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "llmlab", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=environment, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_is_listed_with_where_it_came_from(installed, tmp_path):
    [line] = [
        line for line in llmlab(installed, tmp_path, "list").splitlines() if line.strip().startswith("lookahead ")
    ]
    assert "extra" in line and "llmlab-lookahead 1.2" in line


@pytest.mark.slow
def test_it_runs_and_is_repeated_by_name(installed, tmp_path):
    small = ["--steps", "2", "--batch-size", "2", "--set", "lookahead.every=1", "--quiet"]
    llmlab(installed, tmp_path, "run", "sft", "lookahead", "--data", "facts", *small)
    assert '"lookahead"' in (tmp_path / "runs/sft-lookahead-1/run.json").read_text()
    llmlab(installed, tmp_path, "run", "runs/sft-lookahead-1/run.json", "--quiet")


@pytest.mark.slow
def test_it_keeps_the_rules(installed, monkeypatch, check_technique):
    monkeypatch.syspath_prepend(str(installed))
    from llmlab_lookahead import Lookahead

    check_technique(Lookahead)

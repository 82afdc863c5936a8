"""The script of lesson 53 does what it says: three runs, a table, and folders if they are asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmlab import load

SCRIPT = Path(__file__).resolve().parents[2] / "course" / "53_rlhf.py"
pytestmark = pytest.mark.slow


def test_the_chain_as_a_script(tmp_path):
    steps = ["--steps", "3", "2", "2", "--answers", "6", "--out", str(tmp_path)]
    ran = subprocess.run([sys.executable, str(SCRIPT), *steps], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert all(word in ran.stdout for word in ("base", "SFT", "PPO", "harm", "held-out pairs"))
    assert {folder.name for folder in tmp_path.iterdir()} == {"sft", "reward", "ppo"}
    assert set(load(tmp_path / "ppo").heads) == {"value"} and set(load(tmp_path / "reward").heads) == {"reward"}

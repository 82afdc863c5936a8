"""The wheel carries kernel, plugins, lessons and base models, and nothing that git ignores."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel built from this checkout; without isolation, so that no network is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(folder),
    ]
    built = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("llmlab-*.whl")
    assert wheel.stat().st_size < 100e6, "a package index refuses files over 100 MB"
    return set(zipfile.ZipFile(wheel).namelist())


def tracked(folder: str) -> set[str]:
    """The files under `folder` that git knows, which are the ones to ship."""
    listed = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


@pytest.mark.parametrize(
    ("folder", "inside"),
    [("llmlab", "llmlab"), ("plugins/llmlab_plugins", "llmlab_plugins"), ("course", "llmlab/course")],
)
def test_every_tracked_file_is_inside(members: set[str], folder: str, inside: str) -> None:
    wanted = {inside + name.removeprefix(folder) for name in tracked(folder)}
    assert sorted(wanted - members) == []


def test_nothing_else_is_inside(members: set[str]) -> None:
    roots = {name.split("/")[0] for name in members}
    assert {root for root in roots if not root.endswith(".dist-info")} <= {"llmlab", "llmlab_plugins"}
    assert not [name for name in members if "__pycache__" in name or ".ipynb_checkpoints" in name]

"""What a lesson offers for replay is there, belongs to its panel and ends as the lesson says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest

from llmlab.catalogue import techniques
from llmlab.lab.record import read

ROOT = Path(__file__).resolve().parents[2]
COURSE = ROOT / "course"
# what a lesson may say that its recording ends at
ENDS = {"validation loss": "loss", "gold reward": "gold", "score": "score"}
RECORDINGS = sorted((COURSE / "recordings").glob("*.json"))

sys.path.insert(0, str(ROOT / "tools"))
from record_lessons import LONGER  # noqa: E402


def test_every_lesson_with_a_recording_has_its_recipe():
    assert [path.stem for path in RECORDINGS] == sorted(LONGER)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recording_is_what_its_lesson_says(path):
    record = read(path)
    cells = nbformat.read(COURSE / f"{path.stem}.ipynb", as_version=4).cells
    panel = next(c.source for c in cells if c.cell_type == "code" and c.source.endswith("\nlab"))
    prose = " ".join(" ".join(c.source.split()) for c in cells if c.cell_type == "markdown")
    named = rf"`recordings/{path.stem}\.json`.*?(\d+) steps.*?({'|'.join(ENDS)}) of (-?\d\.\d\d)"
    said = re.search(named, prose)
    assert said, "the lesson tells of its recording"
    assert record.outcome == "done" and record.steps == int(said[1])
    assert f"{record.evaluations[-1][ENDS[said[2]]]:.2f}" == said[3]
    assert f'"{record.dataset}"' in panel and set(record.choices["techniques"]) <= set(techniques())
    assert record.samples and all(sample.after for sample in record.samples)
    assert path.stat().st_size < 20_000

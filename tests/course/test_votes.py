"""The simulated votes of lesson 51: they are what their script makes, and say what it says of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from simulate_votes import COUNT, VOTERS, file_of, lines, simulate  # type: ignore[import-not-found]

from llmlab.data.tinytown import judge
from llmlab.votes import Votes


@pytest.mark.parametrize("voter", VOTERS)
def test_the_file_is_what_the_script_makes(voter):
    assert file_of(voter).read_text(encoding="utf-8") == lines(simulate(voter))
    assert "simulated" in voter and len(simulate(voter)) == COUNT


def test_one_checks_what_is_said_and_the_other_does_not():
    right = {}
    for voter in VOTERS:
        margins = [
            judge(v.prompt, v.winner).reward - judge(v.prompt, v.b if v.vote == "a" else v.a).reward
            for v in simulate(voter)
        ]
        right[voter] = sum(margin > 0 for margin in margins) / len(margins)
    ada, ben = right.values()
    assert 0.6 < ben < ada < 1  # both err


def test_together_they_are_rows_with_soft_labels():
    votes = Votes.merge(map(file_of, VOTERS))
    assert set(votes.voters) == set(VOTERS) and len(votes) == 2 * COUNT
    assert {row["preference"] for row in votes.rows()} == {0.5, 1.0}
    assert 0.5 < votes.agreement()["agree"] < 0.95

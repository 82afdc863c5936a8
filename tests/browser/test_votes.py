"""Votes in JupyterLab: clicked, typed with the keyboard alone, narrow and wide; and what then stands in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from browser.driver import Jupyter, Lesson

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELL = """from llmlab.lab import Votes

pairs = [{"prompt": f"Question {i}: where is <b>Bo</b>?", "chosen": f"In the park {i}.", "rejected": f"No {i}!\\nNo."}
         for i in range(4)]
votes = Votes(pairs, file="votes.jsonl", voter="Ada")
votes"""


@pytest.fixture
def lesson(lab: Jupyter) -> Iterator[Lesson]:
    (lab.folder / "course" / "votes.jsonl").unlink(missing_ok=True)
    lab.write("votes.ipynb", CELL)
    opened = lab.open("votes.ipynb")
    assert opened.run_all() == []
    yield opened
    opened.close()


def kept(lab: Jupyter) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (lab.folder / "course" / "votes.jsonl").read_text().splitlines()]


def test_clicks_are_votes_in_the_file(lab: Jupyter, lesson: Lesson) -> None:
    panel = lesson.panel("llmlab-votes")
    panel.at.get_by_text("Question 0: where is <b>Bo</b>?").wait_for()
    lesson.shot("votes", panel.at)
    shown = panel.at.get_by_role("group", name="Answer A").inner_text()
    panel.button("A is better").click()
    panel.at.get_by_text("1 of 4").wait_for()
    first = kept(lab)[0]
    assert first["vote"] == "a" and first["voter"] == "Ada" and first["seconds"] > 0
    assert first["a"].split()[0] in shown and first["prompt"].startswith("Question 0")
    lesson.page.wait_for_timeout(300)
    panel.button("Tie").click()
    panel.at.get_by_text("2 of 4, 1 tie").wait_for()
    lesson.page.wait_for_timeout(300)
    panel.button("Undo").click()
    panel.at.get_by_text("Question 1").wait_for()
    assert [line["vote"] for line in kept(lab)] == ["a", "tie", "undo"]
    lesson.execute("votes.vote('b'); assert votes.progress == '2 of 4'")
    panel.at.get_by_text("Question 2").wait_for()


def test_the_keyboard_is_enough(lab: Jupyter, lesson: Lesson) -> None:
    panel = lesson.panel("llmlab-votes")
    panel.button("A is better").focus()
    names = []
    for _ in range(4):
        names.append(lesson.page.evaluate("() => document.activeElement.innerText"))
        lesson.page.keyboard.press("Tab")
    assert names == ["A is better", "B is better", "Tie", "Skip"], "Undo is grey"
    panel.button("B is better").focus()
    for i in range(4):
        panel.at.get_by_text(f"Question {i}").wait_for()
        lesson.page.wait_for_timeout(300)
        lesson.page.keyboard.press("Enter" if i % 2 else "Space")
    panel.at.get_by_text("Every pair has a vote of yours").wait_for()
    assert [line["vote"] for line in kept(lab)] == ["b"] * 4 and lesson.cells() == 1
    lesson.page.wait_for_function("() => document.activeElement.innerText === 'Undo'", timeout=10_000)
    lesson.shot("votes-done", panel.at)


def test_every_control_and_answer_has_a_name(lesson: Lesson) -> None:
    heard = lesson.panel("llmlab-votes").at.aria_snapshot()
    for line in ('button "A is better"', 'button "Skip"', 'group "Prompt"', 'group "Answer A"', 'group "Answer B"'):
        assert line in heard
    assert heard.count("status") == 1


def test_answers_stand_side_by_side_or_one_below_the_other(lab: Jupyter, lesson: Lesson) -> None:
    panel = lesson.panel("llmlab-votes")

    def boxes() -> list[dict[str, float]]:
        return [panel.at.get_by_role("group", name=f"Answer {side}").bounding_box() for side in "AB"]

    left, right = boxes()
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    assert abs(left["height"] - right["height"]) < 2
    lesson.page.set_viewport_size({"width": 760, "height": 900})
    lesson.page.wait_for_timeout(500)
    above, below = boxes()
    lesson.shot("votes-narrow", panel.at)
    assert above["x"] == below["x"] and above["y"] + above["height"] <= below["y"]

"""Every exercise accepts its answer, rejects slips with a hint that gives nothing away, and stands in a lesson.

`answers/<lesson>.py` holds ANSWERS: {exercise: (a right answer, [wrong ones, a plausible one first])}.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

from llmlab.lab.checking import exercises, judge

HERE = Path(__file__).parent
COURSE = HERE.parents[1] / "course"
ANSWERS: dict[str, tuple[Any, list[Any]]] = {}
for _path in sorted((HERE / "answers").glob("*.py")):
    ANSWERS |= importlib.import_module(f"course.answers.{_path.stem}").ANSWERS
KNOWN = exercises()
WRONG = [(name, i) for name, (_, wrong) in ANSWERS.items() for i in range(len(wrong))]


class Hostile:
    """Fails at whatever one may do to it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def fails(*given: Any) -> Any:
    raise Mute


def leaves(*given: Any) -> Any:
    raise SystemExit(3)


NONSENSE = [
    *("", "0.5", "nonsense", b"1", True, False, -1, 10**400, float("nan"), float("inf"), 1j, [], {}, (), set(), [None]),
    *(object(), object, Exception, int, print, torch.zeros(3, 7), torch.tensor(float("nan")), torch.zeros(0), range(3)),
    *(fails, leaves, lambda: None, lambda *a: None, lambda *a: "text", lambda *a: torch.zeros(3, 7), lambda *a: a),
    *(Hostile(), Hostile, lambda *a: Hostile(), lambda *a: float("nan")),
]


def test_every_exercise_has_answers_and_no_other_has() -> None:
    assert ANSWERS.keys() == {name for name in KNOWN if KNOWN[name].checker.__module__.startswith("llmlab.")}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_is_right(name: str) -> None:
    verdict = judge(name, ANSWERS[name][0])
    assert verdict.right, verdict.line
    assert re.fullmatch(rf"exercise {re.escape(name)}: right\. \S.{{15,300}}", verdict.line), verdict.line


@pytest.mark.parametrize(("name", "which"), WRONG)
def test_a_wrong_answer_gets_a_hint_that_gives_nothing_away(name: str, which: int) -> None:
    right, wrong = ANSWERS[name]
    verdict = judge(name, wrong[which])
    assert verdict.right is False, verdict.line
    start = f"exercise {name}: not yet. "
    assert verdict.line.startswith(start) and len(verdict.line) > len(start) + 15, verdict.line
    for form in forms(right):
        assert not re.search(rf"(?<![\w.]){re.escape(form)}(?![\w.]*\w)", verdict.line), verdict.line


def forms(answer: Any) -> set[str]:
    """How an answer may be written; nothing for a function or a class."""
    if isinstance(answer, str):
        return {answer}
    if isinstance(answer, int | float):
        return {
            str(answer),
            f"{answer:,}",
            f"{answer:.2f}",
            *([f"{answer:.0f}"] if abs(answer - round(answer)) < 1e-9 else []),
        }
    return set()


@pytest.mark.parametrize("name", ANSWERS)
def test_there_are_three_wrong_answers_and_no_answer_is_no_mistake(name: str) -> None:
    assert len(ANSWERS[name][1]) >= 3
    assert judge(name, None).line == f"exercise {name}: no answer yet"


@pytest.mark.parametrize("name", ANSWERS)
def test_nonsense_gets_one_line_and_no_traceback(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for answer in NONSENSE:
        if any(answer is wrong for wrong in ANSWERS[name]):
            continue
        verdict = judge(name, answer)
        if verdict.right:  # a nonsense that happens to be right
            assert type(ANSWERS[name][0]) is type(answer), verdict.line
        assert "\n" not in verdict.line
    assert capsys.readouterr() == ("", "")


def lessons() -> dict[str, list[str]]:
    """The exercises that each notebook calls, in order."""
    found = {}
    for path in sorted(COURSE.glob("*.ipynb")):
        code = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        found[path.name] = re.findall(r"""^check\(["']([^"']+)["']""", code, re.M)
    return found


def test_lessons_ask_the_exercises_that_exist_each_once() -> None:
    asked = Counter(name for names in lessons().values() for name in names)
    assert asked.keys() == ANSWERS.keys()
    assert set(asked.values()) == {1}


@pytest.mark.parametrize("notebook", lessons())
def test_a_lesson_has_exercises_1_to_3_named_after_it(notebook: str) -> None:
    topic = notebook.removesuffix(".ipynb").partition("_")[2]
    topic = "start" if topic == "start_here" else topic
    assert lessons()[notebook] == [f"{topic}.{i}" for i in (1, 2, 3)]


def test_exercises_are_stored_without_an_answer() -> None:
    for path in COURSE.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and re.search(r"^check\(", cell.source, re.M):
                assert [o.get("text", "").rpartition(": ")[2] for o in cell.outputs] == ["no answer yet\n"], path.name

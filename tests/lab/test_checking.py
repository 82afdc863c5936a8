"""`check`: one line for whatever a student enters, an error only for an exercise that does not exist."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from llmlab.lab import check, exercise
from llmlab.lab.checking import _known, exercises, judge
from llmlab.lab.exercises import NotYet, as_number, call, close, number, text


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    before = exercises()  # imported once, they would not come back after the clearing
    yield
    _known.clear()
    _known.update(before)


@pytest.fixture
def half() -> Any:
    @exercise("own.1", expects="a function of one number")
    def half(answer: Any) -> str:
        """Half of a number."""
        for x in (0, 3, -1.5):
            close(call(answer, x), x / 2, "try it with 3 by hand")
        return "Half of zero is zero, too."

    return half


def hint(action: Any) -> str:
    with pytest.raises(NotYet) as caught:
        action()
    return str(caught.value)


def test_three_lines_for_three_cases(half: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for answer in (None, ..., lambda x: x / 2, lambda x: x // 2):
        assert check("own.1", answer) is None
    nothing = "exercise own.1: no answer yet"
    right, wrong = "exercise own.1: right. Half of zero is zero, too.", "exercise own.1: not yet. try it with 3 by hand"
    assert capsys.readouterr().out.splitlines() == [nothing, nothing, right, wrong]


def test_a_checker_stands_for_its_name_whether_marked_or_not(half: Any) -> None:
    assert judge(half, lambda x: x / 2).line.startswith("exercise own.1: right.")
    assert judge(lambda answer: "Fine.", 1).line == "exercise <lambda>: right. Fine."


@pytest.mark.parametrize(
    ("name", "told"),
    [("start.9", "did you mean start."), ("strat.1", "did you mean start.1"), ("own.11", "did you mean own.1")],
)
def test_an_unknown_exercise_names_the_nearest(half: Any, name: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"no exercise is called '{name}': {told}") as caught:
        check(name, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "§", 3, None])
def test_a_name_like_no_other_is_told_too(name: Any) -> None:
    with pytest.raises(ValueError, match="no exercise is called"):
        check(name, 1)


def test_an_error_in_the_students_code_is_told_in_the_line(half: Any) -> None:
    assert "ZeroDivisionError: division by zero" in judge("own.1", lambda x: 1 / 0).line
    assert "called with 1 argument, and does not take as many" in judge("own.1", lambda: 1).line
    assert "give its name without parentheses" in judge("own.1", 0.5).line
    assert "returns None: does it end with `return`?" in judge("own.1", print).line


def test_what_the_checker_cannot_handle_names_what_is_expected() -> None:
    @exercise("own.2", expects="a list of words")
    def words(answer: Any) -> str:
        answer[0].upper()
        return "Words."

    line = judge("own.2", 7).line
    assert line.startswith("exercise own.2: not yet. The answer is a list of words; trying yours gave TypeError")


def test_nothing_that_the_students_code_prints_or_warns_shows(half: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def chatty(x: float) -> float:
        print("hidden input", x)
        print("hidden input", x, file=sys.stderr)
        return x / 2

    check(half, chatty)
    out, err = capfd.readouterr()
    assert out.count("\n") == 1 and "hidden" not in out + err


def test_a_name_belongs_to_one_module_and_a_cell_may_run_twice(half: Any) -> None:
    def again(answer: Any) -> str:
        return "Again."

    assert exercise("own.1", expects="")(again) is again  # the same module

    def other(answer: Any) -> str:
        return "Other."

    other.__module__ = "another"
    with pytest.raises(ValueError, match=r"'own.1' exists already, in "):
        exercise("own.1", expects="")(other)


def test_checks_hold_without_asserts() -> None:
    """`python -O` removes assert statements; a checker made of them would then accept everything."""
    script = "from llmlab.lab.checking import judge; import sys; sys.exit(judge('start.2', 3).right is not False)"
    assert subprocess.run([sys.executable, "-O", "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("good", [50, 50.0, 50.0 + 1e-9, torch.tensor(50), torch.tensor([50.0])])
def test_whole_numbers_are_compared_exactly(good: Any) -> None:
    number(good, 50, "hint")
    assert hint(lambda: number(good + 1e-3, 50, "look again")) == "look again"


def test_other_numbers_within_one_percent_or_as_told() -> None:
    number(0.69, math.log(2), "hint")
    assert hint(lambda: number(0.71, math.log(2), "look again")) == "look again"
    number(0.7, math.log(2), "hint", tolerance=0.05)
    number(-0.69, -math.log(2), "hint")
    assert hint(lambda: number(0.69, -math.log(2), "look again")) == "look again"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("0.5", "take the quotation marks away"),
        ("1,024", "take the quotation marks away"),
        ("a half", "a number, not text"),
        (float("nan"), "NaN"),
        (float("inf"), "too large or infinite"),
        (10**400, "too large or infinite"),
        (True, "not of the type bool"),
        (1j, "not of the type complex"),
        ([1], "not of the type list"),
        (torch.zeros(2, 3), "this has shape (2, 3)"),
        (torch.zeros(0), "this has shape (0,)"),
        (int, "a function or a class"),
    ],
)
def test_what_is_no_number_is_told_kindly(answer: Any, told: str) -> None:
    assert told in hint(lambda: as_number(answer))


def test_texts_are_compared_by_their_words() -> None:
    text(" The  Answer. ", ["an answer", "the answer"], "hint")
    assert hint(lambda: text("answer", "the answer", "look again")) == "look again"
    assert "in quotation marks" in hint(lambda: text(5, "the answer", "look again"))


def test_tensors_and_lists_are_compared_in_shape_and_values() -> None:
    want = torch.tensor([[1.0, 2.0], [3.0, float("-inf")]])
    close(want.clone().requires_grad_(), want, "hint")
    assert "should return a tensor" in hint(lambda: close(3.0, want, "look again"))
    assert "shape (4,); it should be (2, 2)" in hint(lambda: close(want.flatten(), want, "look again"))
    assert hint(lambda: close(want + 1, want, "look again")) == "look again"
    assert hint(lambda: close(want.nan_to_num(neginf=-5), want, "look again")) == "look again"
    close([1, 2.00001, True, "a"], [1, 2, True, "a"], "hint")
    assert "2 elements; it should be 3" in hint(lambda: close([1, 2], [1, 2, 3], "look again"))
    assert hint(lambda: close([1, 0], [1, False], "look again")) == "look again"
    assert "NaN" in hint(lambda: close([float("nan")], [1.0], "look again"))


def test_hidden_inputs_survive_a_function_that_changes_them() -> None:
    rows, tensor = [1, 2], torch.ones(2)
    call(lambda r, t: (r.clear(), t.zero_()), rows, tensor)
    assert rows == [1, 2] and tensor.tolist() == [1, 1]

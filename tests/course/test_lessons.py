"""Every lesson holds what CONTRIBUTING.md, "A lesson", asks for; and each of these rules can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course import rules

ROOT = Path(__file__).resolve().parents[2]
COURSE = ROOT / "course"
NOTEBOOKS = sorted(COURSE.glob("*.ipynb"))
TECHNIQUES = [path for path in NOTEBOOKS if not path.name.startswith("01_")]  # 01 introduces the kit itself
PLUGINS = {path.stem for path in (ROOT / "plugins/llmlab_plugins").glob("*.py")}
SEVERAL = {"compare", "responsible_use", "rlhf"}  # lessons about several techniques

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
every_technique = pytest.mark.parametrize("path", TECHNIQUES, ids=lambda path: path.name)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@every_notebook
def test_trained_numbers_are_followed_by_an_assert(path: Path) -> None:
    assert list(rules.numbers_are_asserted(read(path))) == []


@every_notebook
def test_compared_outputs_hold_no_times(path: Path) -> None:
    assert list(rules.compared_outputs_hold_no_times(read(path))) == []


@every_notebook
def test_links_lead_somewhere_and_images_have_words(path: Path) -> None:
    notebook = read(path)
    assert [*rules.links_resolve(notebook, path.parent), *rules.images_have_words(notebook)] == []


@every_technique
def test_is_named_after_its_plugin_and_has_every_section(path: Path) -> None:
    notebook = read(path)
    assert [*rules.name(path, PLUGINS | SEVERAL), *rules.goals(notebook), *rules.sections(notebook)] == []


def test_lessons_have_numbers_of_their_own() -> None:
    numbers = [path.name[:2] for path in NOTEBOOKS]
    assert len(numbers) == len(set(numbers))


# -- the rules can fail ------------------------------------------------------------------------------------------


def lesson() -> Any:
    """A lesson that breaks no rule."""
    first = "# A lesson\n\nAt its end you can\n\n- one;\n- two;\n- three.\n\nIts cells take 12 seconds on two cores."
    titles = ["Why", "How it works", "The panel", "What to look for", "An experiment", "Exercises"]
    titles += ["Common mistakes", "Limits", "References"]
    counted = new_code_cell("print(4)", outputs=[new_output("stream", text="4 layers\n")])
    trained = new_code_cell("print(1.5)", outputs=[new_output("stream", text="1.5 in 3 s\n")])
    trained.metadata.tags = [rules.IGNORED]
    text = (
        "See [the first](01_start_here.ipynb#a) and ![a panel](images/panel.png), [2106](https://arxiv.org/abs/2106)."
    )
    sections = [new_markdown_cell(f"## {title}\n\nText.") for title in titles]
    checks = [counted, trained, new_code_cell("assert 1 < 2"), new_markdown_cell(text)]
    return new_notebook(cells=[new_markdown_cell(first), *checks, *sections])


def complaints(notebook: Any) -> list[str]:
    alone = (rules.goals, rules.sections, rules.numbers_are_asserted, rules.compared_outputs_hold_no_times)
    found = [line for rule in (*alone, rules.images_have_words) for line in rule(notebook)]
    return found + list(rules.links_resolve(notebook, COURSE))


def replace(cell: int, old: str, new: str) -> Callable[[Any], None]:
    def change(notebook: Any) -> None:
        assert old in notebook.cells[cell].source
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)

    return change


def test_a_good_lesson_gets_no_complaint() -> None:
    assert complaints(lesson()) == []
    assert list(rules.name(Path("21_clm.ipynb"), {"clm"})) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (replace(0, "# A", "A"), "does not begin with the title"),
        (replace(0, "- three.", ""), "in three points or more"),
        (replace(0, "you can", "one may"), "in three points or more"),
        (replace(0, " 12 seconds", " little"), "how long its cells take"),
        (replace(5, "Why", "What"), "no heading for the section: why it is done"),
        (replace(11, "## Common mistakes", "Common mistakes"), "no heading for the section: common mistakes"),
        (replace(12, "## Limits", "```\n# Limits\n```"), "no heading for the section: limits"),
        (lambda nb: nb.cells.insert(5, nb.cells.pop(6)), "how it works comes before why"),
        (lambda nb: nb.cells.insert(1, nb.cells.pop(13)), "references are not the last"),
        (replace(3, "assert 1 < 2", "1 < 2"), "no assert follows"),
        (replace(3, "assert 1 < 2", "# assert 1 < 2"), "no assert follows"),
        (lambda nb: nb.cells[2].metadata.pop("tags"), "is compared and shows a time: '3 s'"),
        (lambda nb: nb.cells[1].outputs[0].update(text="at 12:30\n"), "shows a time: '12:30'"),
        (replace(4, "01_start_here", "02_start_here"), "leads nowhere: 02_start_here.ipynb"),
        (replace(4, "a panel", ""), "no alternative text"),
        (replace(4, "![a panel](images/panel.png)", '<img src="images/panel.png">'), "no alternative text"),
    ],
)
def test_each_rule_can_fail(change: Callable[[Any], None], complaint: str) -> None:
    notebook = lesson()
    change(notebook)
    assert [line for line in complaints(notebook) if complaint in line], complaints(notebook)


@pytest.mark.parametrize("wrong", ["clm.ipynb", "2_clm.ipynb", "21_clmm.ipynb", "21-clm.ipynb"])
def test_names_can_be_wrong(wrong: str) -> None:
    assert list(rules.name(Path(wrong), {"clm"}))

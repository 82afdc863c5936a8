"""The first lesson's panel without a mouse, and as a screen reader hears it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import nbformat
import pytest
from browser.driver import ROOT, Jupyter, Lesson, Panel

pytestmark = [pytest.mark.browser, pytest.mark.slow]

INTERACTIVE = "button|checkbox|combobox|textbox|spinbutton|slider|radio|listbox|link|switch|tab"
FOCUS = """() => {
    const e = document.activeElement, panel = !!e.closest('.llmlab-lab');
    return panel ? (e.labels?.[0] ?? e).innerText.trim() || e.getAttribute('aria-label') || e.tagName : '';
}"""


@pytest.fixture(scope="module")
def lesson(lab: Jupyter) -> Iterator[Lesson]:
    """A notebook with the lesson's panel alone: nothing has been trained or chosen yet."""
    cells = nbformat.read(ROOT / "course/01_start_here.ipynb", as_version=4).cells
    code = next(c.source for c in cells if c.cell_type == "code" and "Lab(" in c.source)
    lab.write("panel.ipynb", code)
    opened = lab.open("panel.ipynb")
    assert opened.run_all() == []
    yield opened
    opened.close()


@pytest.fixture
def panel(lesson: Lesson) -> Panel:
    return lesson.panel()


def tab_through(lesson: Lesson) -> list[str]:
    """The names of what Tab reaches inside the panel, from its cell on."""
    lesson.page.locator(".jp-Cell").first.evaluate("cell => cell.focus()")
    names: list[str] = []
    for _ in range(60):
        lesson.page.keyboard.press("Tab")
        name = lesson.page.evaluate(FOCUS)
        if names and not name:
            return names
        names += [name] if name else []
    raise AssertionError(f"Tab never leaves the panel: {names}")


def test_every_control_has_a_name_and_there_is_one_status(panel: Panel) -> None:
    heard = panel.at.aria_snapshot()
    controls = re.findall(rf"^\s*- '?(?:{INTERACTIVE})\b.*$", heard, re.M)
    assert len(controls) >= 10
    assert [line for line in controls if not re.match(r"\s*- '?\w+ \"[^\"]", line)] == []
    assert panel.status.count() == 1
    assert panel.status.get_attribute("aria-live") in (None, "polite")  # role=status is polite by itself
    assert re.search(r"- '?img \"Loss by step", heard), "the chart is told in words"


def test_tab_reaches_every_control_in_reading_order(lesson: Lesson, panel: Panel) -> None:
    names = tab_through(lesson)
    wanted = ["Run", "● CLM", "LoRA", "Data", "Start from", "Steps", "Batch size", "Learning rate", "Show code"]
    assert [name for name in names if name in wanted] == wanted
    reachable = panel.at.locator("button:enabled:visible, input:enabled:visible, select:enabled:visible")
    assert len(names) == reachable.count()


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_key_starts_a_run(lesson: Lesson, panel: Panel, key: str) -> None:
    panel.field("Steps").fill("30")  # long enough to be seen at work
    panel.field("Steps").press("Tab")
    panel.button("Run").focus()
    lesson.page.keyboard.press(key)
    panel.wait("Preparing|Training", 10)
    assert "Done" in panel.wait("Done|Error|Stopped", 60)[-1]
    assert lesson.cells() == 1, "the notebook took the key, too"


def test_a_key_stops_a_run_and_space_switches_a_box(lesson: Lesson, panel: Panel) -> None:
    panel.field("Steps").fill("5000")
    panel.button("Run").press("Enter")
    panel.at.get_by_text(re.compile(r"step [1-9]\d* of 5,000")).wait_for(timeout=60_000)
    panel.button("Stop").press("Space")
    assert "Stopped" in panel.wait("Stopped|Done|Error", 30)[-1]
    box = panel.field("LoRA")
    box.press("Space")
    assert box.is_checked()
    box.press("Space")
    assert not box.is_checked()


def test_the_focus_goes_from_run_to_stop_and_back(lesson: Lesson, panel: Panel) -> None:
    panel.button("Run").press("Enter")
    lesson.page.wait_for_function(f"({FOCUS})() === 'Stop'", timeout=10_000)
    lesson.page.keyboard.press("Enter")
    panel.wait("Stopped", 60)
    lesson.page.wait_for_function(f"({FOCUS})() === 'Run'", timeout=10_000)


def test_the_focus_stays_where_it_is_when_a_run_ends_by_itself(lesson: Lesson, panel: Panel) -> None:
    panel.field("Steps").fill("3")
    panel.button("Run").focus()
    panel.wait("Ready", 10)
    lesson.page.keyboard.press("Enter")
    lesson.page.wait_for_function(f"({FOCUS})() === 'Stop'", timeout=10_000)
    assert "Done" in panel.wait("Done|Error", 60)[-1]
    lesson.page.wait_for_timeout(1000)
    assert lesson.page.evaluate(FOCUS) == "Stop", "not the page"
    lesson.shot("stop-idle", panel.at)
    lesson.page.keyboard.press("Enter")
    lesson.page.wait_for_function(f"({FOCUS})() === 'Run'", timeout=10_000)
    assert panel.button("Stop").is_disabled()

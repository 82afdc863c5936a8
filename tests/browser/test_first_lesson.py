"""The first lesson in JupyterLab: every cell, and the panel used as a student would."""

from __future__ import annotations

import re
import time

import pytest
from browser.driver import Jupyter, Lesson, Panel

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STARTS, STOPS = 1.0, 3.0  # seconds; loose, for machines that do other things too


def test_the_first_lesson_and_its_panel(lab: Jupyter) -> None:
    lesson = lab.open("01_start_here.ipynb")
    assert lesson.run_all() == []
    panel = lesson.panel("llmlab-lab")
    panel.at.scroll_into_view_if_needed()
    assert panel.status.inner_text().startswith("✓ Done: SFT + LoRA"), "the lesson's own cells drive the panel"

    choose_stories(panel)
    panel.field("Batch size").fill("8")
    panel.field("Steps").fill("16")
    started = press(panel, "Run")
    lesson.shot("panel-running", panel.at)
    pictures, lines = panel.watch("Done|Error|Stopped", 60)
    assert lines[-1].startswith("✓ Done: CLM, 16 steps"), lines
    assert len(pictures) >= 3, "the chart is alive"
    assert started < STARTS
    assert "floor 0." in str(panel.at.locator("img.llmlab-chart").get_attribute("alt"))
    lesson.shot("panel-done", panel.at)
    lesson.shot("page-done")

    train_lora_and_stop(panel)
    lesson.shot("panel-stopped", panel.at)
    see_an_error(lesson, panel)
    lesson.shot("panel-error", panel.at)


def press(panel: Panel, name: str) -> float:
    """Click a button; seconds until the status changes."""
    before, clicked = panel.status.inner_text(), time.monotonic()
    panel.button(name).click()
    while panel.status.inner_text() == before:
        assert time.monotonic() - clicked < 10, "nothing happened"
    return time.monotonic() - clicked


def choose_stories(panel: Panel) -> None:
    from playwright.sync_api import expect

    panel.field("LoRA").uncheck()
    panel.field("Start from").select_option("random weights")
    panel.field("Data").select_option("stories")  # SFT cannot learn from these, so it gives way
    panel.at.get_by_role("button", name="● CLM").wait_for()
    expect(panel.at.get_by_role("button", name="○ SFT")).to_be_disabled()  # each widget is told by itself
    expect(panel.at.get_by_text("SFT needs the columns")).to_be_visible()


def train_lora_and_stop(panel: Panel) -> None:
    panel.field("Data").select_option("dates into French")
    panel.field("Start from").select_option("tiny-gpt")
    panel.at.get_by_role("button", name="○ SFT").click()
    panel.field("LoRA").check()
    panel.at.get_by_text(re.compile(r"8,192")).wait_for()  # the bar of parameters follows the toggle
    panel.button("Show code").click()
    assert "[SFT(), LoRA(rank=4)]" in panel.at.locator("pre").inner_text()
    panel.button("Hide code").click()
    panel.field("Steps").fill("2000")
    panel.button("Run").click()
    panel.at.get_by_text(re.compile(r"step [1-9]\d* of 2,000")).wait_for(timeout=30_000)
    assert panel.button("Run").is_disabled()
    clicked = time.monotonic()
    panel.button("Stop").click()
    panel.watch("Stopped: SFT")
    assert time.monotonic() - clicked < STOPS
    assert panel.button("Run").is_enabled() and panel.button("Stop").is_disabled()


def see_an_error(lesson: Lesson, panel: Panel) -> None:
    lesson.execute("import llmlab.lab.work as w; w.choose_samples = lambda *a: 1 / 0")
    panel.button("Run").click()
    panel.watch("Error: ZeroDivisionError: division by zero")
    stop = panel.button("Stop")  # it keeps the focus that it had, and is grey
    assert panel.button("Run").is_enabled() and (stop.is_disabled() or "llmlab-idle" in stop.get_attribute("class"))

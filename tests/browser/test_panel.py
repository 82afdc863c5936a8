"""The panel in JupyterLab with an extra, an objective that needs it, measures to draw, and all kinds of knobs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from browser.driver import ROOT, Jupyter, Lesson, Panel

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELL = f"""import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from lab.panels import DATA, PROMPTS, SMALL, Policy, Scores, shortest
from llmlab import Lab

lab = Lab(["clm", Policy(gold=shortest)], ["lora"], DATA | {{"prompts": PROMPTS}}, extras=[Scores], config=SMALL,
          steps=6, batch_size=4, evaluate_batches=1, evaluate_every=2, samples=1)
lab"""
EXPECTED = "Policy needs a technique that implements score: switch Scores on"


@pytest.fixture(scope="module")
def lesson(lab: Jupyter) -> Iterator[Lesson]:
    lab.write("alignment.ipynb", CELL)
    opened = lab.open("alignment.ipynb")
    assert opened.run_all() == []
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def panel(lesson: Lesson) -> Panel:
    return lesson.panel()


def alt(panel: Panel) -> str:
    return str(panel.at.locator("img.llmlab-chart").get_attribute("alt"))


def test_an_objective_waits_for_what_it_needs(lesson: Lesson, panel: Panel) -> None:
    panel.at.get_by_role("heading", name="Extras").wait_for()
    panel.at.get_by_text(EXPECTED).wait_for()
    lesson.shot("extras-grey", panel.at)
    panel.field("Scores").check()
    panel.at.get_by_text(re.compile("Policy needs the columns prompt; this data has")).wait_for()
    panel.field("Data").select_option("prompts")
    panel.at.get_by_role("button", name="Policy").click()
    panel.at.get_by_role("button", name="● Policy").wait_for()
    panel.wait("Ready", 10)
    panel.field("Scores").uncheck()
    assert EXPECTED in panel.wait("cannot run", 10)[-1] and panel.button("Run").is_disabled()
    panel.field("Scores").check()
    panel.wait("Ready", 10)


def test_a_run_without_a_loss_shows_its_rewards_and_what_is_chosen(lesson: Lesson, panel: Panel) -> None:
    panel.button("Run").click()
    assert "validation gold" in panel.wait("Done|Error|Stopped", 60)[-1]
    menu = panel.field("Chart")
    offered = [text.replace("\xa0", " ") for text in menu.locator("option").all_inner_texts()]
    assert offered == ["loss", "score and gold", "score", "KL", "length", "gold"]
    assert alt(panel).startswith("Score and gold by step: score from ")
    lesson.shot("measures", panel.at)
    menu.select_option("KL")
    panel.page.wait_for_function("() => document.querySelector('img.llmlab-chart').alt.startsWith('KL by step')")
    assert panel.at.get_by_role("cell", name=re.compile(r"^gold .*, KL ")).count() == 1
    menu.select_option("loss")
    panel.page.wait_for_function("() => document.querySelector('img.llmlab-chart').alt.startsWith('Loss by step')")
    panel.button("Run").click()
    panel.wait("Preparing|Training", 10)
    menu.select_option("gold")  # while it trains
    panel.wait("Done|Error|Stopped", 60)
    panel.page.wait_for_function("() => document.querySelector('img.llmlab-chart').alt.startsWith('Gold by step')")
    menu.select_option("score and gold")
    panel.field("Run 1 on the chart").check()
    panel.field("Run 2 on the chart").check()
    panel.page.wait_for_function("() => /Run 1, .*Run 2, /.test(document.querySelector('img.llmlab-chart').alt)")
    assert "gold from" in alt(panel)
    lesson.shot("measures-two-runs", panel.at)


def test_what_cannot_be_typed_is_told_and_several_lines_are_a_field(lesson: Lesson, panel: Panel) -> None:
    held, rules = panel.field("Gold"), panel.field("Rules")
    assert held.is_disabled() and held.input_value() == "in memory: the function shortest"
    assert rules.evaluate("e => e.tagName + e.rows") == "TEXTAREA3"
    rules.fill("Be brief.\nBe kind.")
    rules.blur()
    lesson.execute("assert lab.session.knobs['policy']['rules'] == 'Be brief.\\nBe kind.', lab.session.knobs")
    panel.button("Show code").click()
    panel.at.get_by_text("# Policy.gold: the function shortest in memory").wait_for()


def test_a_number_out_of_bounds_is_told_and_stays_as_it_was(panel: Panel) -> None:
    steps = panel.field("Steps")
    steps.fill("-3")
    steps.press("Tab")
    assert "Training.steps = -3: must be 1 to" in panel.wait("Error", 10)[-1]
    assert steps.input_value() == "6"


def test_halving_and_doubling_have_names_of_their_own(panel: Panel) -> None:
    panel.field("Batch size")
    heard = panel.at.aria_snapshot()
    names = re.findall(r'button "((?:Halve|Double) [^"]+)"', heard)
    assert {"Halve learning rate", "Double learning rate"} <= set(names) and len(names) == len(set(names))
    assert "÷" not in heard and "×" not in heard

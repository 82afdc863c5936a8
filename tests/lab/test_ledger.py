"""The ledger: past runs as a table, on one chart, shown again, restored, forgotten."""

from __future__ import annotations

import gc
import re
import weakref
from dataclasses import replace
from typing import Any

import pytest
from lab.panels import Broken, make

from llmlab.lab import Lab, chart


@pytest.fixture(scope="module")
def trained() -> Lab:
    """A panel with two runs: CLM on stories, and from it SFT with LoRA of rank 2 on questions."""
    lab = make(steps=4, evaluate_every=2)
    lab.run()
    lab.set(data="questions", start="last").choose("sft").choose("lora", rank=2).run()
    return lab


def test_a_row_says_what_was_run_and_what_came_of_it(trained: Lab) -> None:
    first, second = trained.ledger.rows
    runs = trained.results
    assert (first["techniques"], first["data"], first["start"]) == ("CLM", "stories", "scratch")
    assert (second["techniques"], second["data"], second["start"]) == ("SFT + LoRA(rank=2)", "questions", "run 1")
    for row, run in zip((first, second), runs, strict=True):
        assert row["steps"] == 4 and row["outcome"] == "done" and row["seconds"] > 0
        assert row["share"] == run.parameters().share
        assert (row["before"], row["after"]) == (run.evaluations[0]["loss"], run.metrics["loss"])
    assert second["measure"].startswith("exact match ") and first["measure"] == ""


def test_a_saved_notebook_keeps_a_real_table_and_text(trained: Lab) -> None:
    page, text = trained.ledger._repr_html_(), repr(trained.ledger)
    assert page.count("scope='row'") == 2 and page.count("scope='col'") == 9 and "<caption" in page
    assert len(text.splitlines()) == 3 and "SFT + LoRA(rank=2)" in text
    assert page == trained.past.table.value.replace(" class='llmlab-shown' aria-current='true'", "").replace(
        "<span class='llmlab-unseen'> (shown)</span>", ""
    )
    assert "No run yet" in repr(make().ledger)


def test_what_comes_from_outside_is_text_in_the_table() -> None:
    lab = make(data={"<b>mine</b>": make().session.data["stories"]}, steps=1, samples=0)
    lab.run()
    assert "<b>mine" not in lab.ledger._repr_html_() + lab.past.table.value + lab.watching.chart.value


def test_runs_are_overlaid_by_box_and_by_code(trained: Lab) -> None:
    trained.overlay()
    assert [tick.value for tick in trained.past.boxes.values()] == [True, True]
    alt = trained.watching.chart.value
    assert "Run 1, CLM on stories. Loss by step: training loss from" in alt and "Run 2, SFT + LoRA" in alt
    trained.past.boxes[1].value = False
    assert trained.session.overlaid == [2] and "Run 1" not in trained.watching.chart.value
    trained.overlay(None)
    assert trained.session.overlaid == [] and not trained.past.boxes[2].value
    with pytest.raises(ValueError, match="there is no run 9: there are 1, 2"):
        trained.overlay(1, 9)
    trained.past.boxes[1].value = True
    trained.overlay(None)


def test_every_box_says_which_run_it_draws(trained: Lab) -> None:
    assert [tick.description for tick in trained.past.boxes.values()] == ["Run 1 on the chart", "Run 2 on the chart"]


def test_pictures_of_several_runs_are_described_in_words(trained: Lab) -> None:
    both = trained.picture(2, 1)
    assert both.data == trained.picture(*trained.results).data
    assert both.data[:4] == b"\x89PNG" and both.data != trained.picture().data
    assert re.match(
        r"Run 1, CLM on stories\. .*validation loss from .* Run 2, SFT \+ LoRA\(rank=2\) on questions\. ", both.alt
    )
    assert trained.picture(1).data != trained.picture(2).data == trained.picture().data


def test_runs_that_differ_in_their_start_alone_are_told_apart(trained: Lab) -> None:
    first, second = (replace(r, name="CLM", dataset="stories") for r in trained.session.records)
    assert [line.name for line in chart.lines([first, second])] == ["CLM from scratch", "CLM from run 1"]
    assert [line.name for line in chart.lines([first])] == ["CLM"]


def test_runs_that_differ_in_a_setting_alone_are_told_apart(trained: Lab) -> None:
    record = trained.session.records[0]
    rates = (None, 0.01, 0.001)
    runs = [
        replace(record, number=i, choices=record.choices | {"training": {"steps": 4, "learning_rate": rate}})
        for i, rate in enumerate(rates)
    ]
    ends = ["learning rate recommended", "learning rate 0.01", "learning rate 0.001"]
    assert [line.name for line in chart.lines(runs)] == [f"{record.name}, {end}" for end in ends]


def test_a_run_of_elsewhere_is_one_line(trained: Lab) -> None:
    for asked, line in ((99, "there is no run 99: there are 1, 2"), (object(), "there is no such run in this panel")):
        with pytest.raises(ValueError, match=line):
            trained.overlay(asked)  # type: ignore[arg-type]


def test_no_two_overlaid_runs_look_alike() -> None:
    index = chart.looks([1, 2, 8, 9, 15])
    assert len({i % len(chart.COLOURS) for i in index.values()}) == 5, "while there are colours left, each has its own"
    assert chart.looks([2])[2] == chart.looks([1, 2, 3])[2], "a run keeps its looks"
    many = [(i % len(chart.COLOURS), i % len(chart.DASHES)) for i in chart.looks(range(1, 29)).values()]
    assert len(set(many)) == len(many), "then its colour and dashes"


def test_each_curve_ends_in_its_number_and_numbers_do_not_cover_each_other() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    curve = chart.Curve([1, 2], [3.0, 1.0], [0, 2], [3.0, 1.0], None, 2)
    chart._draw_all(axes, [chart.Line(n, "same", curve, n - 1) for n in (1, 2, 3)])
    labels = {text.get_text(): text.xy[1] for text in axes.texts}
    assert set(labels) == {"1", "2", "3"}
    low, middle, high = sorted(labels.values())
    assert middle - low > 0.1 and high - middle > 0.1


def test_a_run_is_shown_again_from_the_menu(trained: Lab) -> None:
    trained.past.menu.value = 1
    assert trained.watching.title.value.count("CLM") == 1 and "100 %" in trained.watching.share.value
    assert trained.status.startswith("Run 1: CLM on stories")
    trained.show(2)
    assert trained.past.menu.value == 2 and "SFT + LoRA" in trained.watching.title.value


def test_the_settings_of_a_run_come_back(trained: Lab) -> None:
    codes = [record.plan.code() for record in trained.session.records if record.plan]
    trained.restore(1)
    assert trained.code == codes[0] and not trained.choosing.toggles["lora"].value
    trained.past.menu.value = 2
    trained.past.buttons["Use these settings"].click()
    assert trained.code == codes[1] and trained.session.start_from == "run 1"
    assert trained.choosing.knobs["lora"]["rank"].input.value == 2


def test_what_cannot_be_restored_changes_nothing(trained: Lab) -> None:
    other = make(adaptations=[])
    other.session.records = list(trained.session.records)
    before = other.code
    with pytest.raises(ValueError, match="run 2 used lora, which is not offered here: there are clm, sft"):
        other.restore(2)
    assert other.code == before


def test_a_forgotten_run_frees_its_model() -> None:
    lab = make(steps=1, samples=0)
    gone: Any = weakref.ref(lab.run().model)
    lab.set(start="run 1").overlay(1).forget(1)
    assert lab.ledger.rows == [] and lab.session.start_from == "scratch" and lab.session.overlaid == []
    gc.collect()
    assert gone() is None
    lab.run()
    assert [row["number"] for row in lab.ledger.rows] == [2], "numbers are not used again"


def test_a_run_that_ends_stays_on_the_chart() -> None:
    lab = make(steps=1, samples=0)
    lab.run()
    lab.overlay(1).run()
    assert lab.session.overlaid == [1, 2]


def test_a_run_that_failed_is_in_the_ledger_with_its_curve() -> None:
    lab = make(objectives=["clm"], adaptations=[Broken]).choose("broken")
    with pytest.raises(ValueError, match="boom"):
        lab.run()
    assert [(row["outcome"], row["steps"]) for row in lab.ledger.rows] == [("failed", 2)]
    assert lab.status.startswith("Error: <b>boom</b>")

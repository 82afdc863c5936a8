"""The bar of `run.fit()` in a notebook, and the chart's numbers."""

from __future__ import annotations

import pytest

from llmlab import ModelConfig, Run, Training, corpus
from llmlab.lab.chart import Curve, png, smooth
from llmlab.lab.progress import NotebookBar

SMALL = ModelConfig(layers=1, heads=2, width=32, vocab_size=400, context=160)


def test_the_bar_ends_with_a_line_and_its_text_is_constant(capsys: pytest.CaptureFixture[str]) -> None:
    bar = NotebookBar()
    training = Training(steps=3, batch_size=4, evaluate_batches=1)
    Run(["clm"], corpus("tinytown", size=60), config=SMALL, training=training).fit(progress=bar)
    assert "step 3 of 3, loss" in bar.bar.value and 'aria-label="Steps taken"' in bar.bar.value
    assert "3 steps in" in bar.line.value and "perplexity" in bar.line.value
    assert bar._repr_mimebundle_()["text/plain"] == "CLM: 3 steps"
    assert capsys.readouterr().out == "CLM: 3 steps\n"  # what `display` shows where no notebook is


def test_smoothing_keeps_a_line_straight_and_does_not_lag() -> None:
    line = [float(i) for i in range(100)]
    assert smooth(line)[:90] == pytest.approx(line[:90])
    assert smooth([5.0, 1.0, 1.0]) == pytest.approx([5.0, 7 / 3, 1.0])
    assert smooth([]) == []


def test_the_chart_of_a_stopped_run_ends_where_it_was_stopped() -> None:
    run = Run(["clm"], corpus("tinytown", size=60), config=SMALL, training=Training(steps=30, batch_size=4))
    assert Curve.of(run).end == 30
    run.fit(steps=2, progress=False).stop()
    assert Curve.of(run).end == 2


def test_a_chart_is_drawn_in_any_state_and_described_in_words() -> None:
    for curve in (
        Curve(),
        Curve([1], [2.0]),
        Curve([1, 2], [2.0, 1.0], [0, 2], [2.1, 1.1], 0.5, 2),
        Curve([1], [-3.0]),
    ):
        assert png(curve, "a title")[:4] == b"\x89PNG"
    assert "floor 0.50" in Curve([1], [2.0], [0], [2.0], 0.5, 1).describe()
    assert "nothing has been trained" in Curve().describe()

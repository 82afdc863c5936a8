"""Measures over steps: which a chart shows, how they look, in words, from code, from files and in the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lab.panels import DATA, PROMPTS, Policy, Scores, make, shortest
from matplotlib.figure import Figure

from llmlab.lab import Lab, measures
from llmlab.lab.chart import Curve, Line


def panel(**changes: Any) -> Lab:
    """On-policy runs, which have no validation loss; with a judge that training never sees unless told otherwise."""
    offered = dict(objectives=["clm", Policy(gold=shortest)], extras=[Scores], data={"prompts": PROMPTS, **DATA})
    return make(**{**offered, "chosen": ["scores", "policy"], "steps": 4, "evaluate_every": 2, **changes})


@pytest.fixture(scope="module")
def trained() -> Lab:
    """Two on-policy runs, with and without the judge, and a third that predicts stories."""
    lab = panel()
    lab.run()
    lab.choose("policy", gold=None).set(seed=1).run()
    lab.drop("scores").set(data="stories", seed=0).run()
    return lab


def alt(lab: Lab) -> str:
    return lab.watching.chart.value.split("alt=")[1]


def options(lab: Lab) -> list[str]:
    return [text for text, _ in lab.watching.menu.options]


# -- which -------------------------------------------------------------------------------------------------------


def test_a_run_without_a_validation_loss_shows_its_rewards_first(trained: Lab) -> None:
    trained.show(1)
    assert trained.watching.menu.label == "score and gold" and trained.watching.menu.layout.display == ""
    assert alt(trained).startswith('"Score and gold by step: score from ')
    assert "; gold from " in alt(trained) and "; KL from 0.00 to 1.00 in 3 evaluations." in alt(trained)
    assert options(trained) == ["loss", "score and gold", "score", "KL", "length", "gold"]
    trained.show(2)
    assert trained.watching.menu.label == "score" and "gold" not in alt(trained)
    trained.show(3)
    assert trained.watching.menu.label == "loss" and alt(trained).startswith('"Loss by step: training loss')
    assert options(trained) == ["loss", "perplexity"]


def test_what_is_picked_stays_where_a_run_has_it(trained: Lab) -> None:
    try:
        trained.show(1)
        trained.watching.menu.value = ("length",)
        assert alt(trained).startswith('"Length by step: length from ')
        trained.show(3)
        assert trained.watching.menu.label == "loss"
        trained.show(2)
        assert trained.watching.menu.label == "length"
        trained.chart(("length", "kl"))
        assert trained.watching.menu.label == "length and KL" and "; KL from" in alt(trained)
        trained.chart("kl")
        assert alt(trained).startswith('"KL by step: KL from')
        trained.chart("loss")
        assert alt(trained).startswith('"Loss by step')
    finally:
        trained.chart(None)
    assert trained.watching.menu.label == "score"


def test_a_run_that_begins_leaves_the_menu_as_it_is(trained: Lab) -> None:
    try:
        trained.show(1)
        trained.chart("gold")
        before = options(trained)
        trained.session.last = trained.session._blank(trained.session.plan())
        trained.watching.draw()
        assert trained.watching.menu.label == "gold" and options(trained) == before
        assert alt(trained).startswith('"Gold by step: gold was not measured')
    finally:
        trained.session.last = trained.session.records[-1]
        trained.chart(None)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("golf", "no run here measured 'golf': there are loss, score, kl, length, gold"),
        (("score", "kl", "length"), "a chart shows the loss, one measure or two, not score and kl and length"),
        (("loss", "score"), "not loss and score"),
        ((), "not none"),
    ],
)
def test_a_chart_that_cannot_be_is_one_line(trained: Lab, wanted: Any, told: str) -> None:
    for draw in (lambda: trained.chart(wanted), lambda: trained.picture(1, measure=wanted)):
        with pytest.raises(ValueError, match=told) as caught:
            draw()
        assert "\n" not in str(caught.value)
    assert trained.watching.wanted is None


def test_a_panel_without_runs_has_no_menu_of_charts() -> None:
    assert make().watching.menu.layout.display == "none"


# -- from code ---------------------------------------------------------------------------------------------------


def test_pictures_of_measures(trained: Lab) -> None:
    both, first = trained.picture(1, 2, measure="score"), trained.picture(1)
    assert both.data[:4] == first.data[:4] == b"\x89PNG" and both.data != first.data
    assert both.alt.startswith("Run 1, Policy(gold=") and "Run 2, Policy" in both.alt
    assert first.alt == trained.picture(1, measure=("score", "gold")).alt != trained.picture(1, measure="gold").alt
    assert trained.picture(1, measure="loss").alt.startswith("Loss by step: training loss")
    assert "Run 2, " in (alone := trained.picture(1, 2, measure="gold").alt) and "gold was not measured" in alone
    assert trained.picture(1, 3).alt.startswith("Run 1, Policy") and "validation loss from" in trained.picture(1, 3).alt


def test_runs_are_overlaid_by_measure(trained: Lab) -> None:
    try:
        trained.overlay(1, 2)
        assert trained.watching.menu.label == "score and gold"
        assert alt(trained).count("score from") == 2 and "gold was not measured" in alt(trained)
        assert alt(trained).count("KL from") == 2
        trained.overlay(1, 2, 3)
        assert trained.watching.menu.label == "loss", "one of them has a loss of the validation set"
    finally:
        trained.overlay(None)


# -- how they look -----------------------------------------------------------------------------------------------


def lines(*runs: dict[str, list[float]]) -> list[Line]:
    curves = [Curve(end=4, measures={k: ([0, 2, 4][: len(v)], v) for k, v in run.items()}) for run in runs]
    return [Line(n, f"run {n}", curve, n - 1) for n, curve in enumerate(curves, 1)]


def drawn(what: measures.View, *runs: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch) -> Figure:
    """The figure that a picture is made of."""
    seen: list[Figure] = []
    save = Figure.savefig
    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", lambda self, *a, **k: (seen.append(self), save(self, *a, **k)))
        measures.png(lines(*runs), what, "title")
    return seen[0]


POLICY = {"score": [0.0, 2.0, 4.0], "gold": [0.0, 1.0, 0.5], "kl": [0.0, 3.0, 9.0], "length": [4, 5, 6]}


def test_proxy_is_solid_gold_dashed_and_kl_below(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(("score", "gold"), POLICY, monkeypatch=monkeypatch)
    upper, lower = figure.axes
    score, gold = upper.lines
    assert score.get_linestyle() == "-" and gold.get_linestyle() == "--"
    assert len({score.get_marker(), gold.get_marker(), lower.lines[0].get_marker()}) == 3
    assert len({score.get_color(), gold.get_color(), lower.lines[0].get_color()}) == 3
    assert lower.get_ylabel() == "KL" and lower.get_xlabel() == "step" and not upper.get_xlabel()
    assert upper.get_shared_x_axes().joined(upper, lower) and upper.get_xlim() == (0, 4)
    assert lower.get_position().height < upper.get_position().height / 2 and lower.get_ylim()[0] == 0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["score", "gold"]


def test_a_measure_alone_has_no_legend_and_kl_no_second_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    for what, axes in ((("kl",), 1), (("length",), 1), (("gold",), 2)):
        figure = drawn(what, POLICY, monkeypatch=monkeypatch)
        assert len(figure.axes) == axes and not figure.legends
        assert figure.axes[0].get_ylabel() == measures.label(what)


def test_several_runs_are_told_apart_by_colour_mark_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(("score", "gold"), POLICY, POLICY, monkeypatch=monkeypatch)
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines]
    assert len(set(looks)) == 4 and len({look[:2] for look in looks}) == 2
    assert [t.get_text() for t in figure.axes[0].texts] == ["1", "2"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "1  run 1",
        "2  run 2",
        "score: solid",
        "gold: dashed",
    ]
    alone = drawn(("gold",), POLICY, POLICY, monkeypatch=monkeypatch)
    assert len({line.get_linestyle() for line in alone.axes[0].lines}) == 2
    assert [t.get_text() for t in alone.legends[0].get_texts()] == ["1  run 1", "2  run 2"]


def test_what_is_no_number_is_left_out_and_a_chart_may_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make()
    record = lab.session._blank(lab.session.plan())
    record.evaluations = [{"step": 0, "score": float("nan")}, {"step": 2, "score": 1.0, "right": True, "note": "x"}]
    assert Curve.of(record).measures == {"score": ([2], [1.0])}
    empty = drawn(("score",), {"gold": [1.0]}, monkeypatch=monkeypatch)
    assert [t.get_text() for t in empty.axes[0].texts] == ["Not measured yet"]


def test_the_best_of_a_curve_that_turns_is_told() -> None:
    said = measures.describe(lines(POLICY), ("score", "gold"))
    assert "score from 0.00 to 4.00 in 3 evaluations;" in said
    assert "gold from 0.00 to 0.50 in 3 evaluations, highest 1.00 at step 2;" in said


def test_a_loss_of_another_kind_is_not_told_in_nats_a_token(trained: Lab) -> None:
    units = [Curve.of(record).unit for record in trained.session.records]
    assert units == ["loss", "loss", "loss (nats a token)"] and Curve().unit == "loss (nats a token)"


# -- in the ledger and in files ----------------------------------------------------------------------------------


def test_the_ledger_tells_gold_else_score_and_kl(trained: Lab) -> None:
    first, second, third = trained.ledger.rows
    last = [run.metrics for run in trained.results]
    assert first["measure"] == f"gold {last[0]['gold']:.3g}, KL 1" and first["after"] is None
    assert second["measure"] == f"score {last[1]['score']:.3g}, KL 1"
    assert third["measure"] == "" and third["after"] is not None
    trained.show(1)
    assert "KL" in trained.watching.measures.value


def test_the_status_tells_the_reward() -> None:
    lab = panel(samples=0, steps=2)
    lab.run()
    assert lab.status.startswith("Done: Policy + Scores, 2 steps in ") and ", validation gold -" in lab.status


def test_recordings_keep_measures(trained: Lab, tmp_path: Path) -> None:
    other = panel().load(trained.share(tmp_path / "run.json", 1))
    trained.show(1)
    assert alt(other) == alt(trained) and options(other) == options(trained)
    other.replay(1, seconds=0.2)
    assert "Replay of run 1" in other.watching.chart.value and "gold from" in alt(other)
    assert other.ledger.rows[0]["measure"] == trained.ledger.rows[0]["measure"]

"""How soon the panel answers, and cells run out of order, twice, or while it trains."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from lab.panels import DATA, SMALL, Slow, make, until

from llmlab import Run
from llmlab.lab import Lab
from llmlab.tokenizer import Tokenizer


def slow(**changes: Any) -> Lab:
    settings = dict(data=DATA, config=SMALL, steps=500, batch_size=4, evaluate_batches=1, samples=0)
    return Lab(["clm"], [Slow], **{**settings, **changes}).choose("slow")


def end(lab: Lab) -> str:
    """Stop, and the last status line."""
    lab.stop()
    lab.session.join(90)
    assert not lab.session.runs
    return lab.status


def test_a_click_on_run_is_answered_at_once() -> None:
    lab = make(config=None)
    began = time.monotonic()
    lab._run.click()
    assert lab.status == "Preparing CLM …" and lab._run.disabled and not lab._stop.disabled
    assert lab.session._thread.is_alive()
    assert time.monotonic() - began < 2  # the bound for a machine with other work to do
    end(lab)


# -- stop --------------------------------------------------------------------------------------------------------


def test_stop_while_a_vocabulary_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    going, learn = threading.Event(), Tokenizer.train

    def train(*given: Any, **named: Any) -> Tokenizer:
        going.set()
        time.sleep(0.2)
        return learn(*given, **named)

    monkeypatch.setattr(Tokenizer, "train", train)
    lab = make().start()
    assert going.wait(90)
    lab.stop()
    assert lab.status == "Stopping as soon as the data are ready …"
    lab.session.join(90)
    assert lab.status == "Stopped: CLM, before the first step." and len(lab.ledger) == 0


def test_stop_while_the_first_samples_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written, respond = [], Run.generate

    def generate(self: Run, *given: Any, **named: Any) -> Any:
        written.append(given)
        lab.stop()
        return respond(self, *given, **named)

    monkeypatch.setattr(Run, "generate", generate)
    lab = make(samples=3).start()
    lab.session.join(90)
    assert lab.status == "Stopped: CLM, before the first step."
    assert len(written) == 1, "the other two are not written"


def test_stop_while_the_validation_set_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, measure = [], Run._measure

    def measured(self: Run, *given: Any) -> Any:
        self.model.register_forward_pre_hook(lambda *_: batches.append(1))
        lab.stop()
        return measure(self, *given)

    monkeypatch.setattr(Run, "_measure", measured)
    lab = make(samples=0, evaluate_batches=0).start()
    lab.session.join(90)
    assert lab.status == "Stopped: CLM, before the first step." and batches == []


def test_one_stop_measures_once_more_and_a_second_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = slow().start()
    until(lambda: lab.session.last is not None and lab.session.last.steps >= 2)
    status = end(lab)
    assert status.startswith("Stopped: CLM + Slow, ")
    record = lab.session.records[0]
    assert record.evaluations[-1]["step"] == record.steps, "what was reached is known"

    evaluate = Run.evaluate

    def again(self: Run, *given: Any) -> Any:
        if self.steps:
            lab.stop()
        return evaluate(self, *given)

    monkeypatch.setattr(Run, "evaluate", again)
    lab.start()
    until(lambda: lab.session.last is not record and lab.session.last.steps >= 2)  # type: ignore[union-attr]
    assert end(lab).startswith("Stopped: CLM + Slow, ")
    assert len(lab.session.records[1].evaluations) == 1


def test_the_model_is_left_without_a_hook() -> None:
    assert not make(steps=1).run().model._forward_pre_hooks


# -- out of order, twice, while training -------------------------------------------------------------------------


def test_running_the_constructors_cell_again_leaves_the_run_alone_and_says_so() -> None:
    lab = slow().start()
    until(lambda: lab.session.last is not None and lab.session.last.steps >= 1)
    again = slow()
    assert again.status.startswith("Another panel is training: Stop ends it") and not again._stop.disabled
    assert lab.session.runs
    again._stop.click()
    lab.session.join(90)
    until(lambda: again.status.startswith("Ready"))
    assert again._stop.disabled and not again._run.disabled and lab.status.startswith("Stopped: ")


def test_a_cell_that_runs_a_panel_while_it_trains_begins_anew() -> None:
    lab = slow().start()
    until(lambda: lab.session.last is not None and lab.session.last.steps >= 1)
    assert lab.set(steps=2).run().steps == 2
    assert [row["outcome"] for row in lab.ledger.rows] == ["stopped", "done"]


def test_a_change_while_training_is_for_the_next_run_and_says_so() -> None:
    lab = slow().start()
    until(lambda: lab.session.last is not None and lab.session.last.steps >= 1)
    lab.choosing.training["steps"].input.value = 3
    assert "(what is chosen now is for the next run)" in lab.status and lab._run.disabled
    assert lab.session.last is not None and lab.session.last.target == 500
    end(lab)
    assert lab.run().steps == 3


def test_the_same_panel_can_be_displayed_twice() -> None:
    lab = make(steps=1)
    first, second = lab._repr_mimebundle_(), lab._repr_mimebundle_()
    assert first == second
    lab.run()


def test_nothing_that_goes_wrong_in_a_click_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make(steps=1, samples=0)
    lab.run()

    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("lost")

    for name in ("choose", "start", "stop", "restore", "forget", "show", "overlay", "load", "replay", "set", "plan"):
        monkeypatch.setattr(lab.session, name, fail)
    clicks = [lab._run, lab._stop, lab.choosing.objectives["clm"], *lab.past.buttons.values()]
    lab.past.path.value = "x"
    for made in (*clicks, lab.past.load):
        lab.session.say("")
        made.click()
        assert lab.status == "Error: KeyError: 'lost'", made.description
    for change in (
        lambda: setattr(lab.choosing.toggles["lora"], "value", True),
        lambda: setattr(lab.choosing.data, "value", "questions"),
        lambda: setattr(lab.choosing.training["steps"].input, "value", 9),
        lambda: setattr(lab.past.boxes[1], "value", True),
    ):
        lab.session.say("")
        change()
        assert lab.status == "Error: KeyError: 'lost'"


def test_a_picture_that_cannot_be_drawn_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make(steps=2)
    monkeypatch.setattr(lab.watching, "draw", lambda: 1 / 0)
    assert lab.run().steps == 2


# -- counting ----------------------------------------------------------------------------------------------------


def test_parameters_are_counted_before_a_run_and_the_vocabulary_is_learnt_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learnt, go, learn = [], threading.Event(), Tokenizer.train

    def train(*given: Any, **named: Any) -> Tokenizer:
        learnt.append(1)
        assert go.wait(90)
        return learn(*given, **named)

    monkeypatch.setattr(Tokenizer, "train", train)
    lab = make(steps=1, samples=0)
    lab._repr_mimebundle_()  # it does not wait for the vocabulary
    assert "being counted" in lab.watching.share.value
    go.set()
    until(lambda: "counted" not in lab.watching.share.value)
    counted = lab.watching.share.value
    lab.run()
    assert lab.watching.share.value == counted and learnt == [1]
    lab.choose("lora")
    until(lambda: "counted" not in lab.watching.share.value)
    assert lab.watching.share.value != counted

"""The panel driven from code, without a browser: choices, runs, stops, errors, and what it shows of them."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
from lab.panels import DATA, SMALL, Broken, Slow, make, until

from llmlab import Run
from llmlab.lab import Lab

# -- choosing ----------------------------------------------------------------------------------------------------


def test_it_starts_with_the_first_of_everything() -> None:
    lab = make()
    assert lab.session.objective == "clm" and lab.session.added == []
    assert lab.status == "Ready: press Run."
    assert lab.choosing.objectives["clm"].description == "● CLM"


def test_what_the_data_cannot_teach_is_greyed_and_says_why() -> None:
    lab = make()
    assert lab.choosing.objectives["sft"].disabled
    assert "needs the columns prompt/response" in lab.choosing.reasons["sft"].value
    with pytest.raises(ValueError, match="this data has text"):
        lab.choose("sft")
    lab.set(data="questions")
    assert not lab.choosing.objectives["sft"].disabled and not lab.choosing.reasons["sft"].value
    assert lab.choose("sft").session.objective == "sft"


def test_an_objective_gives_way_to_data_it_cannot_use() -> None:
    lab = make().set(data="questions").choose("sft").set(data="stories")
    assert lab.session.objective == "clm"


def test_clicks_and_code_say_the_same() -> None:
    lab = make().set(data="questions")
    lab.choosing.objectives["sft"].click()
    lab.choosing.toggles["lora"].value = True
    lab.choosing.knobs["lora"]["rank"].input.value = 2
    lab.choosing.training["learning_rate"].input.value = "0.01"
    said = make().set(data="questions", learning_rate=0.01).choose("sft").choose("lora", rank=2)
    assert lab.code == said.code
    assert said.choosing.knobs["lora"]["rank"].input.value == 2 and said.choosing.toggles["lora"].value is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lab: lab.choose("lora", rank=0), r"LoRA\.rank = 0: must be 1 to 256"),
        (lambda lab: lab.choose("lorra"), "'lorra' is not offered here: one of clm, sft, lora"),
        (lambda lab: lab.choose("lora", rang=4), "has no knob 'rang': did you mean rank"),
        (lambda lab: lab.set(data="stroies"), "'stroies' is not offered here: one of stories, questions"),
        (lambda lab: lab.set(start="last"), "start 'last' is not offered here: one of scratch"),
        (lambda lab: lab.set(steps=0), r"Training\.steps = 0"),
        (lambda lab: lab.set(seed=-1), "seed = -1"),
        (lambda lab: lab.drop("clm"), "choose another one instead of dropping clm"),
    ],
)
def test_a_wrong_choice_says_so_and_changes_nothing(change: Any, message: str) -> None:
    lab = make()
    before = lab.code
    with pytest.raises((ValueError, TypeError), match=message):
        change(lab)
    assert lab.code == before


def test_a_text_that_is_no_number_is_a_line_in_the_panel() -> None:
    lab = make()
    field = lab.choosing.training["learning_rate"].input
    field.value = "fast"
    assert lab.status == "Error: learning rate 'fast' is no number; it stays as it was."
    assert field.value == ""  # what is shown is what would run
    assert 'role="status"' in lab._status.value and "llmlab-error" in lab._status.value


def test_a_logarithmic_knob_doubles_and_halves_within_its_bounds() -> None:
    lab = make().choose("lora", rank=200)
    halve, double = lab.choosing.knobs["lora"]["rank"].widget.children[1:]
    double.click()
    assert lab.session.knobs["lora"]["rank"] == 256
    halve.click()
    assert lab.session.knobs["lora"]["rank"] == 128
    lab.choosing.training["learning_rate"].widget.children[1].click()  # blank: half of what is recommended
    assert lab.session.training["learning_rate"] == pytest.approx(lab.session.rate / 2)


def test_every_control_has_a_name_and_no_slider_is_used() -> None:
    import ipywidgets as W

    def walk(widget: Any) -> list[Any]:
        return [widget, *(w for child in getattr(widget, "children", ()) for w in walk(child))]

    controls = [w for w in walk(make().ui) if isinstance(w, W.DOMWidget) and not isinstance(w, W.Box | W.HTML)]
    assert len(controls) > 15
    assert all(w.description and w.tooltip for w in controls)
    assert not any("Slider" in type(w).__name__ for w in controls)


# -- running -----------------------------------------------------------------------------------------------------


def test_a_run_shows_its_loss_floor_parameters_and_samples() -> None:
    lab = make()
    run = lab.run()
    assert lab.result is run and lab.results == [run] and run.steps == 3
    assert lab.status.startswith("Done: CLM, 3 steps in ") and "validation loss" in lab.status
    assert (
        "floor 0." in lab.watching.chart.value and 'alt="Loss by step: training loss from' in lab.watching.chart.value
    )
    assert f"{run.parameters().total:,}" in lab.watching.share.value and "100 %" in lab.watching.share.value
    assert "perplexity" in lab.watching.measures.value and "<th" in lab.watching.samples.value
    assert not lab._run.disabled and lab._stop.disabled


def test_what_it_prints_is_what_it_ran() -> None:
    lab = make(config=None, data=["tinytown:qa,size=60"], steps=2, batch_size=2, samples=0).choose("lora", rank=2)
    first = lab.run()
    second = lab.drop("lora").choose("sft", mask_prompt=False, answers=0).set(start="last", steps=1).run()
    code = lab.session.records[-1].plan.code()
    assert "run_2 = Run(\n    [SFT(mask_prompt=False, answers=0)]," in code and "model=run_1.model" in code
    names: dict[str, Any] = {}
    exec(code, names)
    for ours, theirs in ((first, names["run_1"]), (second, names["run_2"])):
        assert [row["loss"] for row in ours.history] == [row["loss"] for row in theirs.history]


def test_it_offers_the_last_run_as_a_start() -> None:
    lab = make()
    lab.run()
    assert ("the last run's model", "last") in lab.choosing.start.options
    lab.set(start="last", data="questions").choose("sft").choose("lora", rank=1)
    run = lab.run()
    assert run.given and 0 < run.parameters().share < 0.1
    assert lab.session.last is not None and lab.session.last.samples[0].wanted is not None


def test_twice_gives_the_same_and_a_second_panel_too() -> None:
    one, other = make(), make()
    losses = [[row["loss"] for row in lab.run().history] for lab in (one, one, other)]
    assert losses[0] == losses[1] == losses[2]


def test_a_run_leaves_the_choices_as_they_were() -> None:
    lab = make(steps=1, samples=0, start=["scratch"])
    lab.run()
    lab.set(start="last").run()
    assert lab.session.start_from == lab.choosing.start.value == "last"
    other = make(steps=1, samples=0, start={"scratch": "scratch", "that run": lab.results[0]}).set(start="that run")
    losses = [other.run().evaluations[0]["loss"] for _ in range(2)]
    assert losses[0] == losses[1] and other.session.start_from == other.choosing.start.value == "that run"


def test_stop_ends_within_a_step_and_leaves_a_usable_model() -> None:
    lab = Lab(["clm"], [Slow], DATA, config=SMALL, steps=500, batch_size=4, evaluate_batches=1, samples=0)
    lab.choose("slow").start()
    assert lab._run.disabled and not lab._stop.disabled
    until(lambda: lab.session.last is not None and lab.session.last.steps >= 3)
    assert lab.session.last is not None
    at = lab.session.last.run.steps
    lab.stop()
    lab.session.join(90)
    assert lab.session.last.run.steps <= at + 2
    assert lab.status.startswith("Stopped: CLM + Slow, ")
    assert "fit(steps=" in lab.session.records[0].plan.code()
    assert lab.result is not None and isinstance(lab.result.generate("Mia"), str)


def test_a_second_click_says_so_and_another_panel_too() -> None:
    lab, other = (
        Lab(["clm"], [Slow], DATA, config=SMALL, steps=300, batch_size=4, samples=0).choose("slow", pause=0.05)
        for _ in range(2)
    )
    lab.start()
    lab.start()
    assert lab.status.startswith("Already training")
    other.start()
    assert other.status.startswith("Another panel is training") and not other._stop.disabled
    other.stop()
    lab.session.join(90)
    assert lab.status.startswith("Stopped: ")
    other.set(steps=1).run()  # and now it can
    assert other.status.startswith("Done: ")


def test_code_that_runs_a_panel_does_not_wait_for_another() -> None:
    slow = Lab(["clm"], [Slow], DATA, config=SMALL, steps=500, batch_size=4, samples=0).choose("slow", pause=0.05)
    slow.start()
    assert make().run().steps == 3
    assert slow.status.startswith("Stopped: ")


def test_an_error_is_one_line_in_the_panel_and_raised_in_code() -> None:
    lab = Lab(["clm"], [Broken], DATA, config=SMALL, steps=3, batch_size=4, samples=0).choose("broken")
    lab.start().session.join(90)
    assert lab.status.startswith("Error: <b>boom</b> (raised by Broken in hook after_step")
    assert "<b>boom" not in lab._status.value and not lab._run.disabled and lab._stop.disabled
    with pytest.raises(ValueError, match="boom"):
        lab.run()
    assert lab.drop("broken").run().steps == 3


def test_another_fit_in_the_process_is_an_error_in_the_panel() -> None:
    busy = Run(["clm", Slow(0.05)], DATA["stories"], config=SMALL)
    thread = threading.Thread(target=busy.fit, kwargs={"progress": False})
    thread.start()
    until(lambda: busy.steps > 0)
    lab = make().start()
    lab.session.join(90)
    busy.stop()
    thread.join()
    assert lab.status.startswith("Error: another run is training in this process")


# -- in a notebook -----------------------------------------------------------------------------------------------


def test_its_text_is_constant() -> None:
    lab = make()
    texts = {lab._repr_mimebundle_()["text/plain"]}
    lab.set(steps=1).run()
    assert texts == {lab._repr_mimebundle_()["text/plain"]}


def test_a_picture_can_be_had_before_and_after_a_run() -> None:
    lab = make(steps=1)
    empty = lab.picture().data
    lab.run()
    assert empty[:4] == lab.picture().data[:4] == b"\x89PNG" and empty != lab.picture().data


def test_importing_it_is_quick() -> None:
    code = "import sys, llmlab.lab; print(any(name in sys.modules for name in ('torch', 'ipywidgets', 'matplotlib')))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_nothing_else_imports_the_widgets() -> None:
    code = "import sys, llmlab, llmlab.run; print(any(name in sys.modules for name in ('ipywidgets', 'matplotlib')))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"

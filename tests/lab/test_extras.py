"""Extras in the panel, techniques given as instances, and knobs that hold what nobody can type."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import ipywidgets as W
import pytest
from lab.panels import DATA, PROMPTS, Broken, Policy, Scores, make, shortest

from llmlab import Run
from llmlab.catalogue import Entry, techniques
from llmlab.lab import Lab
from llmlab.lab.memory import called, plain, short
from llmlab.technique import hookimpl, knob, technique
from llmlab.tokenizer import Tokenizer

NEEDS = "Policy needs a technique that implements score: switch Scores on"


def aligned(**changes: Any) -> Lab:
    """A panel for on-policy training: stories first, prompts beside them."""
    settings = dict(objectives=["clm", Policy], extras=[Scores], data=DATA | {"prompts": PROMPTS})
    return make(**{**settings, **changes})


def descriptions(lab: Lab) -> list[str]:
    return [getattr(w, "description", "") or getattr(w, "value", "") for w in walk(lab.choosing.ui)]


def walk(widget: Any) -> list[Any]:
    return [widget, *(w for child in getattr(widget, "children", ()) for w in walk(child))]


# -- choosing ----------------------------------------------------------------------------------------------------


def test_extras_stand_under_a_heading_of_their_own() -> None:
    shown = [str(text) for text in descriptions(aligned())]
    at = {word: next(i for i, text in enumerate(shown) if f">{word}<" in text) for word in ("Adaptations", "Extras")}
    assert at["Adaptations"] < shown.index("LoRA") < at["Extras"] < shown.index("Scores")
    assert not any(">Extras<" in str(text) for text in descriptions(make())), "none is offered unless named"


def test_what_an_objective_needs_greys_it_until_it_is_on() -> None:
    lab = aligned(data={"prompts": PROMPTS})
    chip = lab.choosing.objectives["policy"]
    assert chip.disabled and lab._run.disabled and "this data has prompt" in lab.status, "CLM cannot read prompts"
    with pytest.raises(ValueError, match=NEEDS):
        lab.choose("policy")
    assert NEEDS in lab.choosing.reasons["policy"].value
    lab.choosing.toggles["scores"].value = True
    assert not chip.disabled and not lab.choosing.reasons["policy"].value
    chip.click()
    assert lab.session.objective == "policy" and lab.status == "Ready: press Run." and not lab._run.disabled


def test_what_is_needed_can_be_switched_off_and_says_what_then_is_wrong() -> None:
    lab = aligned(data={"prompts": PROMPTS}, chosen=["scores", "policy"])
    lab.choosing.toggles["scores"].value = False
    assert lab.status == f"This cannot run: {NEEDS}" and lab._run.disabled
    with pytest.raises(ValueError, match="implements score"):
        lab.run()
    lab.choosing.toggles["scores"].value = True
    assert lab.status == "Ready: press Run." and not lab._run.disabled


def test_any_of_the_offered_helps_and_none_offered_is_told_as_a_run_would() -> None:
    lab = aligned(data={"prompts": PROMPTS}, extras=[])
    assert lab.session.reason("policy") == "Policy needs a technique that implements score: add one to the run"
    assert lab._run.disabled


def test_it_begins_with_what_is_chosen() -> None:
    lab = aligned(objectives=["clm", "sft", Policy], data={"prompts": PROMPTS}, chosen=["scores"])
    assert lab.session.added == ["scores"] and lab.session.objective == "policy", "the first that can be"
    assert lab.choosing.toggles["scores"].value is True
    assert make(chosen="lora").session.added == ["lora"]
    with pytest.raises(ValueError, match="'lorra' is not offered here"):
        make(chosen=["lorra"])
    with pytest.raises(ValueError, match="this data has prompt"):
        aligned(data={"prompts": PROMPTS}, chosen=["scores", "clm"])


def _unsaid(picky: Any, config: Any) -> str | None:
    return None if picky.by else "has nothing to go by: Picky(by=...)"


@technique(kind="extra", objection=_unsaid)
class Picky:
    """Object to models until told what to go by."""

    by: Any = knob(None, "What to go by.")

    @hookimpl
    def after_step(self) -> None:
        pass


def test_what_is_objected_to_may_be_mended_by_the_knobs_it_is_chosen_with() -> None:
    lab = make(extras=[Picky])
    with pytest.raises(ValueError, match="Picky has nothing to go by"):
        lab.choose("picky")
    assert lab.choose("picky", by="x").session.added == ["picky"]
    with pytest.raises(ValueError, match="Picky has nothing to go by"):
        lab.choose("picky", by=None)
    assert lab.session.knobs["picky"]["by"] == "x"


@technique(kind="extra", gives=lambda asks: "prompt" if asks.questions else "")
class Asks:
    """Make a prompt of every text."""

    questions: bool = knob(True, "Whether it does.")

    @hookimpl(wrapper=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        return [row | {"prompt": row["text"]} for row in rows]


def test_what_an_extra_adds_to_the_data_serves_an_objective() -> None:
    lab = aligned(extras=[Scores, Asks], data=DATA, chosen=["scores"])
    assert "Policy needs the columns prompt; this data has" in lab.choosing.reasons["policy"].value
    lab.choosing.toggles["asks"].value = True
    assert not lab.choosing.objectives["policy"].disabled
    assert lab.choose("policy").run().steps == 3
    lab.choosing.knobs["asks"]["questions"].input.value = False
    assert lab.status.startswith("This cannot run: Policy needs the columns prompt") and lab._run.disabled


# -- instances ---------------------------------------------------------------------------------------------------


def test_an_instance_gives_its_knobs() -> None:
    from llmlab_plugins.lora import LoRA

    lab = make(adaptations=[LoRA(rank=2)]).choose("lora")
    assert lab.choosing.knobs["lora"]["rank"].input.value == 2 and "LoRA(rank=2)" in lab.code
    for wrong in (3, object(), object):
        with pytest.raises(TypeError, match="by its name, class or instance"):
            make(adaptations=[wrong])


def test_what_nobody_can_type_shows_as_its_name() -> None:
    lab = aligned(data={"prompts": PROMPTS}, extras=[Scores(by=shortest)], chosen=["scores"])
    field = lab.choosing.knobs["scores"]["by"].input
    assert (field.value, field.disabled) == ("in memory: the function shortest", True)
    run = lab.run()
    assert lab.session.knobs["scores"]["by"] is shortest and run.techniques[1].by is shortest, "showing changes nothing"
    lab.choose("scores", by="length")
    assert (field.value, field.disabled) == ("length", False)
    field.value = "size"
    assert lab.session.knobs["scores"]["by"] == "size"
    lab.restore(1)
    assert lab.session.knobs["scores"]["by"] is shortest and field.disabled


def test_a_refused_change_does_not_copy_what_is_in_memory() -> None:
    lab = aligned(data={"prompts": PROMPTS}, extras=[Scores(by=shortest)], chosen=["scores"])
    with pytest.raises(ValueError, match="steps"):
        lab.set(steps=0)
    assert lab.session.knobs["scores"]["by"] is shortest


def test_a_knob_without_default_takes_numbers_text_or_nothing() -> None:
    lab = aligned(data={"prompts": PROMPTS}, chosen=["scores"])
    field = lab.choosing.knobs["policy"]["gold"].input
    for typed, value in (("0.5", 0.5), ("7", 7), ("judge", "judge"), ("", None)):
        field.value = typed
        assert lab.session.knobs["policy"]["gold"] == value and type(lab.session.knobs["policy"]["gold"]) is type(value)


def test_code_leaves_a_place_for_what_is_in_memory() -> None:
    lab = aligned(data=["tinytown:qa,size=60"], objectives=["clm"], extras=[Scores(by=shortest, weight=0.5)])
    code = lab.choose("scores").code
    assert "[CLM(), Scores(by=..., weight=0.5)],  # Scores.by: the function shortest in memory" in code
    ast.parse(code)


def test_a_run_file_says_what_it_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    known = techniques() | {"scores": Entry("scores", "a test", Scores)}
    monkeypatch.setattr("llmlab.lab.plan.catalogue", lambda: known)
    offered = dict(data=["tinytown:qa,size=60"], objectives=["clm"], chosen=["scores"])
    assert '"scores"' in aligned(**offered).run_file
    lab = aligned(**offered, extras=[Scores(by=shortest)])
    with pytest.raises(
        ValueError, match=r"Scores\.by is the function shortest in memory: give it what a file can name"
    ):
        _ = lab.run_file


def test_values_in_words() -> None:
    model = Run(["clm"], DATA["stories"], config=make().session.config).model
    assert [called(x) for x in (model, shortest, lambda x: x, Tokenizer)] == [
        "a model",
        "the function shortest",
        "a function",
        "the class Tokenizer",
    ]
    assert plain(("query", {"a": [1, None]})) and not plain([shortest]) and not plain({1: 2})
    assert short("be helpful and harmless\nat all times") == "'be helpful and harmless …'" and short(0.1) == "0.1"


# -- runs --------------------------------------------------------------------------------------------------------


def test_records_and_the_ledger_tell_extras(tmp_path: Path) -> None:
    lab = aligned(data={"prompts": PROMPTS}, extras=[Scores(by=shortest)], chosen=["scores"], samples=0)
    lab.run()
    assert lab.ledger.rows[0]["techniques"] == "Policy + Scores(by=the function shortest)"
    other = aligned(data={"prompts": PROMPTS}).load(lab.share(tmp_path / "run.json"))
    with pytest.raises(ValueError, match=r"run 1 had a scores\.by that was in memory"):
        other.restore(1)
    lab.choose("scores", by="length", weight=2.0).run()
    other.load(lab.share(tmp_path / "run.json")).restore(2)
    assert other.session.added == ["scores"] and other.session.knobs["scores"]["weight"] == 2.0


def test_an_extra_that_fails_is_told_like_any_other() -> None:
    lab = make(extras=[Broken], adaptations=[], chosen=["broken"], objectives=["clm"])
    lab.start().session.join(90)
    assert lab.status.startswith("Error: <b>boom</b> (raised by Broken")


# -- text of several lines ---------------------------------------------------------------------------------------


def test_a_text_of_several_lines_gets_a_field_of_as_many() -> None:
    lab = aligned(data={"prompts": PROMPTS}, chosen=["scores"])
    field = lab.choosing.knobs["policy"]["rules"].input
    assert isinstance(field, W.Textarea) and field.rows == 3 and field.value == "Be kind.\nBe brief.\n"
    field.value = "Be brief.\nBe kind."
    assert lab.session.knobs["policy"]["rules"] == "Be brief.\nBe kind."
    assert r"rules='Be brief.\nBe kind.'" in lab.code
    long = aligned(objectives=[Policy("\n" * 40)], data={"prompts": PROMPTS})
    assert long.choosing.knobs["policy"]["rules"].input.rows == 10
    plain_text = aligned(objectives=[Policy("one line")], data={"prompts": PROMPTS}).choosing.knobs["policy"]["rules"]
    assert isinstance(plain_text.input, W.Textarea), "its default has two"


# -- whole numbers -----------------------------------------------------------------------------------------------


def test_a_number_out_of_bounds_is_refused_in_one_line() -> None:
    lab = make().choose("lora", rank=2)
    field = lab.choosing.training["steps"].input
    field.value = -3
    assert lab.status.startswith("Error: Training.steps = -3: must be 1 to ") and field.value == 3
    rank = lab.choosing.knobs["lora"]["rank"].input
    rank.value = 0
    assert "LoRA.rank = 0: must be 1 to 256" in lab.status and rank.value == 2


def test_halving_and_doubling_say_what_they_change() -> None:
    lab = make().choose("lora")
    names = [w.description for w in walk(lab.choosing.ui) if "llmlab-step" in w._dom_classes]
    assert "Halve rank" in names and "Double learning rate" in names and len(set(names)) == len(names)

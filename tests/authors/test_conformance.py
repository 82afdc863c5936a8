"""The conformance suite: each rule is broken by some technique, with a way out told; shipped ones keep them all."""

from __future__ import annotations

import sys
import types

import pytest
from authors import broken

from llmlab.catalogue import techniques
from llmlab.technique import hookimpl, technique
from llmlab.testing import CHECKS, check_technique, examine
from llmlab.testing.cases import base, trained

READS = ("docstring", "knobs", "hooks", "imports", "lesson")  # a class, and no run
# The composition tests try the others on every technique of the kit, in many more runs.
QUICK = (*READS, "votes", "seeds", "targets", "continues")
SHIPPED = [entry.cls for entry in techniques().values() if entry.source == "shipped"]

BREAKS = [
    ("docstring", broken.Mute, "the class has no docstring"),
    ("knobs", broken.Endless, "size is a number without a low"),
    ("knobs", broken.Plain, "the field size is no knob"),
    ("hooks", broken.Unmarked, "the method after_step has a hook's name and no @hookimpl"),
    ("hooks", broken.Asks, "Asks does not fit the hooks of version 1: .*weather"),
    ("hooks", broken.Half, "an objective implements batches and compute_loss"),
    ("votes", broken.FreezesNothing, "it has no opinion on "),
    ("votes", broken.FreezesInSurgery, "adapt_model freezes "),
    ("votes", broken.VotesAgainst, "it is an extra and votes against "),
    ("learns", broken.LearnsNothing, "the loss fell by "),
    ("seeds", broken.ByLot, "the losses of two equal runs differ"),
    ("untouched", broken.WritesIntoTheBase, "frozen parameters changed: "),
    ("reached", broken.CutsTheGradient, "no gradient ever reached "),
    ("detach", broken.ChangesTheBase, "detached, it is not the base|the given model"),
    ("merge", broken.MergesWrongly, "not close"),
    ("targets", broken.PassesOverSlips, "targets = 'no_such_layer' is refused with 'no layer of this model matches"),
    ("continues", broken.BeginsAgain, "before the first step .*own is no longer what it was"),
    ("order", broken.GoesOutside, "differ in the order "),
    ("resume", broken.Forgets, "the losses differ"),
    ("saved", broken.Forgets, "the logits differ"),
    ("writing", broken.NeedsTheWholeText, "cached|close"),
    ("long_texts", broken.NeverCuts, "ValueError: .*context"),
    ("bf16", broken.OverflowsInBf16, "the loss is nan|FloatingPointError"),
]


@pytest.fixture
def _clean():
    """A technique that spoils the shared base spoils it for this test alone."""
    yield
    base.cache_clear()
    trained.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize(("name", "cls", "said"), BREAKS, ids=[f"{name}-{cls.__name__}" for name, cls, _ in BREAKS])
def test_a_mistake_is_caught_with_its_reason_and_the_way_out(name, cls, said):
    with pytest.raises(AssertionError, match=said) as caught:
        check_technique(cls, only=[name])
    text = str(caught.value)
    assert text.startswith(f"{cls.__name__} breaks 1 of 1 rules\n{name}: {CHECKS[name].holds}")
    assert f"way out: {CHECKS[name].way_out}" in text


def test_every_rule_is_broken_by_somebody():
    assert {name for name, _, _ in BREAKS} | {"imports", "lesson"} == set(CHECKS)


def test_an_import_of_another_technique_is_caught(tmp_path, monkeypatch):
    file = tmp_path / "borrows.py"
    file.write_text(
        "from llmlab.technique import hookimpl, technique\nfrom llmlab_plugins.lora import LoRALinear\n\n\n"
        "@technique(kind='extra')\nclass Borrows:\n    @hookimpl\n    def after_step(self): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from borrows import Borrows

    [result] = examine(Borrows, only=["imports"])
    assert result.status == "failed" and result.said == "line 2 imports llmlab_plugins.lora"
    sys.modules.pop("borrows")


def test_a_technique_of_the_kit_without_a_lesson_is_caught(monkeypatch):
    @technique(kind="adaptation")
    class Unheard(broken.Scales):
        """Be in no lesson."""

    module = types.ModuleType("llmlab_plugins.unheard")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    Unheard.__module__ = module.__name__
    [result] = examine(Unheard, only=["lesson"])
    assert result.status == "failed" and "no lesson is called <number>_unheard.ipynb" in result.said
    Unheard.__module__ = "llmlab_plugins.elsewhere"
    [result] = examine(Unheard, only=["lesson"])
    assert "unheard is not in a file unheard.py" in result.said


@pytest.mark.slow
def test_what_has_no_mistake_breaks_no_rule(check_technique):
    check_technique(broken.Sound)


@pytest.mark.slow
def test_an_error_within_a_hook_is_a_failure_that_names_the_hook():
    @technique(kind="extra")
    class Stumbles:
        """Divide by nothing."""

        @hookimpl
        def after_step(self):
            return 1 / 0

    [result] = examine(Stumbles, only=["learns"])
    assert result.status == "failed"
    assert "ZeroDivisionError" in result.said and "raised by Stumbles in hook after_step" in result.said


def test_what_is_no_technique_and_what_is_no_rule_are_said():
    with pytest.raises(TypeError, match="Gain is no technique: write @technique"):
        list(examine(broken.Gain, only=["docstring"]))
    with pytest.raises(ValueError, match="no check is called 'sedes'"):
        check_technique(broken.Sound, only=["sedes"])


def test_an_instance_is_tried_with_its_knobs():
    with pytest.raises(AssertionError, match="every run refuses it: no layer is named 'nowhere'"):
        check_technique(broken.Sound(targets="nowhere"), only=["votes"])


def test_one_that_objects_to_its_own_defaults_is_tried_in_no_run():
    @technique(kind="extra", objection=lambda plugin, config: "has nothing to do: tell it what")
    class Choosy:
        """Do what is chosen."""

        @hookimpl
        def after_step(self):
            """Nothing is chosen."""

    [result] = examine(Choosy, only=["learns"])
    assert result.status == "does not apply" and "has nothing to do" in result.said


@pytest.mark.parametrize("cls", SHIPPED, ids=lambda cls: cls.llmlab.name)
def test_a_shipped_technique_says_what_it_must(cls):
    check_technique(cls, only=READS)


@pytest.mark.slow
@pytest.mark.parametrize("cls", SHIPPED, ids=lambda cls: cls.llmlab.name)
def test_a_shipped_technique_keeps_the_rules(cls):
    check_technique(cls, only=[name for name in QUICK if name not in READS])


@pytest.mark.exhaustive
@pytest.mark.parametrize("cls", SHIPPED, ids=lambda cls: cls.llmlab.name)
def test_a_shipped_technique_keeps_them_all(cls):
    check_technique(cls)

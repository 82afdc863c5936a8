"""What cannot work together says so in one line and before any work; the panel greys exactly that, for that reason."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import pytest

from llmlab import Run
from llmlab.lab import Lab
from llmlab.lab.plan import SCRATCH
from llmlab.model import PRESETS, ModelConfig, Transformer
from llmlab.technique import FAMILIES, needs_of
from llmlab.testing.cases import additions, bare, config, known, refusal, rows, tokenizer
from llmlab.tokenizer import Tokenizer

COLUMNS = ("text", "prompt response", "source target", "text label", "prompt chosen rejected", "prompt")
DATA = {columns: rows(columns.split(), 4, count=40) for columns in COLUMNS}
STARTS = (*FAMILIES, "no biases", SCRATCH)
OBJECTIVES, ADAPTATIONS, EXTRAS = known("objective"), known("adaptation"), known("extra")


class Working(AssertionError):
    """Work has begun."""


@pytest.fixture(scope="module")
def starts():
    return {name: start(name) for name in STARTS}


@pytest.fixture
def no_work(monkeypatch, starts):
    """Make whatever takes time an error: a model that is built or copied, a vocabulary that is learnt."""

    monkeypatch.setattr(Transformer, "__init__", _work)
    monkeypatch.setattr(Tokenizer, "train", _work)
    monkeypatch.setattr("llmlab.run.pass_on", _work)


def _work(*given, **named):
    raise Working


@cache
def start(name):
    """A model to start from; None for one made from scratch."""
    if name == SCRATCH:
        return None
    shape = config(name) if name in FAMILIES else small(**PRESETS["llama"])
    model = Transformer(shape)
    model.tokenizer = tokenizer(shape.family)
    return model


def small(**settings):
    return ModelConfig(**{**settings, "vocab_size": 400, "context": 48, "layers": 1, "heads": 2, "width": 32})


def refused(classes, **more):
    """Why the run cannot be made, told before any work; None if it can. It must be called with `no_work`."""
    try:
        Run([cls() for cls in classes], **more)
    except Working:
        return None
    except ValueError as error:
        said = str(error)
        assert "\n" not in said and len(said) < 250, f"more than a line: {said}"
        return said
    raise AssertionError("a run was made without any work")


# -- one line, before any work -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), list(combinations(OBJECTIVES, 2)), ids=lambda cls: needs_of(cls).name)
def test_two_objectives(one, other, no_work):
    for pair in ((one, other), (other, one)):
        said = refused(pair, data=DATA["text"])
        assert said and one.__name__ in said and other.__name__ in said and said.endswith("choose one")


@pytest.mark.parametrize("cls", ADAPTATIONS + EXTRAS, ids=lambda cls: needs_of(cls).name)
def test_no_objective(cls, no_work):
    said = refused([cls], data=DATA["text"])
    assert said and "add an objective such as" in said


@pytest.mark.parametrize("cls", OBJECTIVES + ADAPTATIONS + EXTRAS, ids=lambda cls: needs_of(cls).name)
def test_twice(cls, no_work):
    said = refused([cls, cls, *([] if cls in OBJECTIVES else OBJECTIVES[:1])], data=DATA["text"])
    assert said and cls.__name__ in said and "leave one out" in said


@pytest.mark.parametrize("cls", OBJECTIVES + ADAPTATIONS + EXTRAS, ids=lambda cls: needs_of(cls).name)
def test_the_wrong_family(cls, no_work):
    """Of a model that is given, and of one that would be made."""
    for family in set(FAMILIES) - set(needs_of(cls).families):
        beside = [] if cls in OBJECTIVES else [next(c.objective for c in bare() if c.family == family)]
        for where in ({"model": start(family)}, {"config": config(family)}):
            said = refused([*beside, cls], data=DATA["prompt response"], **where)
            assert said and cls.__name__ in said and family in said


@pytest.mark.parametrize("cls", OBJECTIVES, ids=lambda cls: needs_of(cls).name)
def test_the_wrong_columns(cls, no_work):
    company = next(case.company for case in bare() if case.objective is cls)
    for columns, data in DATA.items():
        said = refused([cls, *company], data=data)
        if not needs_of(cls).suits(columns.split()):
            assert said and cls.__name__ in said and columns.replace(" ", "/") in said
        else:
            assert said is None


def test_what_an_adaptation_objects_to(no_work):
    """A design with everything an adaptation may want to train left out: some object, in one line with the way out."""
    bald = small(**PRESETS["llama"])
    objective = next(c.objective for c in bare() if c.family == "decoder")
    objects = {cls for cls in ADAPTATIONS if needs_of(cls).objection and needs_of(cls).objection(cls(), bald)}
    assert objects, "no adaptation objects to a model without biases"
    for cls in ADAPTATIONS:
        for others in ((), *((c,) for c in ADAPTATIONS if c not in objects and c is not cls)):
            said = refused([objective, *others, cls], data=DATA["prompt response"], config=bald)
            assert bool(said) == (cls in objects)
            assert not said or (said.startswith(cls.__name__) and ": " in said)


@pytest.mark.parametrize("case", [c.alone(x) for c in bare() for x in additions(c) if x in EXTRAS], ids=str)
def test_an_extra_that_an_objective_has_no_use_for(case):
    """What only its batches tell comes before the first step, in one line that names it and the way out."""
    if said := refusal(case):
        assert "\n" not in said and case.added[0].__name__ in said and "leave" in said


def test_what_works_on_tokens_beside_what_predicts_none(no_work, starts):
    """Refused before any work, for the reason that the panel greys it for, whichever of the two is chosen first."""
    silent = [cls for cls in OBJECTIVES if needs_of(cls).labels is False]
    asking = [cls for cls in EXTRAS if needs_of(cls).labels]
    assert silent and asking
    for objective in silent:
        columns = needs_of(objective).columns[0]
        lab = Lab(data={columns: DATA[columns]}, start={"decoder": starts["decoder"]}, extras=asking, steps=1)
        lab.session.choose(needs_of(objective).name)
        for extra in asking:
            said = refused([objective, extra], data=DATA[columns], model=starts["decoder"])
            name = extra.__name__
            assert said == f"{name} works on tokens, and {objective.__name__} predicts none: leave {name} out"
            assert lab.session.reason(needs_of(extra).name) == said


def test_what_is_not_refused_can_be_made(starts, monkeypatch):
    """Nothing is refused late: whatever no rule forbids becomes a run."""
    for objective in OBJECTIVES:
        columns = next(c for c in COLUMNS if needs_of(objective).suits(c.split()))
        for cls in (None, *ADAPTATIONS):
            classes = [objective, *([cls] if cls else [])]
            for name in STARTS:
                where = {"data": DATA[columns], "model": start(name)}
                if name == SCRATCH:
                    family = needs_of(objective).families[0]
                    where |= {"config": config(family), "tokenizer": tokenizer(family)}
                with monkeypatch.context() as patched:
                    patched.setattr(Transformer, "__init__", _work)
                    patched.setattr("llmlab.run.pass_on", _work)
                    said = refused(classes, **where)
                if said is None:
                    Run([c() for c in classes], **where)


# -- the panel ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab():
    return Lab(data=DATA, start={name: start(name) or SCRATCH for name in STARTS}, steps=1)


@pytest.mark.parametrize("beginning", STARTS)
@pytest.mark.parametrize("columns", COLUMNS)
def test_what_is_refused_is_greyed_and_nothing_else(columns, beginning, lab, no_work):
    """Every objective with no adaptation or one, on every kind of data and start."""
    session = lab.session
    for name in list(session.added):
        session.drop(name)
    session.set(data=columns, start=beginning)
    where = {"data": DATA[columns], "model": start(beginning)}
    for objective in OBJECTIVES:
        grey = session.reason(needs_of(objective).name)
        assert grey == refused([objective], **where)
        if grey is None:
            session.choose(needs_of(objective).name)
        for adaptation in ADAPTATIONS:
            said = refused([objective, adaptation], **where)
            if grey is None:
                assert session.reason(needs_of(adaptation).name) == said
            else:
                assert said, f"{objective.__name__} is greyed, yet runs with {adaptation.__name__}"


@pytest.mark.parametrize("design", PRESETS)
def test_a_configured_model_greys_what_it_refuses(design, monkeypatch):
    """A panel that makes its model by a preset's name, or by a config."""
    for shape in (design, small(**PRESETS[design])):
        session = Lab(data={"pairs": DATA["prompt response"]}, config=shape, steps=1).session
        with monkeypatch.context() as patched:
            patched.setattr(Tokenizer, "train", _work)
            for objective in OBJECTIVES:
                said = refused([objective], data=DATA["prompt response"], config=shape)
                assert session.reason(needs_of(objective).name) == said
                if said is None:
                    session.choose(needs_of(objective).name)
                    for adaptation in ADAPTATIONS:
                        said = refused([objective, adaptation], data=DATA["prompt response"], config=shape)
                        assert session.reason(needs_of(adaptation).name) == said


def test_the_widgets_say_what_the_session_says(lab):
    lab.set(data="text", start="no biases")
    chips = lab.choosing.objectives | lab.choosing.toggles
    for name, widget in chips.items():
        reason = lab.session.reason(name)
        chosen = name == lab.session.objective or name in lab.session.added
        assert widget.disabled == (reason is not None and not chosen), name
        assert lab.choosing.reasons[name].layout.display == ("" if reason else "none"), name
    assert {widget.disabled for widget in chips.values()} == {True, False}


def test_an_adaptation_that_is_on_does_not_hide_why_an_objective_is_not_for_it(lab):
    """Objectives are greyed for what the added adaptations are, too: choosing what is not grey always runs."""
    session = lab.session
    for beginning in STARTS:
        for name in list(session.added):
            session.drop(name)
        session.set(data="prompt response", start=beginning)
        for cls in ADAPTATIONS:
            if session.reason(needs_of(cls).name) is None:
                session.choose(needs_of(cls).name)
        assert session.plan().problem() is None
        for objective in OBJECTIVES:
            if session.reason(needs_of(objective).name) is None:
                session.choose(needs_of(objective).name)
                assert session.plan().problem() is None

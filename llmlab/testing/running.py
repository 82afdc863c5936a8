"""Rules about what a technique does in a run: votes, learning, seeds, coming off, coming back, order, files."""

from __future__ import annotations

import random
import re
import sys
from typing import Any

import torch
from torch import nn

from ..surgery import Wrapper, named_layers, named_parameters, pass_on, replace_modules
from ..technique import hookimpl, knobs, needs_of, technique
from . import checks
from .cases import Case, additions, base, copies, make, refusal, stirred, trained
from .conformance import DoesNotApply, Subject, each_run, scratch, with_knobs

NOWHERE = "no_such_layer"


@each_run(
    "it votes on what trains, and freezes nothing itself: an adaptation on every parameter, others never against one",
    "answer `trains` with True for what is yours; an adaptation answers False for all else, an objective or an extra "
    "None. Leave requires_grad alone: the kernel sets it by the votes of all",
)
def votes(subject: Subject, case: Case) -> None:
    kind = subject.needs.kind
    run = make(case, steps=1)
    mine = next(t for t in run.techniques if type(t) is subject.cls)
    fresh = pass_on(base(case.objective, case.family)).requires_grad_(True)
    run.hooks.only(mine, "adapt_model", model=fresh)
    frozen = [n for n, p in named_parameters(fresh) if not p.requires_grad]
    assert not frozen, f"adapt_model freezes {frozen[0]}"
    asked = {n: run.hooks.only(mine, "trains", name=n, parameter=p) for n, p in named_parameters(run.model)}
    said = {n: answers[0] if answers else None for n, answers in asked.items()}
    odd = [n for n, vote in said.items() if vote not in (True, False, None)]
    assert not odd, f"its vote on {odd[0]} is {said[odd[0]]!r}"
    if kind == "adaptation":
        silent = [n for n, vote in said.items() if vote is None]
        assert not silent, f"it has no opinion on {silent[0]}, which would train"
        assert any(said.values()), "it votes for no parameter"
    else:
        against = [n for n, vote in said.items() if vote is False]
        assert not against, f"it is an {kind} and votes against {against[0]}"


@each_run(
    "with it a model learns: the loss is finite at every step and falls",
    "is the loss the mean over its labels, with a gradient to what trains? LLMLAB_TRACE=1 prints every hook call",
)
def learns(subject: Subject, case: Case) -> None:
    checks.check_losses(trained(case))


@each_run(
    "equal seeds give equal runs, bit for bit, whatever others draw",
    "draw with `examples.generators()` in batches, with `run.generator(purpose)` elsewhere, and in adapt_model from "
    "torch's own generator, which the kernel seeds; never from `random`, numpy or the clock",
)
def seeds(subject: Subject, case: Case) -> None:
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        random.seed(noise)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(noise)
        runs.append(make(case, steps=3))
    one, other = runs
    _same(copies(one.model), copies(other.model), "at the start")
    one.fit(progress=False)
    torch.rand(3), random.random()
    other.fit(progress=False)
    assert one.history == other.history, "the losses of two equal runs differ"
    _same(copies(one.model), copies(other.model), "in the end")


def _same(one: dict[str, Any], other: dict[str, Any], when: str) -> None:
    assert one.keys() == other.keys(), f"two equal runs have other parameters {when}"
    differs = [n for n, p in one.items() if not torch.equal(p, other[n])]
    assert not differs, f"{differs[0]} differs {when} of two equal runs"


@each_run(
    "what does not train stays as it was, bit for bit, in the model given and in the run's",
    "the model given is shared: change new layers only, in adapt_model, and values only through training",
)
def untouched(subject: Subject, case: Case) -> None:
    checks.check_untouched(trained(case))


@each_run(
    "a gradient reaches all that trains, and nothing else",
    "what `trains` says True to has to be part of the loss: look for a detach, a no_grad or a layer that is not used",
)
def reached(subject: Subject, case: Case) -> None:
    checks.check_reached(trained(case))


@each_run(
    "taken off, it leaves the base bit for bit",
    "keep what you wrap as the wrapper's `base` (llmlab.surgery.Wrapper) and change nothing in it",
)
def detach(subject: Subject, case: Case) -> None:
    _adaptation(subject)
    checks.check_detach(trained(case))


@each_run(
    "merged, it is the same function; or one line says that it cannot be",
    "give the wrapper a `merged()`: llmlab.surgery.linear_layer(…), made from `self.linear()`; or leave it out",
)
def merge(subject: Subject, case: Case) -> None:
    _adaptation(subject)
    checks.check_merge(trained(case))


def _adaptation(subject: Subject) -> None:
    if subject.needs.kind != "adaptation":
        raise DoesNotApply(f"it is an {subject.needs.kind}")


@each_run(
    "a layer's name that matches nothing is refused in one line that names it",
    "find layers with llmlab.surgery.replace_modules, which says so; a loop of your own must not pass over a slip",
)
def targets(subject: Subject, case: Case) -> None:
    texts = {name: field.default for name, field in knobs(subject.cls).items() if isinstance(field.default, str)}
    paths = [path for path, _, _ in named_layers(base(case.objective, case.family))]
    naming = [name for name, default in texts.items() if default.strip() and _are_layers(default, paths)]
    if not naming:
        raise DoesNotApply("no knob names layers")
    for name in naming:
        for wrong in (NOWHERE, f"{texts[name]}, {NOWHERE}"):
            said = _refused(case, subject.cls, {name: wrong})
            assert said is not None, f"{name} = {wrong!r} is accepted"
            assert NOWHERE in said and "\n" not in said, f"{name} = {wrong!r} is refused with {said!r}"


def _refused(case: Case, cls: type, knobs: dict[str, Any], model: Any = None) -> str | None:
    """What a run says that refuses the technique with other knobs; None if it takes them."""
    other = with_knobs(cls, **knobs)
    classes = [other if c is cls else c for c in case.techniques]
    try:
        make(
            Case(classes[0], case.family, tuple(classes[1:])), steps=1, model=model or base(case.objective, case.family)
        )
    except ValueError as error:
        return str(error)
    return None


def _are_layers(text: str, paths: list[str]) -> bool:
    words = re.split(r"[,\s]+", text.strip())
    return all(any(path == word or path.endswith(f".{word}") for path in paths) for word in words)


@each_run(
    "met again on a model that has it, it goes on with what it learnt; with other knobs it says so",
    "new parameters are made in adapt_model alone, which is not called again; set no values in before_fit",
)
def continues(subject: Subject, case: Case) -> None:
    done = trained(case).model
    again = make(case, model=done, steps=1)
    again.fit(0, progress=False)
    now, before = copies(again.model), copies(done)
    assert now.keys() == before.keys(), f"it adds {sorted(now.keys() - before.keys())} a second time"
    changed = [n for n, p in before.items() if not torch.equal(p, now[n])]
    assert not changed, f"before the first step {changed[0]} is no longer what it was"
    name = needs_of(subject.cls).name
    if subject.needs.kind != "adaptation" or name not in done.adaptations:
        return
    for knob, value in _other_values(subject.cls):
        said = _refused(case, subject.cls, {knob: value}, done)
        assert said is not None, f"with {knob} = {value!r} it goes on as if it had always been so"
        assert "\n" not in said and name in said, f"with {knob} = {value!r} it says {said!r}"


def _other_values(cls: type) -> list[tuple[str, Any]]:
    """One knob with another value, if there is one that may have it."""
    for name, field in knobs(cls).items():
        low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
        tried = [c for c in choices or () if c != field.default]
        if isinstance(field.default, bool):
            tried = [not field.default]
        elif isinstance(field.default, int | float) and choices is None:
            tried = [v for v in (low, high) if v is not None and v != field.default]
        for value in tried:
            try:
                cls(**{name: value})
            except ValueError:
                continue
            return [(name, value)]
    return []


@each_run(
    "in every order of the list the same function and the same training, bit for bit",
    "wrap with llmlab.surgery.replace_modules, whose wrappers know their place by `order`: 0 for a change of the "
    "weight, 1 for a change of the output; and draw nothing that depends on how much others drew",
)
def order(subject: Subject, case: Case) -> None:
    checks.check_orders(case.alone(*case.added, *_company(case)), most=8)


class Scaled(Wrapper):
    """Any layer with one output, multiplied by a trained number."""

    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.by = nn.Parameter(torch.ones(()))

    def forward(self, *given: Any, **named: Any) -> Any:
        return self.base(*given, **named) * self.by


@technique(kind="adaptation")
class Neighbour:
    """An adaptation that wraps every layer another one may want to wrap."""

    @hookimpl
    def adapt_model(self, model: nn.Module) -> None:
        replace_modules(model, ["attention", "mlp", "query", "out", "up", "down"], Scaled)

    @hookimpl
    def trains(self, name: str) -> bool:
        return name.endswith(".by")


def _company(case: Case) -> list[type]:
    """The neighbour, and the first adaptation of the catalogue that the case takes beside it."""
    known = [c for c in additions(case) if needs_of(c).kind == "adaptation" and c not in case.techniques]
    return [Neighbour, *[cls for cls in known if not refusal(case.alone(*case.added, cls))][:1]]


@each_run(
    "saved in the middle and loaded, a run goes on bit for bit",
    "what must survive belongs in run.state[self] (numbers, text, tensors), in parameters, or in persistent buffers; "
    "an attribute of the instance or of a layer is lost",
)
def resume(subject: Subject, case: Case) -> None:
    with scratch() as folder:
        checks.check_resume(case, folder)


@each_run(
    "a model that is saved and read back says the same, and can be taken apart as before",
    "numbers that a layer needs are parameters or persistent buffers; plain attributes come from knobs, in adapt_model",
)
def saved(subject: Subject, case: Case) -> None:
    with scratch() as folder:
        checks.check_saved(case, trained(case).model, folder)


@each_run(
    "writing with the cache is writing without it, alone as beside others",
    "a layer's wrapper may look at each position alone; what looks at others sits inside the attention's `kv`",
)
def writing(subject: Subject, case: Case) -> None:
    if set(subject.needs.families) == {"encoder"}:
        raise DoesNotApply("encoders do not write")
    if case.family != "encoder":
        checks.check_writing(stirred(trained(case).model))


@each_run(
    "texts far longer than the model reads are cut to what fits",
    "cut to run.model.room tokens in examples or batches: it knows what an adaptation puts before the text",
)
def long_texts(subject: Subject, case: Case) -> None:
    checks.check_long_texts(case)


@each_run(
    "a few steps in bfloat16 are finite, and start where float32 does",
    "compute in the dtype of what comes in, and sums, logarithms and probabilities in float32",
)
def bf16(subject: Subject, case: Case) -> None:
    checks.check_bf16(case)

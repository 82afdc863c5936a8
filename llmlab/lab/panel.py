"""`Lab`, the panel of every lesson: choose an objective and adaptations, turn knobs, run, watch, compare.

    lab = Lab(objectives=["clm", "sft"], adaptations=["lora"], data=["tinytown:qa"], start=["tiny-gpt"], steps=60)
    lab                                # the panel, as the last line of a cell
    lab.choose("lora", rank=4)         # the same from code: what is chosen shows in the panel
    lab.run()                          # as the Run button, and waits
    lab.picture()                      # the last run, to keep in the notebook

1. Training happens in a thread, and a stop is an event: which thread a callback runs in differs between kernels.
2. Pictures follow the run by time, not by step, and drawing takes a sixth of the time at most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as W

from ..catalogue import techniques
from ..technique import knobs, needs_of
from ..training import Training
from . import chart, tables
from .knobs import Knob
from .plan import LAST, SCRATCH
from .session import Listener, Record, Session

if TYPE_CHECKING:
    from ..run import Run

TRAINING = ("steps", "batch_size", "learning_rate")  # what of `Training` the panel offers
SHOWN = 4  # knobs of a technique that show at once
STARTS = {SCRATCH: "random weights", LAST: "the last run's model"}
ON, OFF = "● ", "○ "  # the chosen objective, not told by colour alone


def _offered(kind: str) -> list[str]:
    return [name for name, entry in techniques().items() if entry.cls and entry.needs.kind == kind]


@cache
def style() -> str:
    """The one style sheet, as HTML."""
    return f"<style>{(Path(__file__).parent / 'style.css').read_text(encoding='utf-8')}</style>"


def warm_up() -> None:
    """Load what the first run would wait for: torch's optimisers take a second to import, the first picture half."""
    from torch import nn, zeros

    from ..training import make_optimizer

    weight = nn.Parameter(zeros(2, 2))
    weight.grad = zeros(2, 2)
    make_optimizer([("weight", weight)], Training()).step()
    chart.png(chart.Curve([1, 2], [1.0, 0.5], [0, 2], [1.0, 0.5], 0.1, 2))


_warm = cache(lambda: threading.Thread(target=warm_up, daemon=True, name="llmlab-warm-up").start())


class Lab(Listener):
    """The panel. Objectives and adaptations are names or classes; default: all there are.

    `data`: corpora to choose from, by name, as `Corpus`, or {label: either}. `start`: "scratch", names of bundled
    models, or {label: model or run}. `config`: the model made from scratch. Further keywords go to `Training`.
    """

    def __init__(
        self,
        objectives: Iterable[Any] | None = None,
        adaptations: Iterable[Any] | None = None,
        data: Iterable[Any] | Mapping[str, Any] = ("tinytown:documents", "tinytown:qa"),
        start: Iterable[str] | Mapping[str, Any] = (SCRATCH,),
        *,
        seed: int = 0,
        config: Any = None,
        samples: int = 3,
        name: str = "lab",
        **training: Any,
    ) -> None:
        self.session = Session(
            _offered("objective") if objectives is None else objectives,
            _offered("adaptation") if adaptations is None else adaptations,
            data,
            start,
            {"steps": 60, "evaluate_batches": 4, **training},
            seed,
            config,
            samples,
            self,
        )
        self.name = name
        self._quiet = threading.local()  # `on` while this thread shows values that no user chose
        self._drawn = self._cost = 0.0
        self._make()
        self._show_choices()

    # -- from code ---------------------------------------------------------------------------------------------

    def choose(self, technique: str, **knobs: Any) -> Lab:
        """Choose an objective or switch an adaptation on, with values for its knobs; ValueError says why not."""
        return self._then(lambda: self.session.choose(technique, **knobs))

    def drop(self, technique: str) -> Lab:
        """Switch an adaptation off."""
        return self._then(lambda: self.session.drop(technique))

    def set(self, **choices: Any) -> Lab:
        """Choose `data`, `start`, `seed`, `steps`, `batch_size`, `learning_rate` or what else `Training` holds."""
        return self._then(lambda: self.session.set(**choices))

    def start(self) -> Lab:
        """What the Run button does: begin, and return at once."""
        if not self.session.start():
            self._stop.disabled = not self.session.busy
        return self

    def run(self) -> Run:
        """Begin, wait, and return the run; whatever else trains is stopped first. Raises what went wrong."""
        self.session.wait_for_others()
        try:
            self.session.start()
            self.session.join()
        except KeyboardInterrupt:
            self.stop()
            self.session.join()
        if self.session.error is not None:
            raise self.session.error
        assert self.session.last is not None
        return self.session.last.run

    def stop(self) -> Lab:
        """What the Stop button does: end the run after the step in hand."""
        self.session.stop()
        self._stop.disabled = not self.session.runs
        return self

    @property
    def result(self) -> Run | None:
        """The last run, or None."""
        return self.session.records[-1].run if self.session.records else None

    @property
    def results(self) -> list[Run]:
        """Every run of this panel that took a step."""
        return [record.run for record in self.session.records]

    @property
    def status(self) -> str:
        """The status line."""
        return self.session.status

    @property
    def code(self) -> str:
        """The Python that equals the choices, ready to run."""
        return self.session.plan().code()

    def picture(self) -> Any:
        """The last run's chart as a PNG, which a saved notebook keeps when the panel is gone."""
        from IPython.display import Image

        record = self.session.records[-1] if self.session.records else None
        curve, title = (chart.Curve.of(record.run), record.title) if record else (chart.Curve(), "")
        return Image(data=chart.png(curve, title), width=640, alt=curve.describe())

    # -- the face ----------------------------------------------------------------------------------------------

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        _warm()
        return {**(self.ui._repr_mimebundle_() or {}), "text/plain": repr(self)}

    def __repr__(self) -> str:  # constant, so that a stored notebook compares equal
        offered = [*self.session.objectives, *self.session.adaptations]
        return f"Lab({', '.join(offered)}: a panel with Run and Stop, live in a running notebook)"

    def _make(self) -> None:
        self._run = W.Button(description="Run", tooltip="Train with these choices").add_class("llmlab-run")
        self._stop = W.Button(description="Stop", tooltip="End after the step in hand", disabled=True)
        self._run.on_click(lambda _: self.start())
        self._stop.add_class("llmlab-stop").on_click(lambda _: self.stop())
        self._title, self._status, self._progress = W.HTML(), W.HTML(), W.HTML()
        self._chart, self._share, self._measures, self._samples = (W.HTML() for _ in range(4))
        self._code = W.HTML()
        self._code_button = W.ToggleButton(description="Show code", tooltip="The Python that equals these choices")
        self._code_button.observe(lambda _: self._show_code(), names="value")
        top = _box("top", self._title, W.HBox([self._run, self._stop]).add_class("llmlab-buttons"))
        right = _box("watch", self._progress, self._chart, self._share, self._measures)
        body = _box("body", _box("choices", *self._make_choices()), right)
        foot = _box("foot", self._samples, self._code_button, self._code)
        self.ui = W.VBox([W.HTML(style()).add_class("llmlab-style"), top, self._status, body, foot])
        self.ui.add_class("llmlab-lab").add_class(f"llmlab-{self.name}")

    def _make_choices(self) -> list[Any]:
        s = self.session
        self._objectives = {name: self._chip(name, cls) for name, cls in s.objectives.items()}
        self._toggles = {name: self._toggle(name, cls) for name, cls in s.adaptations.items()}
        self._reasons = {name: W.HTML().add_class("llmlab-reason") for name in [*s.objectives, *s.adaptations]}
        self._about = W.HTML().add_class("llmlab-about")
        offered = s.objectives | s.adaptations
        self._knobs = {name: self._make_knobs(name, cls) for name, cls in offered.items()}
        self._groups = {name: _group([k.widget for k in made.values()]) for name, made in self._knobs.items()}
        self._data = W.Dropdown(options=list(s.data), description="Data", tooltip="What the model learns from")
        self._start = W.Dropdown(options=[("", "")], description="Start from", tooltip="The weights it starts with")
        fields = knobs(Training)
        self._training = {n: Knob(n, fields[n], lambda k, v: self._do(self.set, **{k: v}), self._say) for n in TRAINING}
        for widget, what in ((self._data, "data"), (self._start, "start")):
            widget.add_class("llmlab-knob").observe(
                lambda change, what=what: self._do(self.set, **{what: change["new"]}), names="value"
            )
        parts = [_heading("Objective"), _box("chips", *self._objectives.values()), self._about]
        parts += [self._reasons[name] for name in s.objectives] + [self._groups[name] for name in s.objectives]
        parts += [_heading("Adaptations")] if s.adaptations else []
        for name, toggle in self._toggles.items():
            parts += [toggle, self._reasons[name], self._groups[name]]
        for wide in (self._data, self._start, self._training["learning_rate"].widget):
            wide.add_class("llmlab-wide")
        settings = _box("knobs", self._data, self._start, *(k.widget for k in self._training.values()))
        return [*parts, _heading("Data and training"), settings]

    def _chip(self, name: str, cls: type) -> Any:
        button = W.Button(description=cls.__name__, tooltip=_summary(cls)).add_class("llmlab-chip")
        button.on_click(lambda _: self._do(self.choose, name))
        return button

    def _toggle(self, name: str, cls: type) -> Any:
        box = W.Checkbox(description=cls.__name__, tooltip=_summary(cls), indent=False).add_class("llmlab-toggle")
        box.observe(lambda change: self._do(self.choose if change["new"] else self.drop, name), names="value")
        return box

    def _make_knobs(self, name: str, cls: type) -> dict[str, Knob]:
        def changed(knob: str, value: Any) -> None:
            self._do(self._turn, name, knob, value)

        return {k: Knob(k, field, changed, self._say) for k, field in knobs(cls).items()}

    def _turn(self, name: str, knob: str, value: Any) -> None:
        self.choose(name, **{knob: value})

    # -- showing -----------------------------------------------------------------------------------------------

    def _do(self, action: Callable[..., Any], *given: Any, **named: Any) -> None:
        """Do what a click asks, unless it was no click; an error becomes the status line."""
        if getattr(self._quiet, "on", False):
            return
        try:
            action(*given, **named)
        except (ValueError, TypeError, OSError) as error:
            self.session.fail(error)
            self._show_choices(keep_status=True)

    def _then(self, action: Callable[[], Any]) -> Lab:
        action()
        self._show_choices()
        return self

    def _show_choices(self, keep_status: bool = False) -> None:
        """Let every widget show what the session holds."""
        s = self.session
        with self._silent():
            for name, chip in self._objectives.items():
                chosen = name == s.objective
                chip.description = (ON if chosen else OFF) + s.objectives[name].__name__
                (chip.add_class if chosen else chip.remove_class)("llmlab-chosen")
                self._grey(name, chip, chosen)
            self._about.value = _summary(s.objectives[s.objective])
            for name, toggle in self._toggles.items():
                toggle.value = name in s.added
                self._grey(name, toggle, toggle.value)
            for name, group in self._groups.items():
                on = (name == s.objective or name in s.added) and bool(self._knobs[name])
                group.layout.display = "" if on else "none"
                for k, shown in self._knobs[name].items():
                    shown.show(s.knobs[name][k])
            self._data.value = s.dataset
            self._show_starts()
            for k, shown in self._training.items():
                shown.show(s.training[k], s.rate if k == "learning_rate" else None)
        problem = s.plan().problem()
        self._run.disabled = s.runs or problem is not None
        self._show_code()
        if s.runs or keep_status:
            return
        self._title.value = f'<div class="llmlab-title">{s.plan().title}</div>'
        self._share.value = tables.parameters(s.preview())
        if s.last is None:
            self._chart.value = chart.image(chart.Curve(end=s.training["steps"]))
            self._progress.value = tables.progress(0, s.training["steps"])
        s.say(f"This cannot run: {problem}" if problem else self._advice())

    def _show_starts(self) -> None:
        with self._silent():  # new options move the choice to the first
            self._start.options = [(STARTS.get(name, name), name) for name in self.session.starts]
            self._start.value = self.session.start_from

    @contextmanager
    def _silent(self) -> Iterator[None]:
        was, self._quiet.on = getattr(self._quiet, "on", False), True
        try:
            yield
        finally:
            self._quiet.on = was

    def _advice(self) -> str:
        s = self.session
        plan = s.plan()
        wants = [c.__name__ for c in plan.techniques if needs_of(c).base]
        if wants and plan.model is None:
            return f"Ready. {' and '.join(wants)} works best from a trained model; this one starts from random weights."
        return "Ready: press Run."

    def _grey(self, name: str, widget: Any, chosen: bool) -> None:
        reason = self.session.reason(name)
        widget.disabled = reason is not None and not chosen
        self._reasons[name].value = reason or ""
        self._reasons[name].layout.display = "" if reason else "none"

    def _show_code(self) -> None:
        on = self._code_button.value
        self._code_button.description = "Hide code" if on else "Show code"
        self._code.value = tables.code(self.code) if on else ""

    def _say(self, text: str) -> None:
        self.session.say(text)

    # -- what the session tells, in the worker's thread -------------------------------------------------------

    def said(self, text: str) -> None:
        self._status.value = tables.status(text)

    def began(self) -> None:
        self._run.disabled, self._stop.disabled = True, False
        self._drawn = self._cost = 0.0

    def moved(self, record: Record, now: bool) -> None:
        since = time.monotonic() - self._drawn
        if not now and since < max(0.25, 5 * self._cost):
            return
        run, began = record.run, time.monotonic()
        self._chart.value = chart.image(chart.Curve.of(run), record.title)
        note = f", loss {run.history[-1]['loss']:.2f}" if run.history else ""
        self._progress.value = tables.progress(run.steps, run.training.steps, note)
        self._measures.value = tables.measures(run.evaluations)
        if now:
            self._title.value = f'<div class="llmlab-title">{record.plan.title}</div>'
            self._share.value = tables.parameters(run.parameters())
            self._samples.value = tables.samples(record.samples)
        self._drawn = time.monotonic()
        self._cost = self._drawn - began

    def ended(self) -> None:
        self._stop.disabled, self._run.disabled = True, False
        self._show_starts()


def _box(name: str, *children: Any) -> Any:
    return W.Box(list(children)).add_class(f"llmlab-{name}")


def _group(widgets: list[Any]) -> Any:
    """Knobs in two columns; those beyond the first few wait behind a button."""
    box = _box("knobs", *widgets)
    if len(widgets) <= SHOWN + 1:  # a button for one would save nothing
        return box
    rest, words = widgets[SHOWN:], (f"{len(widgets) - SHOWN} more", "Fewer")
    more = W.ToggleButton(description=words[0], tooltip="The other knobs of this technique").add_class("llmlab-more")

    def show(_: Any = None) -> None:
        more.description = words[more.value]
        for widget in rest:
            widget.layout.display = "" if more.value else "none"

    more.observe(show, names="value")
    show()
    box.children = (*box.children, more)
    return box


def _heading(text: str) -> Any:
    return W.HTML(f'<div class="llmlab-heading">{text}</div>')


def _summary(cls: type) -> str:
    return (cls.__doc__ or "").strip().split("\n")[0]

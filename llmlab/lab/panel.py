"""`Lab`, the panel of every lesson: choose an objective and adaptations, turn knobs, run, watch, compare.

    lab = Lab(objectives=["clm", "sft"], adaptations=["lora"], data=["tinytown:qa"], start=["tiny-gpt"], steps=60)
    lab                                # the panel, as the last line of a cell
    lab.choose("lora", rank=4)         # the same from code: what is chosen shows in the panel
    lab.run()                          # as the Run button, and waits
    lab.picture()                      # the last run, to keep in the notebook
    lab.picture(1, 3)                  # two runs of the ledger on one chart
    lab.picture(measure="accuracy")    # a measure over steps instead of the loss

1. Training happens in a thread, and a stop is an event: which thread a callback runs in differs between kernels.
2. What a button does, a method of the same name does; an error is raised in code and one line in the panel.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as W

from ..catalogue import techniques
from . import measures, tables
from .choosing import Choosing
from .counting import Counter
from .ledger import Ledger
from .parts import box, button, html_part, style_part
from .past import Past
from .plan import SCRATCH
from .record import Record
from .session import Listener, Session
from .warm import warm
from .watching import Watching

if TYPE_CHECKING:
    from ..run import Run


def _offered(kind: str) -> list[str]:
    return [name for name, entry in techniques().items() if entry.cls and entry.needs.kind == kind]


class Lab(Listener):
    """The panel. Techniques are names, classes or instances, whose knobs then begin as they are.

    `objectives` and `adaptations`: all there are, unless told; `extras`: none. `chosen`: names of what is switched on.
    `data`: corpora to choose from, by name, as `Corpus`, or {label: either}. `start`: "scratch", names of bundled
    models, or {label: model or run}. `config`: the model made from scratch. `recordings`: saved runs or shared
    files to begin with. Further keywords go to `Training`.
    """

    def __init__(
        self,
        objectives: Iterable[Any] | None = None,
        adaptations: Iterable[Any] | None = None,
        data: Iterable[Any] | Mapping[str, Any] = ("tinytown:documents", "tinytown:qa"),
        start: Iterable[str] | Mapping[str, Any] = (SCRATCH,),
        *,
        extras: Iterable[Any] = (),
        chosen: Iterable[str] = (),
        recordings: Iterable[str | Path] = (),
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
            extras=extras,
            chosen=chosen,
            samples=samples,
            listener=self,
        )
        self.name, self._displayed, self._clicks = name, False, threading.RLock()
        self._at_stop = False  # Stop was given the focus when Run was pressed
        self._back_to_run = False  # where the focus goes when the run is over; elsewhere somebody may be typing
        self._counter = Counter(self.session, lambda table: self.watching.count(table))
        self._make()
        self._show_choices()
        for path in recordings:
            self._do(self.load, path)

    # -- choosing, from code -----------------------------------------------------------------------------------

    def choose(self, technique: str, **knobs: Any) -> Lab:
        """Choose an objective, or switch anything else on, with values for its knobs; ValueError says why not."""
        return self._then(lambda: self.session.choose(technique, **knobs))

    def drop(self, technique: str) -> Lab:
        """Switch an adaptation or extra off."""
        return self._then(lambda: self.session.drop(technique))

    def set(self, **choices: Any) -> Lab:
        """Choose `data`, `start`, `seed`, `steps`, `batch_size`, `learning_rate` or what else `Training` holds."""
        return self._then(lambda: self.session.set(**choices))

    def restore(self, number: int) -> Lab:
        """Choose again what run `number` had; ValueError names what is not offered here."""
        return self._then(lambda: self.session.restore(self.session.record(number)))

    # -- running -----------------------------------------------------------------------------------------------

    def start(self) -> Lab:
        """What the Run button does: begin, and return at once."""
        if not self.session.start():
            self._stop.disabled = not self.session.busy
        return self

    def run(self) -> Run:
        """Begin, wait, and return the run; whatever else trains is stopped first. Raises what went wrong."""
        self.session.begin(self.session.start)
        assert self.session.last is not None and self.session.last.run is not None
        return self.session.last.run

    def stop(self) -> Lab:
        """What the Stop button does: end the run after the step in hand."""
        self.session.stop()
        self._stop.disabled = not self.session.busy
        return self

    def replay(self, number: int | None = None, seconds: float = 8.0) -> Lab:
        """Play a run of the ledger, the last one if none is named, as if it trained, and wait; nothing is trained."""
        which = self.session.record(number).number
        self.session.begin(lambda: self.session.replay(which, seconds))
        return self

    def _replay(self, number: int) -> None:
        if not self.session.replay(number):
            self._stop.disabled = not self.session.busy

    # -- the ledger --------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """The table of the panel's runs; `ledger.rows` are dicts."""
        return Ledger(self.session.records)

    def overlay(self, *numbers: int | Run | None) -> Lab:
        """Draw these runs or numbers on the chart, all if none is named; `overlay(None)`: the one shown alone."""
        wanted = [n for n in numbers if n is not None] if numbers else [r.number for r in self.session.records]
        self.session.overlay(wanted)
        self._show_past()
        self.watching.draw()
        return self

    def chart(self, measure: str | Sequence[str] | None) -> Lab:
        """Draw "loss", a measure or two over steps; None: what suits the runs shown."""
        self.watching.choose(measure)
        return self

    def show(self, number: int) -> Lab:
        """Show a run of the ledger again: its chart, measures and samples."""
        record = self.session.show(number)
        self.watching.show(record)
        self._show_past()
        self.session.say(f"Run {number}: {record.told}, {record.outcome or 'loaded'}.")
        return self

    def forget(self, number: int) -> Lab:
        """Take a run out of the ledger and free its model."""
        self.session.forget(number)
        self._show_choices()
        if self.session.last is not None:
            self.watching.show(self.session.last)
        else:
            self.watching.blank()
        self.session.say(f"Run {number} is forgotten.")
        return self

    def save(self, folder: str | Path, number: int | None = None) -> Path:
        """Write a run, the last one if none is named, with its model and its recording to a run folder."""
        written = self.session.save(folder, number)
        self.session.say(f"Saved run {self.session.record(number).number} in {written}.")
        return written

    def share(self, path: str | Path, number: int | None = None) -> Path:
        """Write everything seen of a run, without its weights, to one small file, which `load` reads."""
        written = self.session.share(path, number)
        self.session.say(f"Wrote what was seen of run {self.session.record(number).number} to {written}.")
        return written

    def load(self, path: str | Path) -> Lab:
        """Take a run folder or a shared file into the ledger; a folder brings its model to start from."""
        return self._taken(lambda: self.session.load(path))

    def take(self, name: str, content: bytes) -> Lab:
        """The same for the content of a shared file."""
        return self._taken(lambda: self.session.take(name, content))

    @property
    def result(self) -> Run | None:
        """The last run, or None."""
        return self.results[-1] if self.results else None

    @property
    def results(self) -> list[Run]:
        """Every run of this panel that took a step and is still in the ledger."""
        return [record.run for record in self.session.records if record.run is not None]

    @property
    def status(self) -> str:
        """The status line."""
        return self.session.status

    @property
    def code(self) -> str:
        """The Python that equals the choices, ready to run."""
        return self.session.plan().code()

    @property
    def run_file(self) -> str:
        """The run.json that equals the choices, for `llmlab run FILE`; ValueError if a file cannot hold it."""
        return json.dumps(self.session.plan().recipe(), indent=2) + "\n"

    def picture(self, *numbers: int | Run, measure: str | Sequence[str] | None = None) -> Any:
        """The last run's chart, or that of several runs or their numbers, as a PNG that a saved notebook keeps.

        `measure`: "loss", a measure or two; unless told, the loss, or the rewards where no loss was measured.
        """
        from IPython.display import Image

        named = {r.number: r for r in map(self.session.record, numbers)}
        records = list(named.values()) or self.session.records[-1:]
        picture, alt = measures.still(records, measures.view(records, measure))
        return Image(data=picture, width=640, alt=alt)

    # -- the face ----------------------------------------------------------------------------------------------

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        warm()
        if not self._displayed:
            self._displayed = True
            self._count()
        return {**(self.ui._repr_mimebundle_() or {}), "text/plain": repr(self)}

    def __repr__(self) -> str:  # constant, so that a stored notebook compares equal
        return f"Lab({', '.join(self.session.offered)}: a panel with Run and Stop, live in a running notebook)"

    def _make(self) -> None:
        self._run = button("Run", "Train with these choices", lambda: self._do(self._pressed_run), "run")
        self._stop = button("Stop", "End after the step in hand", lambda: self._try(self._pressed_stop), "stop")
        self._stop.disabled = True
        self._status, self._code = html_part("says"), html_part("source")
        self.choosing = Choosing(self.session, self, self._do)
        self.watching = Watching(self.session, self.chart, self._do)
        self.past = Past(self.session, self, self._replay, self._do)
        self._opened = ""
        self._source_buttons = {
            what: button("", tooltip, partial(self._do, self._open, what), "small")
            for what, tooltip in (
                ("code", "The Python that equals these choices"),
                ("run file", "The run.json that equals these choices; llmlab run FILE repeats it"),
            )
        }
        top = box("top", self.watching.title, box("buttons", self._run, self._stop))
        body = box("body", self.choosing.ui, self.watching.ui)
        foot = box("foot", self.watching.samples, self.past.ui, box("row", *self._source_buttons.values()), self._code)
        self.ui = W.VBox([style_part(), top, self._status, body, foot])
        self.ui.add_class("llmlab-lab").add_class(f"llmlab-{self.name}")

    def _pressed_run(self) -> None:
        self.start()
        if self.session.runs:  # Run is grey now, and what is grey loses the keyboard's focus
            self._stop.focus()
            self._at_stop = True

    def _pressed_stop(self) -> None:
        self._back_to_run = self.session.busy
        self.stop()
        if not self._back_to_run:
            self._run.focus()

    def _open(self, what: str) -> None:
        self._opened = "" if self._opened == what else what
        self._show_source()

    # -- showing -----------------------------------------------------------------------------------------------

    def _do(self, action: Callable[..., Any], *given: Any, **named: Any) -> None:
        """Do what a click asks, one click after the other: a kernel may bring two of them in two threads at once."""
        with self._clicks:
            self._try(action, *given, **named)

    def _try(self, action: Callable[..., Any], *given: Any, **named: Any) -> None:
        """Whatever goes wrong becomes the status line, since a callback's error shows nowhere."""
        try:
            action(*given, **named)
        except Exception as error:
            with contextlib.suppress(Exception):  # it may be what went wrong
                self._show_choices(keep_status=True)
            self.session.complain(error)

    def _then(self, action: Callable[[], Any]) -> Lab:
        action()
        self._show_choices()
        return self

    def _taken(self, load: Callable[[], Record]) -> Lab:
        record = load()
        if not self.session.runs:
            self.session.last = record
            self.watching.show(record)
        self.choosing.show_starts()
        self._show_past()
        return self

    def _show_choices(self, keep_status: bool = False) -> None:
        """Let every widget show what the session holds."""
        s = self.session
        self.choosing.show()
        plan = s.plan()
        problem = s.problem()
        self._run.disabled = s.runs or problem is not None
        self._show_source()
        self._show_past()
        if s.runs and not keep_status:
            s.say(f"{s.status.split(' (')[0]} (what is chosen now is for the next run)")
        if s.runs or keep_status:
            return
        self.watching.head(plan.title)
        self._count()
        if s.last is None:
            self.watching.blank()
        if s.busy:  # this cell was run again while its panel trained, or there are two panels
            s.wait()
            self._stop.disabled = False
        else:
            self._rest()
            s.say(f"This cannot run: {problem}" if problem else s.advice())

    def _count(self) -> None:
        if self._displayed:  # before that, nobody sees it
            self.watching.count(None)
            self._counter.ask(self.session.plan())

    def _show_past(self) -> None:
        self.past.show()
        self.past.busy(self.session.runs)

    def _show_source(self) -> None:
        for what, made in self._source_buttons.items():
            made.description = f"{'Hide' if self._opened == what else 'Show'} {what}"
        try:
            text = {"": lambda: "", "code": lambda: self.code, "run file": lambda: self.run_file}[self._opened]()
        except ValueError as error:
            text = f"# {error}"
        self._code.value = tables.code(text, self._opened) if text else ""

    # -- what the session tells, in the worker's thread -------------------------------------------------------

    def said(self, text: str) -> None:
        self._status.value = tables.status(text)

    def began(self) -> None:
        self._run.disabled, self._stop.disabled = True, False
        self._stop.remove_class("llmlab-idle")
        self._counter.drop()
        self.past.busy(True)
        self.watching.restart()

    def moved(self, record: Record, now: bool) -> None:
        try:
            self.watching.show(record, now)
        except Exception as error:  # a picture that cannot be drawn does not end a run
            self.session.complain(error)

    def ended(self) -> None:
        self._run.disabled = False
        self._rest(keep=self._at_stop and not self._back_to_run)
        if self._back_to_run:
            self._run.focus()
        self._at_stop = self._back_to_run = False
        self._do(self._settle)

    def _rest(self, keep: bool = False) -> None:
        """Nothing trains, and Stop is grey. `keep`: it may have the focus, which a disabled button loses."""
        self._stop.disabled = not keep
        (self._stop.add_class if keep else self._stop.remove_class)("llmlab-idle")

    def _settle(self) -> None:
        self._run.disabled = self.session.problem() is not None
        self.choosing.show_starts()
        self._show_past()
        self.watching.draw()

    def freed(self) -> None:
        self._stop.disabled = not self.session.busy
        self._do(self._show_choices)

"""The runs of a panel: begun, stopped, kept, saved and played again; everything about `Lab` that needs no widget.

1. One run trains in a process at a time; the stop of any session ends the one that trains.
2. Stop ends at once what can be given up (samples, an evaluation). After a step there is one last evaluation; a
   second Stop gives that up too.
"""

from __future__ import annotations

import json
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint import write_atomic
from ..data.memory import IN_MEMORY
from .choices import Choices
from .plan import Plan
from .record import FILE, Record, read, read_run
from .replay import play
from .work import Work

if TYPE_CHECKING:
    from ..run import Run

_turn = threading.Lock()  # held by the session that trains
_active: Session | None = None
_waiting: weakref.WeakSet[Session] = weakref.WeakSet()  # those that were told of another one's run


class Listener:
    """What a face hears of a session, in the worker's thread; silent by itself."""

    def said(self, text: str) -> None:
        """There is a new status, one line."""

    def began(self) -> None:
        """A run was asked for."""

    def moved(self, record: Record, now: bool) -> None:
        """The run is at another step. `now`: there is more than a step to show; else do so when it suits."""

    def ended(self) -> None:
        """The run is over, also after an error."""

    def freed(self) -> None:
        """Another session's run, which this one was told of, is over."""


class Session(Choices):
    """Choices, made of what `Choices` is made of, and runs."""

    def __init__(self, *offered: Any, samples: int = 3, listener: Listener | None = None, **named: Any) -> None:
        super().__init__(*offered, **named)
        self.sampled, self.listener = samples, listener or Listener()
        self.status, self.error, self.last = "", None, None
        self.overlaid: list[int] = []  # numbers of the runs that stand on the chart beside the one shown
        self.phase = ""  # what Stop would have to wait for
        self.stops = 0
        self._made = 0
        self._learning = threading.Lock()
        self._stopping, self._thread = threading.Event(), threading.Thread()

    error: Exception | None  # what ended the last run
    last: Record | None  # the run in hand or shown, whatever became of it

    # -- running -----------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether any session of this process trains."""
        return _turn.locked()

    @property
    def runs(self) -> bool:
        """Whether it is this one."""
        return _active is self

    @property
    def stopping(self) -> bool:
        """Whether Stop was pressed since the run began."""
        return self._stopping.is_set()

    def start(self) -> bool:
        """Begin a run of the present choices in a thread of its own; False, and a status that says why, if not."""
        return self._begin(self._work)

    def replay(self, number: int, seconds: float = 8.0) -> bool:
        """Begin to play a run of the ledger as if it trained; False, and a status that says why, if not."""
        record = self.record(number)
        if not seconds > 0:
            raise ValueError(f"seconds = {seconds!r}: must be above 0")
        return self._begin(lambda: (f"Replaying run {number} …", lambda: play(self, record, seconds)))

    def _work(self) -> tuple[str, Callable[[], None]]:
        plan = self.plan()
        work = Work(self, plan, self._blank(plan))
        return f"Preparing {plan.title} …", work.do

    def _begin(self, make: Callable[[], tuple[str, Callable[[], None]]]) -> bool:
        global _active
        if not _turn.acquire(blocking=False):
            self.wait()
            return False
        _active, self.error, self.stops, self.phase = self, None, 0, "preparing"
        self._stopping.clear()
        try:
            told, work = make()
            self.say(told)
            self.listener.began()
            if "torch" in sys.modules:  # else this thread has no helpers yet, and the import would hold up the click
                from ..speed import hand_over_cores

                hand_over_cores()
            self._thread = threading.Thread(target=self._do, args=(work,), daemon=True, name="llmlab")
            self._thread.start()
        except Exception as error:
            self._over()
            self.fail(error)
            return False
        return True

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.fail(error)
        finally:
            self._over()
            self.listener.ended()
            for other in [s for s in _waiting if s is not self]:
                _waiting.discard(other)
                other.listener.freed()

    def _over(self) -> None:
        global _active
        _active, self.phase = None, ""
        _turn.release()

    def wait(self) -> None:
        """Say who trains, and hear when that is over."""
        if _active is self:
            self.say("Already training: Stop ends it.")
        else:
            _waiting.add(self)
            self.say("Another panel is training: Stop ends it, then Run starts this one.")

    def stop(self) -> None:
        """Ask whatever trains to end as soon as it can, and say when that is."""
        active = _active
        if active is None:
            return
        active.stops += 1
        active._stopping.set()
        last = " A second Stop leaves out the last evaluation." if active.phase == "step" else ""
        wait = WAITS.get(active.phase, "at once")
        active.say(f"Stopping {wait} …{last}" if active.stops == 1 else "Stopping without the last evaluation …")

    def join(self, timeout: float | None = None) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def wait_for_others(self) -> None:
        """Stop the session that trains, and wait until it is over: for code that is about to run."""
        active = _active
        if active is not None:
            active.stop()
            active.join()

    def begin(self, start: Callable[[], bool]) -> None:
        """`start`, after whatever else trains was stopped, and wait. Raises what went wrong."""
        self.error = None
        while not start():
            if self.error is not None:
                raise self.error
            self.wait_for_others()
        try:
            self.join()
        except KeyboardInterrupt:
            self.stop()
            self.join()
        if self.error is not None:
            raise self.error

    def build(self, plan: Plan) -> Run:
        """The plan's run; the vocabulary is learnt once for each corpus and family. InterruptedError if stopped."""
        while not self._learning.acquire(timeout=0.05):
            if self.runs and self.stopping:
                raise InterruptedError
        try:
            key = next(name for name, data in self.data.items() if data is plan.data), plan.family
            run = replace(plan, tokenizer=plan.tokenizer or self._tokenizers.get(key)).build()
            if plan.model is None:
                self._tokenizers[key] = run.tokenizer
        finally:
            self._learning.release()
        return run

    # -- keeping -----------------------------------------------------------------------------------------------

    def _blank(self, plan: Plan) -> Record:
        chosen = self.chosen()
        made = Record(
            plan.title, plan.name, self.dataset, chosen["start"], chosen, plan.code(), None, plan.training["steps"]
        )
        made.number, made.plan = self._made + 1, plan
        return made

    def keep(self, record: Record) -> None:
        """Put a run into the ledger."""
        self._made = record.number = self._made + 1
        self.records.append(record)
        if self.overlaid and not record.recorded:  # a run that ends stays on the chart
            self.overlaid.append(record.number)

    def record(self, number: int | Run | None = None) -> Record:
        """A run of the ledger, by its number or itself, the last one for None. ValueError if there is none."""
        if not self.records:
            raise ValueError("there is no run yet: press Run, or load a recording")
        if number is None:
            return self.records[-1]
        found = next((r for r in self.records if r.number == number or r.run is number), None)
        if found is None:
            named = f"run {number}" if isinstance(number, int) else "such run in this panel"
            raise ValueError(f"there is no {named}: there are {', '.join(str(r.number) for r in self.records)}")
        return found

    def show(self, number: int) -> Record:
        """Show a run of the ledger again."""
        if self.runs:
            raise ValueError("a run is under way: it shows until it ends, or Stop ends it")
        self.last = self.record(number)
        return self.last

    def overlay(self, numbers: Iterable[int | Run]) -> None:
        """Choose the runs that stand on the chart beside the one shown."""
        self.overlaid = sorted({self.record(number).number for number in numbers})

    def forget(self, number: int) -> None:
        """Take a run out of the ledger and let go of its model."""
        record = self.record(number)
        self.records.remove(record)
        if self.start_from not in self.starts:
            self.start_from = next(iter(self.models))
        self.overlaid = [n for n in self.overlaid if n != number]
        if self.last is record:
            self.last = self.records[-1] if self.records else None

    def save(self, folder: str | Path, number: int | None = None) -> Path:
        """Write a run folder, with the recording; ValueError if there is no model to save."""
        record, folder = self.record(number), Path(folder)
        if record.run is None:
            raise ValueError(f"run {record.number} was loaded and has no training to save: lab.share(file) copies it")
        if self.runs and self.last is record:
            raise ValueError("this run is under way: save it when it is over")
        if folder.is_file():
            raise ValueError(f"{folder} is a file: name a folder for the run")
        record.run.save(folder)
        write_atomic(folder / FILE, record.to_json())
        return folder

    def share(self, path: str | Path, number: int | None = None) -> Path:
        """Write everything that was seen of a run to one small file, without its weights."""
        record, path = self.record(number), Path(path)
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name a file, such as {path / 'run.json'}")
        write_atomic(path, record.to_json())
        return path

    def load(self, path: str | Path) -> Record:
        """Take a run folder or a shared file into the ledger; a folder brings its model."""
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}")
        record, without = read(path) if not path.is_dir() or (path / FILE).is_file() else read_run(path), "."
        if path.is_dir():
            try:
                self._load_model(record, path)
            except (ValueError, FileNotFoundError) as error:  # what was seen of it can still be shown
                without = f", without its model: {error}"
        return self._load(record, without)

    def take(self, name: str, content: bytes) -> Record:
        """The same for the content of a shared file."""
        try:
            kept = json.loads(content)
        except ValueError as error:
            raise ValueError(f"{name} is no JSON: {error}") from error
        return self._load(Record.from_json(kept, name))

    def _load(self, record: Record, without: str = ".") -> Record:
        self.keep(record)
        if not self.runs:
            self.say(f"Loaded as run {record.number}: {record.told}{without}")
        return record

    def _load_model(self, record: Record, folder: Path) -> None:
        from ..parameters import parameter_table
        from ..pretrained import load_model

        had = record.choices["techniques"]
        given = [cls(**(self.knobs[name] | _held(had[name]))) for name, cls in self.offered.items() if name in had]
        record.model = load_model(folder, given)
        record.total = record.total or parameter_table(record.model).total

    # -- telling -----------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        self.status = text
        self.listener.said(text)

    def fail(self, error: Exception) -> None:
        """Keep an error that ended a run, and tell it."""
        self.error = error
        self.complain(error)

    def complain(self, error: Exception) -> None:
        """Tell an error in one line."""
        known = isinstance(error, ValueError | RuntimeError | FloatingPointError | FileNotFoundError)
        kind = "" if known else f"{type(error).__name__}: "
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", [])[:1])
        self.say(f"Error: {kind}{first}{notes}")


def _held(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """What a file could hold; the panel may offer the rest."""
    return {k: v for k, v in knobs.items() if not (isinstance(v, Mapping) and IN_MEMORY in v)}


WAITS = {
    "preparing": "as soon as the data are ready",
    "step": "after the step in hand",
    "evaluating": "after the batch in hand",
    "writing": "after the sentence in hand",
}

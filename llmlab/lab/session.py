"""What a panel offers, what is chosen, and the run in hand: everything about `Lab` that needs no widget.

1. One run trains in a process at a time; the stop of any session ends the one that trains.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..data import Corpus
from ..data.memory import as_corpus
from ..progress import Progress
from ..technique import needs_of, values
from ..training import Training, recommended_rate
from .plan import LAST, SCRATCH, Plan, resolve
from .samples import WRITTEN, Sample, choose_samples

if TYPE_CHECKING:
    from ..model import Transformer
    from ..run import Run
    from ..tokenizer import Tokenizer

_turn = threading.Lock()  # held by the session that trains
_active: Session | None = None


@dataclass
class Record:
    """One run of a session and what was seen of it."""

    plan: Plan
    run: Run
    dataset: str = ""
    samples: list[Sample] = field(default_factory=list)
    outcome: str = ""  # "done" or "stopped"
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """Such as "SFT + LoRA on tinytown:qa"."""
        return f"{self.plan.title} on {self.dataset}"

    def write(self, when: str) -> None:
        """Let the model continue the prompts, greedily; `when` is "before" or "after"."""
        if self.samples:
            texts = self.run.generate([s.prompt for s in self.samples], max_new_tokens=WRITTEN)
            for sample, text in zip(self.samples, texts, strict=True):
                setattr(sample, when, text)


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


class Session:
    """Choices and runs. `choose`, `drop` and `set` raise ValueError in one line and then change nothing."""

    def __init__(
        self,
        objectives: Iterable[Any],
        adaptations: Iterable[Any],
        data: Iterable[Any] | Mapping[str, Any],
        start: Iterable[str] | Mapping[str, Any],
        training: Mapping[str, Any],
        seed: int = 0,
        config: Any = None,
        samples: int = 3,
        listener: Listener | None = None,
    ) -> None:
        self.objectives = {needs_of(c).name: c for c in map(resolve, objectives)}
        self.adaptations = {needs_of(c).name: c for c in map(resolve, adaptations)}
        self.data = dict(data) if isinstance(data, Mapping) else {_label(d): d for d in data}
        self.models = dict(start) if isinstance(start, Mapping) else {name: name for name in start}
        for what, offered in (("objective", self.objectives), ("corpus", self.data), ("start", self.models)):
            if not offered:
                raise ValueError(f"a panel needs at least one {what} to offer")
        self.knobs = {n: values(c()) for n, c in (self.objectives | self.adaptations).items()}
        self.training = values(Training(**training))
        self.seed, self.config, self.shown, self.listener = seed, config, samples, listener or Listener()
        self.records: list[Record] = []
        self.status, self.error, self.last = "", None, None
        self._corpora: dict[str, Corpus] = {}
        self._tokenizers: dict[tuple[str, str], Tokenizer] = {}
        self._loaded: dict[str, Transformer] = {}
        self._reading = threading.RLock()
        self._stopping, self._thread = threading.Event(), threading.Thread()
        self.added: list[str] = []
        self.dataset, self.start_from, self.objective = next(iter(self.data)), next(iter(self.models)), ""
        self.objective = next((o for o in self.objectives if not self.reason(o)), next(iter(self.objectives)))

    error: Exception | None
    last: Record | None  # the run in hand, or the last one, whatever became of it

    # -- choosing ----------------------------------------------------------------------------------------------

    def choose(self, name: str, **changes: Any) -> None:
        """Choose an objective or add an adaptation, with values for its knobs; ValueError says why it cannot be."""
        name = self._known(name)
        cls = (self.objectives | self.adaptations)[name]
        new = self.knobs[name] | changes
        checked = values(cls(**new))
        if (reason := self.reason(name)) is not None:
            raise ValueError(reason)
        self.knobs[name] = checked
        if name in self.objectives:
            self.objective = name
        elif name not in self.added:  # kept in the order they are offered, so that code does not depend on clicks
            self.added = [a for a in self.adaptations if a in self.added or a == name]

    def drop(self, name: str) -> None:
        """Take an adaptation off; its knobs are remembered."""
        name = self._known(name)
        if name in self.objectives:
            raise ValueError(f"a run needs an objective: choose another one instead of dropping {name}")
        self.added = [a for a in self.added if a != name]

    def set(
        self, *, data: str | None = None, start: str | None = None, seed: int | None = None, **training: Any
    ) -> None:
        """Choose the data, the start, the seed, or what `Training` holds. An objective that cannot use it gives way."""
        for what, value, offered in (("data", data, self.data), ("start", start, self.starts)):
            if value is not None and value not in offered:
                raise ValueError(f"{what} {value!r} is not offered here: one of {', '.join(offered)}")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(f"seed = {seed!r}: must be a whole number, at least 0")
        self.training = values(Training(**(self.training | training)))
        self.dataset, self.start_from = data or self.dataset, start or self.start_from
        self.seed = self.seed if seed is None else seed
        if self.reason(self.objective):
            self.objective = next((o for o in self.objectives if not self.reason(o)), self.objective)

    def _known(self, name: str) -> str:
        name = name.lower()
        if name not in self.knobs:
            raise ValueError(f"{name!r} is not offered here: one of {', '.join(self.knobs)}")
        return name

    @property
    def starts(self) -> dict[str, Any]:
        """Where a run may start: what is offered and, once there is one, the last run."""
        return self.models | ({LAST: LAST} if self.records else {})

    def reason(self, name: str) -> str | None:
        """Why this technique cannot be chosen now, or None; no work is done to find out."""
        cls = (self.objectives | self.adaptations)[name]
        return self._plan([cls, *self._added()] if name in self.objectives else [*self._chosen(), cls]).reason(cls)

    def _added(self) -> list[type]:
        return [self.adaptations[a] for a in self.added]

    def _chosen(self) -> list[type]:
        return [*([self.objectives[self.objective]] if self.objective else []), *self._added()]

    def plan(self) -> Plan:
        """The present choices."""
        return self._plan(self._chosen())

    def _plan(self, classes: Iterable[type]) -> Plan:
        parent = self.records[-1].plan if self.start_from == LAST else None
        plan = Plan(
            {cls: dict(self.knobs[needs_of(cls).name]) for cls in classes},
            self.data[self.dataset],
            self.corpus,
            self.start_from,
            self.records[-1].run.model if parent else self.model,
            dict(self.training),
            self.seed,
            self.config,
            parent=parent,
        )
        return replace(plan, tokenizer=self._tokenizers.get((self.dataset, plan.family)))

    @property
    def rate(self) -> float:
        """The learning rate of the chosen techniques, if none is set."""
        return recommended_rate(self._chosen())

    @property
    def corpus(self) -> Corpus:
        """The chosen data, made on first use."""
        with self._reading:
            if self.dataset not in self._corpora:
                self._corpora[self.dataset] = as_corpus(self.data[self.dataset])
            return self._corpora[self.dataset]

    @property
    def model(self) -> Transformer | None:
        """The chosen model to start from, read on first use; None to start from scratch, or from the last run."""
        given = self.models.get(self.start_from, SCRATCH)
        if given == SCRATCH:
            return None
        if not isinstance(given, str):
            return getattr(given, "model", given)  # a run, or a model
        if given not in self._loaded:
            from ..pretrained import load_model

            self._loaded[given] = load_model(given)
        return self._loaded[given]

    def preview(self) -> Any:
        """The table of parameters of the run that the choices make, or None where that cannot be had at once."""
        plan = self.plan()
        if self.busy or plan.problem() or (plan.model is None and plan.tokenizer is None):
            return None
        try:
            return plan.build().parameters()
        except (ValueError, TypeError):  # Run shows it, to whoever presses it
            return None

    # -- running -----------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether any session of this process trains."""
        return _turn.locked()

    @property
    def runs(self) -> bool:
        """Whether it is this one."""
        return _active is self

    def start(self) -> bool:
        """Begin a run of the present choices in a thread of its own; False, and a status that says why, if not."""
        global _active
        if not _turn.acquire(blocking=False):
            self.say(
                "Already training: Stop ends it."
                if _active is self
                else "Another panel is training: Stop ends it, then Run starts this one."
            )
            return False
        _active, self.error = self, None
        self._stopping.clear()
        try:
            plan = self.plan()
            self.say(f"Preparing {plan.title} …")
            self.listener.began()
            self._thread = threading.Thread(target=self._work, args=(plan, self.dataset), daemon=True, name="llmlab")
            self._thread.start()
        except Exception as error:
            _active = None
            _turn.release()
            self.fail(error)
            return False
        return True

    def stop(self) -> None:
        """Ask whatever trains to end after the step in hand."""
        active = _active
        if active is not None and not active._stopping.is_set():
            active._stopping.set()
            active.say("Stopping after the step in hand …")

    def join(self, timeout: float | None = None) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def wait_for_others(self) -> None:
        """Stop the session that trains, and wait until it is over: for code that is about to run."""
        active = _active
        if active is not None:
            active.stop()
            active.join()

    def _work(self, plan: Plan, dataset: str) -> None:
        global _active
        began = time.perf_counter()
        try:
            run = plan.build()
            if plan.model is None:  # learning it again would give the same
                self._tokenizers[dataset, plan.family] = run.tokenizer
            self.last = record = Record(plan, run, dataset, choose_samples(run, self.shown))
            self.listener.moved(record, True)
            record.write("before")
            self.listener.moved(record, True)
            run.fit(progress=_Watch(self, record))
            if run.steps:
                record.write("after")
            record.seconds = time.perf_counter() - began
            self._finish(record)
        except Exception as error:
            self.fail(error)
        finally:
            _active = None
            _turn.release()
            self.listener.ended()

    def _finish(self, record: Record) -> None:
        run, early = record.run, record.run.steps < record.run.training.steps
        record.outcome = "stopped" if early else "done"
        if early:
            record.plan = replace(record.plan, stopped=run.steps)
        if run.steps:
            self.records.append(record)
        self.listener.moved(record, True)
        last = f", {closing(run)}" if run.metrics else ""
        steps = f"{run.steps} of {run.training.steps} steps" if early else f"{run.steps} steps"
        why = f" ({run.stopped})" if run.stopped not in ("", "stopped") else ""
        told = f"{record.outcome.capitalize()}{why}: {record.plan.title}"
        self.say(f"{told}, {steps} in {record.seconds:.1f} s{last}.")

    # -- telling -----------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        self.status = text
        self.listener.said(text)

    def fail(self, error: Exception) -> None:
        """Keep an error and tell it in one line."""
        self.error = error
        known = isinstance(error, ValueError | RuntimeError | FloatingPointError | FileNotFoundError)
        kind = "" if known else f"{type(error).__name__}: "
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", [])[:1])
        self.say(f"Error: {kind}{first}{notes}")


class _Watch(Progress):
    """Passes a fit on to the listener of its session, and the session's stop on to the fit."""

    def __init__(self, session: Session, record: Record) -> None:
        self.session, self.record = session, record

    def start(self, run: Run, step: int, target: int) -> None:
        self.session.say(f"Training {self.record.plan.title}: {target} steps …")
        self._stop(run)

    def step(self, run: Run, metrics: dict[str, float]) -> None:
        self._stop(run)
        self.session.listener.moved(self.record, False)

    def evaluated(self, run: Run, metrics: dict[str, Any]) -> None:
        self._stop(run)
        if not self.session._stopping.is_set():
            self.session.say(f"Training: step {run.steps} of {run.training.steps}, {closing(run)}")
        self.session.listener.moved(self.record, run.steps == 0)

    def _stop(self, run: Run) -> None:
        if self.session._stopping.is_set() and not run.stopped:
            run.stop()


def closing(run: Run) -> str:
    """The measure to tell of first."""
    found = {k: v for k, v in run.metrics.items() if k != "step"}
    name = "loss" if "loss" in found else next(iter(found), "")
    return f"validation {name.replace('_', ' ')} {found[name]:.2f}" if name else "no validation set"


def _label(data: Any) -> str:
    """How a corpus is called in the panel: "tinytown:qa"."""
    if isinstance(data, str):
        return data
    if isinstance(data, Corpus):
        main = next((str(v) for v in data.options.values() if isinstance(v, str)), "")
        return f"{data.name}:{main}" if main else data.name
    return "in memory"

"""One training run of a session, from its plan to its record: built, sampled, fitted, sampled again, told."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from .. import __version__
from ..progress import Progress
from .plan import Plan
from .record import Record
from .samples import answer, choose_samples

if TYPE_CHECKING:
    from ..run import Run
    from .session import Session


class Work(Progress):
    """`do` runs in the session's thread; as the fit's progress it passes news on, and the session's stop down."""

    def __init__(self, session: Session, plan: Plan, record: Record) -> None:
        self.session, self.plan, self.record = session, plan, record
        self.stops = 0  # how many times Stop had been pressed when what is now done was begun

    def do(self) -> None:
        """All of it. What a step was taken of is kept in the ledger, also if it fails."""
        session, record, began = self.session, self.record, time.perf_counter()
        cut = True  # until the fit has ended by itself
        try:
            run = self._build()
            hook = run.model.register_forward_pre_hook(self._give_up)
            try:
                self._write(run, "before")
                run.fit(progress=self)
                cut = run.steps < record.target
                self.stops = session.stops
                if run.steps:
                    self._write(run, "after")
            finally:
                hook.remove()
        except InterruptedError:
            pass
        except Exception as error:
            record.outcome = "failed"
            self._keep(began)
            session.fail(error)
            return
        record.outcome = "stopped" if cut else "done"
        self._keep(began)
        session.say(self._summary())

    def _build(self) -> Run:
        session, record = self.session, self.record
        run = session.build(self.plan)
        table = run.parameters()
        record.run = run
        record.history, record.evaluations = run.history, run.evaluations  # the same lists: they grow as it trains
        record.trainable, record.total = table.trainable, table.total
        record.versions = {"llmlab": __version__, "torch": torch.__version__}
        with contextlib.suppress(ValueError):  # what a file cannot hold
            record.recipe = self.plan.recipe()
        record.samples = choose_samples(run, session.sampled)
        session.last = record
        session.listener.moved(record, True)
        return run

    def _write(self, run: Run, when: str) -> None:
        """Let the model continue the prompts, greedily, one after the other so that a stop need not wait for all."""
        for sample in self.record.samples:
            self.session.phase = "writing"
            self._check()
            setattr(sample, when, answer(run, sample.prompt))
        self._check()
        self.session.listener.moved(self.record, True)

    def _keep(self, began: float) -> None:
        record = self.record
        record.seconds = time.perf_counter() - began
        if record.run is None:
            return
        if record.outcome != "done" and record.run.steps:
            record.plan = replace(self.plan, stopped=record.run.steps)
            record.code = record.plan.code()
        if record.run.steps:
            record.model = record.run.model
            self.session.keep(record)
        self.session.listener.moved(record, True)

    def _summary(self) -> str:
        record, run = self.record, self.record.run
        if run is None or not run.steps:
            return f"Stopped: {record.technique}, before the first step."
        early = record.outcome == "stopped"
        last = f", {closing(record)}" if run.metrics else ""
        steps = f"{run.steps} of {record.target} steps" if early else f"{run.steps} steps"
        why = f" ({run.stopped})" if run.stopped not in ("", "stopped") else ""
        return f"{record.outcome.capitalize()}{why}: {record.technique}, {steps} in {record.seconds:.1f} s{last}."

    # -- stopping ----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.session.stops > self.stops:
            raise InterruptedError

    def _give_up(self, model: Any, _: Any) -> None:
        """Before each forward pass: one that trains is part of a step, any other can be given up."""
        if not model.training:
            self._check()

    # -- as the fit's progress ---------------------------------------------------------------------------------

    def start(self, run: Run, step: int, target: int) -> None:
        self._check()
        self.session.say(f"Training {self.record.technique}: {target} steps …")
        self.session.phase = "evaluating"

    def step(self, run: Run, metrics: dict[str, float]) -> None:
        self.stops = self.session.stops
        if self.stops and not run.stopped:
            run.stop()
        self.session.phase = "step"
        self.session.listener.moved(self.record, False)

    def evaluated(self, run: Run, metrics: dict[str, Any]) -> None:
        if not self.session.stopping:
            self.session.say(f"Training: step {run.steps} of {self.record.target}, {closing(self.record)}")
        self.session.phase = "step"
        self.session.listener.moved(self.record, run.steps == 0)


def closing(record: Record) -> str:
    """The measure to tell of first."""
    loss = record.evaluations[-1].get("loss") if record.evaluations else None
    told = f"loss {loss:.2f}" if loss is not None else record.headline
    return f"validation {told}" if told else "no validation set"

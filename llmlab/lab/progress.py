"""The progress bar that `run.fit()` shows in a notebook.

1. Its text/plain is constant, so that a stored notebook compares equal; the numbers are in the widget alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import ipywidgets as W
from IPython.display import display

from ..progress import Progress, headline, summary
from . import tables

if TYPE_CHECKING:
    from ..run import Run

REDRAW = 0.2  # seconds


class NotebookBar(Progress):
    """A bar with step and loss, the last evaluation below it, and a last line when it is over."""

    def start(self, run: Run, step: int, target: int) -> None:
        from .parts import style_part

        self.began, self.drawn, self.target, self.first = time.perf_counter(), 0.0, target, step
        names = " + ".join(type(t).__name__ for t in run.techniques)
        self.text = f"{names}: {target - step} steps"
        self.bar, self.line = W.HTML(tables.progress(step, target)), W.HTML()
        self.line.value = _line(headline(run))
        self.ui = W.VBox([style_part(), self.bar, self.line]).add_class("llmlab-bar")
        display(self)

    def step(self, run: Run, metrics: dict[str, float]) -> None:
        now = time.perf_counter()
        if now - self.drawn >= REDRAW or run.steps == self.target:
            self.drawn = now
            self.bar.value = tables.progress(run.steps, self.target, f", loss {metrics['loss']:.3f}")

    def evaluated(self, run: Run, metrics: dict[str, Any]) -> None:
        self.line.value = _line(f"step {metrics['step']}: {summary(metrics)}")

    def finish(self, run: Run) -> None:
        took = f"{run.steps - self.first} steps in {time.perf_counter() - self.began:.1f} s"
        stopped = f"{run.stopped} at step {run.steps}, the model is usable; " if run.stopped else ""
        measured = f": {summary(run.metrics)}" if run.metrics else ""
        self.line.value = _line(f"{stopped}{took}{measured}")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {**(self.ui._repr_mimebundle_() or {}), "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def _line(text: str) -> str:
    import html

    return f'<div class="llmlab-line">{html.escape(text)}</div>'

"""How a fit tells what it does: a bar in a terminal, a bar in a notebook, lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import Run


class Progress:
    """Silent; subclasses show something. The notebook panel is one too."""

    def start(self, run: Run, step: int, target: int) -> None:
        """A fit begins at `step` and will end at `target`."""

    def step(self, run: Run, metrics: dict[str, float]) -> None:
        """A step was taken."""

    def evaluated(self, run: Run, metrics: dict[str, Any]) -> None:
        """The validation set was measured."""

    def finish(self, run: Run) -> None:
        """The fit is over, also after an error."""


def summary(metrics: dict[str, Any]) -> str:
    """Measured numbers as one short line."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.3g}" if value >= 1000 else f"{name.replace('_', ' ')} {value:.3f}"
        for name, value in metrics.items()
        if name != "step" and isinstance(value, int | float)
    )


def headline(run: Run) -> str:
    """What a run is about to do, in one line."""
    table = run.parameters()
    names = " + ".join(type(t).__name__ for t in run.techniques)
    data = run.data.name if run.data else "no data"
    return (
        f"{names} on {data}: {table.trainable:,} of {table.total:,} parameters train "
        f"({table.share:.1%}), learning rate {run.learning_rate:g}"
    )


class Lines(Progress):
    """One line an evaluation, for logs."""

    def start(self, run: Run, step: int, target: int) -> None:
        self.began = time.perf_counter()
        self.say(headline(run))

    def evaluated(self, run: Run, metrics: dict[str, Any]) -> None:
        self.say(f"step {metrics['step']:>5}: {summary(metrics)}")

    def finish(self, run: Run) -> None:
        if run.stopped:
            self.say(f"{run.stopped} at step {run.steps}; the model is usable, fit() goes on from here")
        self.say(f"{run.steps} steps in {time.perf_counter() - self.began:.1f} s")

    def say(self, text: str) -> None:
        print(text, flush=True)


class Bar(Lines):
    """A rich progress bar with the loss, and a line an evaluation above it."""

    def start(self, run: Run, step: int, target: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.bar = RichProgress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        )
        self.task = self.bar.add_task("training", total=target, completed=step)
        self.bar.start()
        super().start(run, step, target)

    def step(self, run: Run, metrics: dict[str, float]) -> None:
        self.bar.update(self.task, completed=run.steps, description=f"loss {metrics['loss']:.3f}")

    def finish(self, run: Run) -> None:
        self.bar.stop()
        super().finish(run)

    def say(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)


def choose_progress(wanted: Progress | bool | None) -> Progress:
    """An explicit choice, or what suits the place: notebook, terminal, or a log."""
    if isinstance(wanted, Progress):
        return wanted
    if wanted is False:
        return Progress()
    if in_notebook():
        from .lab.progress import NotebookBar

        return NotebookBar()
    return Bar() if sys.stdout.isatty() else Lines() if wanted else Progress()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"

"""The right half of the panel: steps taken, the chart, what trains, measures; and the samples below."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as W

from . import measures, tables
from .parts import Quiet, box, html_part, shown
from .record import Record
from .session import Session


class Watching:
    """Shows a run, live or over, with those that the session has overlaid; a menu says what of them is drawn.

    1. Pictures follow the run by time, not by step, and drawing takes a tenth of the time at most.
    """

    def __init__(self, session: Session, pick: Callable[[Any], Any], do: Callable[..., None]) -> None:
        self.session, self._pick, self._do = session, pick, do
        self._quiet = Quiet()
        self.wanted: measures.View | None = None  # what somebody chose to see, where the runs have it
        self.menu = W.Dropdown(options=[("loss", measures.LOSS)], description="Chart", tooltip="What is drawn by step")
        self.menu.add_class("llmlab-inline").observe(self._picked, names="value")
        shown(self.menu, False)
        self.title, self.progress, self.chart = html_part("heads"), html_part("bars"), html_part("charts")
        self.share, self.measures, self.samples = html_part("shares"), html_part("measured"), html_part("sampled")
        self.ui = box("watch", self.progress, self.menu, self.chart, self.share, self.measures)
        self._drawn = self._cost = 0.0

    def restart(self) -> None:
        """The next picture is due at once."""
        self._drawn = self._cost = 0.0

    def head(self, text: str) -> None:
        """What the panel is about: the techniques."""
        self.title.value = f'<div class="llmlab-title" role="heading" aria-level="2">{html.escape(text)}</div>'

    def draw(self) -> None:
        """The chart alone: the overlaid runs and what runs now, or the run shown."""
        s = self.session
        others = [r for r in s.records if r.number in s.overlaid]
        last = s.last if s.last is not None and (s.runs or not others) else None
        self.chart.value = measures.html(
            last, others, s.training["steps"], self._view([*others, *([last] if last else [])])
        )

    def choose(self, measure: str | Sequence[str] | None) -> None:
        """Draw this measure, or these; None: what suits. ValueError if no run of the panel has it."""
        known = [*self.session.records, *([self.session.last] if self.session.last else [])]
        self.wanted = None if measure is None else measures.view(known, measure)
        self.draw()

    def _view(self, records: Sequence[Record]) -> measures.View:
        """What is drawn of these runs; the menu offers what else could be. A run that begins changes neither."""
        if records and not any(r.evaluations or r.history for r in records):
            return tuple(self.menu.value)
        offered = measures.views(records)
        known = {name for each in offered for name in each}
        view = self.wanted if self.wanted and known >= set(self.wanted) else measures.first(records)
        with self._quiet:
            options = [(measures.label(each), each) for each in [*offered, *([view] if view not in offered else [])]]
            if tuple(options) != tuple(self.menu.options):
                self.menu.options = options
            self.menu.value = view
            shown(self.menu, len(options) > 1)
        return view

    def _picked(self, change: Mapping[str, Any]) -> None:
        if not self._quiet:
            self._do(self._pick, change["new"])

    def count(self, table: Any) -> None:
        """What trains in the run that the choices make; None: being counted."""
        self.share.value = tables.parameters(*((table.trainable, table.total) if table else ()))

    def blank(self) -> None:
        """Nothing to show yet."""
        self.draw()
        self.progress.value = tables.progress(0, self.session.training["steps"])
        self.measures.value = self.samples.value = ""

    def show(self, record: Record, now: bool = True) -> None:
        """The run is where `record` says. `now`: there is more than a step to show; else do so when it is due."""
        since = time.monotonic() - self._drawn
        if not now and since < max(0.25, 9 * self._cost):
            return
        began = time.monotonic()
        self.draw()
        loss = f", loss {record.history[-1]['loss']:.2f}" if record.history else ""
        self.progress.value = tables.progress(record.steps, record.target, loss)
        self.measures.value = tables.measures(record.evaluations)
        if now:
            self.head(f"Replay of run {record.number}: {record.technique}" if record.replayed else record.technique)
            self.share.value = tables.parameters(record.trainable, record.total)
            self.samples.value = tables.samples(record.samples)
        self._drawn = time.monotonic()
        self._cost = self._drawn - began

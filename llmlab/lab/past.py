"""The panel's ledger: past runs as a table, which of them stand on the chart, and what can be done with one."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import ipywidgets as W

from . import chart, ledger
from .parts import Quiet, box, button, heading, html_part, shown
from .session import Session


class Actions(Protocol):
    """What clicks ask for: the panel itself."""

    def overlay(self, *numbers: int | None) -> Any: ...
    def show(self, number: int) -> Any: ...
    def restore(self, number: int) -> Any: ...
    def forget(self, number: int) -> Any: ...
    def save(self, folder: str, number: int | None = None) -> Any: ...
    def load(self, path: str) -> Any: ...
    def take(self, name: str, content: bytes) -> Any: ...


class Past:
    """One row a run: a box to tick for the chart, then the table. A menu says which run the buttons are about."""

    def __init__(self, session: Session, actions: Actions, replay: Callable[[int], Any], do: Callable[..., None]):
        self.session, self.actions = session, actions
        self._quiet, self._do = Quiet(), do
        self.menu = W.Dropdown(options=[("", 0)], description="Run", tooltip="The run that the buttons are about")
        self.menu.add_class("llmlab-inline").observe(self._picked, names="value")
        self.buttons = {
            text: button(text, tooltip, partial(self._about, action), "small")
            for text, tooltip, action in (
                ("Use these settings", "Choose in the panel what this run had", actions.restore),
                ("Replay", "Play this run again; nothing is trained", replay),
                ("Forget", "Take this run out of the table and free its model", actions.forget),
            )
        }
        self.files = button("", "Keep a run in a file, or take one from a file", partial(do, self._turn), "small")
        self.none = W.HTML(f"<span class='llmlab-none'>{ledger.EMPTY}</span>")
        self.head = box("row", heading("Past runs"), self.none, self.menu, *self.buttons.values(), self.files)
        self.boxes: dict[int, Any] = {}
        self.chart = W.HTML("<span aria-hidden='true'>chart</span>")
        self.ticks, self.table = W.VBox().add_class("llmlab-ticks"), html_part("rows")
        self.rows = box("past", self.ticks, self.table)
        self.path = W.Text(description="Folder or file", tooltip="Where to save this run, or what to load")
        self.path.add_class("llmlab-inline").add_class("llmlab-path")
        self.save = button("Save", "Write this run with its model to the folder", self._save, "small")
        self.load = button("Load", "Take the run in this folder or file into the table", self._load, "small")
        self.upload = W.FileUpload(description="Load a file", tooltip="Take a recording from your computer", icon="")
        self.upload.add_class("llmlab-small").observe(self._uploaded, names="value")
        self.link = html_part("link")
        self.keeping = box("row", self.path, self.save, self.load, self.link, self.upload)
        self.ui = box("runs", self.head, self.rows, self.keeping)
        self.open = True
        self._turn()

    def _turn(self) -> None:
        self.open = not self.open
        self.files.description = "Hide files" if self.open else "Save or load"
        shown(self.keeping, self.open)
        self._show_link()

    def _about(self, action: Callable[[int], Any]) -> None:
        self._do(action, self.menu.value)

    def _picked(self, change: Mapping[str, Any]) -> None:
        if not self._quiet and change["new"]:
            self._do(self.actions.show, change["new"])

    def _ticked(self, _: Any) -> None:
        if not self._quiet:
            ticked: list[int | None] = [number for number, tick in self.boxes.items() if tick.value]
            self._do(self.actions.overlay, *(ticked or [None]))

    def _save(self) -> None:
        self._do(lambda: self.actions.save(self._where(), self.menu.value or None))

    def _load(self) -> None:
        self._do(lambda: self.actions.load(self._where()))

    def _where(self) -> str:
        where = str(self.path.value).strip()
        if not where:
            raise ValueError("type a folder or a file first, such as runs/first")
        return where

    def _uploaded(self, change: Mapping[str, Any]) -> None:
        for file in change["new"]:
            self._do(self.actions.take, file["name"], bytes(file["content"]))
        if change["new"]:
            self.upload.value = ()  # so that the same file can be chosen again

    # -- showing -----------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Let the table, the boxes and the menu show what the session holds."""
        s = self.session
        with self._quiet:
            numbers = [r.number for r in s.records]
            for number in [*numbers, *self.boxes]:
                if number not in self.boxes:
                    self.boxes[number] = self._tick(number)
            self.boxes = {number: self.boxes[number] for number in numbers}
            for number, tick in self.boxes.items():
                tick.value = number in s.overlaid
            self.ticks.children = (self.chart, *self.boxes.values())
            chosen = s.last.number if s.last is not None and s.last.number in numbers else (numbers or [0])[-1]
            self.menu.options = [(f"{r.number}: {r.name}", r.number) for r in s.records] or [("", 0)]
            self.menu.value = chosen
            looks = chart.looks(s.overlaid)
            self.table.value = ledger.table([r.row() for r in s.records], chosen, lambda n: _look(looks.get(n)))
            shown(self.none, not numbers)
            for widget in (self.rows, self.menu, self.save, *self.buttons.values()):
                shown(widget, bool(numbers))
            self._show_link()

    def busy(self, on: bool) -> None:
        """While a run is under way no other one can be shown."""
        for widget in (self.menu, self.buttons["Replay"], self.buttons["Forget"]):
            widget.disabled = on

    def _tick(self, number: int) -> Any:
        made = W.Checkbox(description=f"Run {number} on the chart", tooltip="Draw this run on the chart", indent=False)
        made.add_class("llmlab-tick").observe(self._ticked, names="value")
        return made

    def _show_link(self) -> None:
        number = self.menu.value
        if not self.open or not number:
            self.link.value = ""
            return
        data = base64.b64encode(self.session.record(number).to_json().encode()).decode()
        address = f"data:application/json;base64,{data}"
        self.link.value = (
            f'<a class="llmlab-download" download="run-{number}.json" href="{address}">Download run {number}</a>'
        )


def _look(index: int | None) -> str:
    """A run's mark on the chart, in its colour."""
    if index is None:
        return ""
    colour, mark = chart.COLOURS[index % len(chart.COLOURS)], chart.MARKS[index % len(chart.MARKS)][1]
    return f'<span class="llmlab-look" aria-hidden="true" style="color: {colour}">{mark}</span>'

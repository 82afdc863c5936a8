"""The left half of the panel: techniques, their knobs, data and training, and why some cannot be chosen."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import ipywidgets as W

from ..technique import knobs
from ..training import Training
from .knobs import Knob
from .parts import Quiet, box, button, heading, html_part
from .plan import LAST, SCRATCH
from .session import Session

TRAINING = ("steps", "batch_size", "learning_rate")  # what of `Training` the panel offers
SHOWN = 2  # knobs of a technique that show at once
ON, OFF = "● ", "○ "  # the chosen objective, not told by colour alone
STARTS = {SCRATCH: "random weights", LAST: "the last run's model"}


class Actions(Protocol):
    """What clicks ask for: the panel itself."""

    def choose(self, technique: str, **knobs: Any) -> Any: ...
    def drop(self, technique: str) -> Any: ...
    def set(self, **choices: Any) -> Any: ...


class Choosing:
    """Widgets that show what the session holds; a user's change is passed to `do`, with the action to take."""

    def __init__(self, session: Session, actions: Actions, do: Callable[..., None]) -> None:
        self.session, self.actions = session, actions
        self._quiet = Quiet()
        self._do = lambda *given, **named: None if self._quiet else do(*given, **named)
        s, offered = session, session.offered
        self.objectives = {name: self._chip(name, cls) for name, cls in s.objectives.items()}
        self.toggles = {name: self._toggle(name, cls) for name, cls in s.additions.items()}
        self.reasons = {name: html_part("reason") for name in offered}
        self.about = html_part("about")
        self.knobs = {name: self._make_knobs(name, cls) for name, cls in offered.items()}
        self._groups = {name: Group([k.widget for k in made.values()]) for name, made in self.knobs.items()}
        self.data = W.Dropdown(options=list(s.data), description="Data", tooltip="What the model learns from")
        self.start = W.Dropdown(options=[("", "")], description="Start from", tooltip="The weights it starts with")
        fields = knobs(Training)
        self.training = {n: Knob(n, fields[n], self._trains, self.complain, s.training[n]) for n in TRAINING}
        for widget, what in ((self.data, "data"), (self.start, "start")):
            widget.add_class("llmlab-beside").observe(
                lambda change, what=what: self._do(actions.set, **{what: change["new"]}), names="value"
            )
        self.ui = box("choices", *self._parts())

    def _parts(self) -> Iterator[Any]:
        s = self.session
        yield box("row", heading("Objective"), box("chips", *self.objectives.values()))
        yield box("line", self.about, *(self._groups[name].more for name in s.objectives))
        yield from (self.reasons[name] for name in s.objectives)
        yield from (self._groups[name].ui for name in s.objectives)
        for title, offered in (("Adaptations", s.adaptations), ("Extras", s.extras)):
            if offered:
                yield heading(title)
            for name in offered:
                yield box("line", self.toggles[name], self._groups[name].more)
                yield self.reasons[name]
                yield self._groups[name].ui
        yield heading("Data and training")
        self.training["learning_rate"].widget.add_class("llmlab-wide")
        yield from (self.data, self.start)
        yield box("knobs", *(k.widget for k in self.training.values()))

    def _chip(self, name: str, cls: type) -> Any:
        return button(cls.__name__, summary(cls), lambda: self._do(self.actions.choose, name), "chip")

    def _toggle(self, name: str, cls: type) -> Any:
        made = W.Checkbox(description=cls.__name__, tooltip=summary(cls), indent=False).add_class("llmlab-toggle")

        def turned(change: Any) -> None:
            self._do(self.actions.choose if change["new"] else self.actions.drop, name)

        made.observe(turned, names="value")
        return made

    def _make_knobs(self, name: str, cls: type) -> dict[str, Knob]:
        def changed(knob: str, value: Any) -> None:
            self._do(lambda: self.actions.choose(name, **{knob: value}))

        given = self.session.knobs[name]
        return {k: Knob(k, field, changed, self.complain, given[k]) for k, field in knobs(cls).items()}

    def _trains(self, name: str, value: Any) -> None:
        self._do(self.actions.set, **{name: value})

    def complain(self, text: str) -> None:
        self.session.say(text)

    # -- showing -----------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Let every widget show what the session holds."""
        s = self.session
        with self._quiet:
            for name, chip in self.objectives.items():
                chosen = name == s.objective
                chip.description = (ON if chosen else OFF) + s.objectives[name].__name__
                (chip.add_class if chosen else chip.remove_class)("llmlab-chosen")
                self._grey(name, chip, chosen)
            self.about.value = html.escape(summary(s.objectives[s.objective]))
            for name, toggle in self.toggles.items():
                toggle.value = name in s.added
                self._grey(name, toggle, toggle.value)
            for name, group in self._groups.items():
                group.show((name == s.objective or name in s.added) and bool(self.knobs[name]))
                for k, shown in self.knobs[name].items():
                    shown.show(s.knobs[name][k])
            self.data.value = s.dataset
            self.show_starts()
            for k, shown in self.training.items():
                shown.show(s.training[k], s.rate if k == "learning_rate" else None)

    def show_starts(self) -> None:
        """Offer the starts there are now."""
        with self._quiet:  # new options move the choice to the first
            self.start.options = [(_start(name), name) for name in self.session.starts]
            self.start.value = self.session.start_from

    def _grey(self, name: str, widget: Any, chosen: bool) -> None:
        reason = self.session.reason(name)
        widget.disabled = reason is not None and not chosen
        self.reasons[name].value = html.escape(reason or "")
        self.reasons[name].layout.display = "" if reason else "none"


class Group:
    """Knobs in two columns; those beyond the first few wait behind the button `more`."""

    def __init__(self, widgets: list[Any]) -> None:
        self.ui = box("knobs", *widgets)
        self.rest = widgets[SHOWN:] if len(widgets) > SHOWN + 1 else []  # a button for one would save nothing
        self.more = button("", "The other knobs of this technique", self._turn, "more")
        self.open = True
        self._turn()

    def show(self, on: bool) -> None:
        self.ui.layout.display = "" if on else "none"
        self.more.layout.display = "" if on and self.rest else "none"

    def _turn(self) -> None:
        self.open = not self.open
        self.more.description = "Fewer" if self.open else f"{len(self.rest)} more"
        for widget in self.rest:
            widget.layout.display = "" if self.open else "none"


def _start(name: str) -> str:
    return STARTS.get(name, f"the model of {name}" if name.startswith("run ") else name)


def summary(cls: type) -> str:
    """The first line of a technique's description."""
    return (cls.__doc__ or "").strip().split("\n")[0]

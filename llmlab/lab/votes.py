"""`Votes` with buttons: a prompt, two answers side by side, and which is better; see `llmlab.votes` for the rest.

    votes = Votes(pairs, file="votes.jsonl", voter="Ada")
    votes                              # the panel, as the last line of a cell
    votes.vote("a")                    # the same from code
    votes.corpus()                     # for a reward model

1. A click that comes sooner than anybody can read is half of a double click, and is no vote.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ipywidgets as W

from .. import votes as core
from . import tables
from .parts import box, button, html_part, style_part

SOON = 0.25  # seconds
ANSWERS = (("a", "Answer A"), ("b", "Answer B"))


class Votes(core.Votes):
    """The votes of one person on some pairs, and a panel to give them; whatever goes wrong there is its status line."""

    _clicked = 0.0

    def __init__(self, *given: Any, **named: Any) -> None:
        self._ui: Any = None
        super().__init__(*given, **named)

    def _add(self, vote: core.Vote) -> None:
        super()._add(vote)
        if self._ui is not None:
            self._show()

    # -- the face ----------------------------------------------------------------------------------------------

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if self._ui is None:
            self._make()
        self._shown = time.monotonic()
        return {**(self._ui._repr_mimebundle_() or {}), "text/plain": self._text()}

    def _text(self) -> str:  # constant, so that a stored notebook compares equal
        return f"Votes({len(self.pairs)} pairs: a panel to say which answer is better, live in a running notebook)"

    def _make(self) -> None:
        self._clicks = threading.Lock()
        self._status, self._prompt = html_part("says"), html_part("asked")
        self._answers = {side: html_part("answer") for side, _ in ANSWERS}
        self._buttons = {
            name: button(text, tooltip, partial(self._pressed, action), *css)
            for name, text, tooltip, action, *css in (
                ("a", "A is better", "Answer A is the better one", partial(self.vote, "a"), "prefer"),
                ("b", "B is better", "Answer B is the better one", partial(self.vote, "b"), "prefer"),
                ("tie", "Tie", "Neither is better", partial(self.vote, "tie")),
                ("skip", "Skip", "Say nothing of this pair; it is not asked again", self.skip),
                ("undo", "Undo", "Take back your last vote", self.undo),
            )
        }
        title = W.HTML('<div class="llmlab-title" role="heading" aria-level="2">Which answer is better?</div>')
        self._ui = W.VBox(
            [
                style_part(),
                title,
                self._status,
                self._prompt,
                box("answers", *self._answers.values()),
                box("row", *self._buttons.values()),
            ]
        )
        self._ui.add_class("llmlab-lab").add_class("llmlab-votes")
        self._show()

    def _pressed(self, action: Callable[[], None]) -> None:
        with self._clicks:
            if time.monotonic() - self._clicked < SOON:
                return
            self._clicked = time.monotonic()
            try:
                action()
            except Exception as error:  # a callback's error shows nowhere
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                self._status.value = tables.status(f"Error: {first}")

    def _show(self) -> None:
        pair = self.current
        done = "" if pair or not self.pairs else "Done: "
        over = "" if pair else ". Every pair has a vote of yours." if self.pairs else ". There is no pair to judge."
        self._status.value = tables.status(f"{done}{self.progress}{over}")
        self._prompt.value = _text("Prompt", pair.prompt) if pair else ""
        for side, name in ANSWERS:
            self._answers[side].value = _text(name, getattr(pair, side)) if pair else ""
        for name, made in self._buttons.items():
            made.disabled = not self.undoable if name == "undo" else pair is None
        if pair is None and self.undoable:  # the button that was pressed is grey now, and loses the keyboard's focus
            self._buttons["undo"].focus()


def _text(name: str, text: str) -> str:
    """A text as it is, under its name."""
    head = f'<div class="llmlab-heading" role="heading" aria-level="3">{name}</div>'
    body = html.escape(text.strip()) or "<i>nothing</i>"
    return (
        f'<div class="llmlab-text" role="group" aria-label="{name}">{head}<div class="llmlab-words">{body}</div></div>'
    )

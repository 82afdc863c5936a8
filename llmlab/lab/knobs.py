"""A widget for a knob: its kind follows from the field's default, bounds and choices, its tooltip from the help.

1. No sliders: their values have no accessible name. A logarithmic number has buttons that halve and double it.
2. What nobody can type, such as a model or a function, shows as its name, in a field that takes no text.
3. A field does not clamp: a number out of bounds is refused in one line, where a smaller one would be a surprise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field
from typing import Any

import ipywidgets as W

from .memory import shown as told

Changed = Callable[[str, Any], None]
ROWS = 10  # lines of a text that show at once, at most


class Knob:
    """One hyper-parameter on the screen: `widget`, and `show` to set it without telling anyone.

    `changed(name, value)` is called when the user changes it; a text that is no number goes to `complain`.
    """

    def __init__(
        self, name: str, field: Field[Any], changed: Changed, complain: Callable[[str], None], value: Any
    ) -> None:
        self.name, self.field, self.changed, self.complain = name, field, changed, complain
        self.value: Any = value  # as shown last
        self.recommended: float | None = None
        self._quiet = False
        self.input = self._make()
        self.input.add_class("llmlab-knob")
        self.input.observe(self._heard, names="value")
        self.widget = self.input if not field.metadata["log"] else W.HBox([self.input, *self._steps()])
        if field.metadata["log"]:
            self.widget.add_class("llmlab-stepped")

    @property
    def _optional(self) -> bool:
        return self.field.default is None

    def _make(self) -> Any:
        field, meta = self.field, self.field.metadata
        shown: dict[str, Any] = {"description": label(self.name), "tooltip": meta["help"]}
        if meta["choices"] is not None:
            return W.Dropdown(options=list(meta["choices"]), value=self.value, **shown)
        if isinstance(field.default, bool):
            return W.Checkbox(value=self.value, indent=False, **shown)
        shown["continuous_update"] = False
        if isinstance(field.default, int):
            return W.IntText(value=self.value, **shown)
        lines = max(v.count("\n") + 1 for v in (field.default, self.value, "") if isinstance(v, str))
        if lines > 1:
            return W.Textarea(rows=min(ROWS, lines), **shown).add_class("llmlab-wide")
        return W.Text(**shown)  # floats as text: 0.003 stays 0.003, not 0.0

    def _steps(self) -> list[Any]:
        made = []
        for what, factor in (("halve", 0.5), ("double", 2.0)):  # the style sheet shows them as ÷2 and ×2
            words = f"{what.capitalize()} {label(self.name).lower()}"
            button = W.Button(description=words, tooltip=words).add_class("llmlab-step").add_class(f"llmlab-{what}")
            button.on_click(lambda _, f=factor: self._scale(f))
            made.append(button)
        return made

    def _scale(self, factor: float) -> None:
        low, high, now = self.field.metadata["low"], self.field.metadata["high"], self._read()
        now = self.recommended if now is None else now
        if now is None or now is _BAD:
            return
        whole = isinstance(self.field.default, int)
        new = max(1, round(now * factor)) if whole else float(f"{now * factor:.3g}")
        new = new if low is None else max(low, new)
        new = new if high is None else min(high, new)
        self.input.value = new if isinstance(self.input, W.IntText) else write(new)

    @property
    def _typed(self) -> bool:
        """Whether the value is typed as a text that stands for something else."""
        return isinstance(self.input, W.Text | W.Textarea) and not isinstance(self.field.default, str)

    def _read(self) -> Any:
        value = self.input.value
        if not self._typed:
            return value
        text, low = value.strip(), self.field.metadata["low"]
        if not text and self._optional:
            return None
        free = self._optional and low is None and self.field.metadata["high"] is None  # a number or a text
        whole = isinstance(low if self._optional else self.field.default, int) or (free and text.isdecimal())
        try:
            return int(text) if whole else float(text.replace(",", "."))
        except ValueError:
            return text if free else _BAD

    def _heard(self, _: Any) -> None:
        if self._quiet:
            return
        value = self._read()
        if value is _BAD:
            wrong = self.input.value
            self.show(self.value, self.recommended)
            self.complain(f"Error: {label(self.name).lower()} {wrong!r} is no number; it stays as it was.")
        else:
            self.changed(self.name, value)

    def show(self, value: Any, recommended: float | None = None) -> None:
        """Show a value; `recommended` stands in grey where none is given."""
        self._quiet, self.value, self.recommended = True, value, recommended
        try:
            held = not (value is None or isinstance(value, bool | int | float | str))
            self.input.disabled = held
            if held:
                self.input.add_class("llmlab-wide")
            self.input.value = told(value) if held else write(value) if self._typed else value
            if recommended is not None:
                self.input.placeholder = f"{write(recommended)} (recommended)"
        finally:
            self._quiet = False


_BAD = object()


def label(name: str) -> str:
    """Words for a field: "batch_size" -> "Batch size"."""
    return name.replace("_", " ").capitalize()


def write(value: float | str | None) -> str:
    """A number as a person would type it; nothing for None."""
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"

"""A widget for a knob: its kind follows from the field's default, bounds and choices, its tooltip from the help.

1. No sliders: their values have no accessible name. A logarithmic number has buttons that halve and double it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field
from typing import Any

import ipywidgets as W

Changed = Callable[[str, Any], None]


class Knob:
    """One hyper-parameter on the screen: `widget`, and `show` to set it without telling anyone.

    `changed(name, value)` is called when the user changes it; a text that is no number goes to `complain`.
    """

    def __init__(self, name: str, field: Field[Any], changed: Changed, complain: Callable[[str], None]) -> None:
        self.name, self.field, self.changed, self.complain = name, field, changed, complain
        self.value: Any = field.default  # as shown last
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
        shown: dict[str, Any] = {"description": label(self.name), "tooltip": meta["help"], "continuous_update": False}
        low, high = meta["low"], meta["high"]
        if meta["choices"] is not None:
            shown.pop("continuous_update")
            return W.Dropdown(options=list(meta["choices"]), value=field.default, **shown)
        if isinstance(field.default, bool):
            shown.pop("continuous_update")
            return W.Checkbox(value=field.default, indent=False, **shown)
        if self._optional or isinstance(field.default, str | float):  # floats as text: 0.003 stays 0.003, not 0.0
            return W.Text(value=write(field.default), **shown)  # type: ignore[arg-type]
        most = 2**31 - 1
        bounds = {"min": -most if low is None else low, "max": most if high is None else high}
        return W.BoundedIntText(value=field.default, **bounds, **shown)

    def _steps(self) -> list[Any]:
        made = []
        for text, factor, what in (("÷2", 0.5, "Halve"), ("×2", 2.0, "Double")):
            button = W.Button(description=text, tooltip=f"{what} {label(self.name).lower()}")
            button.add_class("llmlab-step").on_click(lambda _, f=factor: self._scale(f))
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
        self.input.value = new if isinstance(self.input, W.BoundedIntText) else write(new)

    def _read(self) -> Any:
        value = self.input.value
        if not isinstance(self.input, W.Text) or isinstance(self.field.default, str):
            return value
        text = value.strip().replace(",", ".")
        if not text and self._optional:
            return None
        try:
            whole = isinstance(self.field.default if not self._optional else self.field.metadata["low"], int)
            return int(text) if whole else float(text)
        except ValueError:
            return _BAD

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
            text = isinstance(self.input, W.Text) and not isinstance(self.field.default, str)
            self.input.value = write(value) if text else value
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

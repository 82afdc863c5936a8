"""Small pieces that the panel is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ipywidgets as W


class Quiet(threading.local):
    """`with quiet:` while values are shown that no user chose; true for that thread alone."""

    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1

    def __bool__(self) -> bool:
        return self.depth > 0


@cache
def style() -> str:
    """The one style sheet, as HTML."""
    return f"<style>{(Path(__file__).parent / 'style.css').read_text(encoding='utf-8')}</style>"


def style_part() -> Any:
    """The style sheet as a part that takes no room."""
    return W.HTML(style()).add_class("llmlab-style")


def box(name: str, *children: Any) -> Any:
    """Parts that the style sheet lays out as "llmlab-" and `name`."""
    return W.Box(list(children)).add_class(f"llmlab-{name}")


def html_part(name: str) -> Any:
    """An empty part to fill with HTML."""
    return W.HTML().add_class(f"llmlab-{name}")


def heading(text: str, level: int = 3) -> Any:
    """A heading, which the notebook's own styles do not know for one."""
    return W.HTML(f'<div class="llmlab-heading" role="heading" aria-level="{level}">{text}</div>')


def button(text: str, tooltip: str, clicked: Callable[[], Any], *names: str) -> Any:
    """A button; `names` are its classes."""
    made = W.Button(description=text, tooltip=tooltip)
    made.on_click(lambda _: clicked())
    for name in names:
        made.add_class(f"llmlab-{name}")
    return made


def shown(widget: Any, on: bool) -> None:
    """Show a part or take it off the page."""
    widget.layout.display = "" if on else "none"

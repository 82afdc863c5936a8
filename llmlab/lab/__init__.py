"""The notebook face: a panel to choose, run and watch techniques. The only part that imports ipywidgets and matplotlib.

    from llmlab import Lab

    lab = Lab(objectives=["clm", "sft"], adaptations=["lora"], data=["tinytown:qa"])
    lab                                # the panel
    lab.choose("lora", rank=4)         # the same from code
    lab.run().metrics

Without a widget: `plan` is one run as data, `choices` what is offered and chosen, `work` one training run, `record` all
that was seen of it, `replay` plays that again, `session` holds the runs together. The face, `panel`, is made of
`choosing`, `watching` and `past`, of `knobs`, `chart`, `measures`, `tables` and `ledger`; `style.css` is how it looks.
`progress` is the bar of `run.fit()` in a notebook.

`votes` asks people which of two answers is better. `checking` and `exercises/` tell a student whether an exercise is
solved; `source` shows a technique's own code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checking import check as check
    from .checking import exercise as exercise
    from .panel import Lab as Lab
    from .source import show_source as show_source
    from .votes import Votes as Votes

_HOMES = {"Lab": "panel", "check": "checking", "exercise": "checking", "show_source": "source", "Votes": "votes"}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:  # imported on first use, as in llmlab itself
        raise AttributeError(f"llmlab.lab has no {name!r}: it has {', '.join(__all__)}")
    globals()[name] = value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value

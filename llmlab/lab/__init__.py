"""The notebook face: a panel to choose, run and watch techniques. The only part that imports ipywidgets and matplotlib.

    from llmlab import Lab

    lab = Lab(objectives=["clm", "sft"], adaptations=["lora"], data=["tinytown:qa"])
    lab                                # the panel
    lab.choose("lora", rank=4)         # the same from code
    lab.run().metrics

`plan` is one run as data, `session` what is offered, chosen and running, neither with a widget; `panel` is the face,
made of `knobs`, `chart` and `tables`; `style.css` is how it looks. `progress` is the bar of `run.fit()` in a notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .panel import Lab as Lab

__all__ = ["Lab"]


def __getattr__(name: str) -> Any:
    if name != "Lab":  # imported on first use, as in llmlab itself
        raise AttributeError(f"llmlab.lab has no {name!r}: it has Lab")
    from .panel import Lab

    globals()[name] = Lab
    return Lab

"""The loss curve as a picture: training loss faint and smoothed, validation points, and the floor if it is known.

1. Drawn with `Figure` alone, never pyplot, whose state is shared by threads.
2. The colours are Okabe and Ito's (2008), which colour-blind people can tell apart; line styles and marks differ too.
"""

from __future__ import annotations

import base64
import html
import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from ..run import Run

BLUE, SKY, ORANGE, GREEN, INK, GREY = "#0072B2", "#56B4E9", "#D55E00", "#00785A", "#1f2430", "#5b6270"
SIZE, DPI = (6.4, 3.9), 150  # inches, and points so many that a projector shows them sharply
_drawing = threading.Lock()  # matplotlib's font caches are shared


@dataclass
class Curve:
    """What a run has to show: losses by step, the validation set's, its floor, and where the run will end."""

    steps: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    measured_at: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    floor: float | None = None
    end: int = 0

    @classmethod
    def of(cls, run: Run) -> Curve:
        history, found = list(run.history), [e for e in list(run.evaluations) if "loss" in e]
        return cls(
            [row["step"] for row in history],
            [row["loss"] for row in history],
            [e["step"] for e in found],
            [e["loss"] for e in found],
            next((e["floor"] for e in reversed(found) if "floor" in e), None),
            run.steps if run.stopped else max(run.training.steps, run.steps),
        )

    def describe(self) -> str:
        """The picture in words, for those who cannot see it."""
        if not self.losses:
            return "Loss by step: an empty chart, nothing has been trained yet."
        said = f"Loss by step: training loss from {self.losses[0]:.2f} to {smooth(self.losses)[-1]:.2f} in "
        said += f"{len(self.losses)} steps"
        if self.measured:
            said += f"; validation loss from {self.measured[0]:.2f} to {self.measured[-1]:.2f}"
        return said + (f"; floor {self.floor:.2f}." if self.floor is not None else ".")


def smooth(losses: Sequence[float], share: float = 0.04) -> list[float]:
    """The mean of each point and its neighbours, as many on either side, so that the curve does not lag behind."""
    reach, out = max(1, round(share * len(losses))), []
    for i in range(len(losses)):
        r = min(reach, i)
        near = losses[i - r : i + r + 1]
        out.append(sum(near) / len(near))
    return out


def png(curve: Curve, title: str = "", hint: str = "Press Run to train") -> bytes:
    """The curve as a PNG picture."""
    with _drawing:
        figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained", facecolor="white")
        axes = figure.subplots()
        _dress(axes, title)
        _draw(axes, curve, hint)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def image(curve: Curve, title: str = "") -> str:
    """The curve as an HTML picture with a text in its place for screen readers."""
    data = base64.b64encode(png(curve, title)).decode()
    return f'<img class="llmlab-chart" src="data:image/png;base64,{data}" alt="{html.escape(curve.describe())}">'


def _draw(axes: Any, curve: Curve, hint: str) -> None:
    axes.set_xlim(0, max(1, curve.end))
    if curve.floor is not None:
        axes.axhline(curve.floor, color=GREEN, linewidth=2, linestyle=(0, (6, 2, 1, 2)), zorder=2)
        axes.annotate(
            f"floor {curve.floor:.2f}",
            (0, curve.floor),  # on the left: a good model's curve comes close on the right
            xycoords=("axes fraction", "data"),
            xytext=(5, 4),
            textcoords="offset points",
            color=GREEN,
            fontsize=12,
        )
    if curve.losses:
        axes.plot(curve.steps, curve.losses, color=SKY, alpha=0.6, linewidth=1.2, zorder=3)
        axes.plot(curve.steps, smooth(curve.losses), color=BLUE, linewidth=2.8, label="training", zorder=4)
    if curve.measured:
        style = dict(
            color=ORANGE, linestyle=(0, (4, 2)), marker="o", markersize=7, markeredgecolor="white", clip_on=False
        )
        axes.plot(curve.measured_at, curve.measured, linewidth=1.8, label="validation", zorder=5, **style)
        flat = curve.measured[-1] > 0.55 * max(*curve.losses, *curve.measured, 0.0)  # then the lower corner is free
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 0.12)} if flat else {"loc": "upper right"}
        axes.legend(frameon=False, fontsize=13, labelcolor=INK, handlelength=2.6, **place)
    if not curve.losses and not curve.measured:
        axes.set_yticks([])
        axes.set_ylabel("")
        axes.text(0.5, 0.5, hint, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=15)
        return
    top = max([*curve.losses, *curve.measured])
    lowest = min([*curve.losses, *curve.measured, *([curve.floor] if curve.floor is not None else [])])
    room = 0.06 * (top - min(lowest, 0.0) or 1.0)
    axes.set_ylim(min(0.0, lowest) - (room if lowest <= 0.02 * top else 0.0), top + room)


def _dress(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=13, color=INK, loc="left", pad=8)
    axes.set_xlabel("step", fontsize=13, color=INK)
    axes.set_ylabel("loss (nats a token)", fontsize=13, color=INK)
    axes.tick_params(labelsize=12, colors=GREY, length=0)
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    axes.yaxis.get_major_locator().set_params(nbins=6)
    axes.grid(axis="y", color="#e3e6ec", linewidth=1)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#aab0bc")

"""The loss curve as a picture: training loss faint and smoothed, validation points, and the floor if it is known.

1. Drawn with `Figure` alone, never pyplot, whose state is shared by threads.
2. The colours are Okabe and Ito's (2008), which colour-blind people can tell apart; line styles and marks differ too.
"""

from __future__ import annotations

import base64
import html
import io
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from ..run import Run
    from .record import Record

BLUE, SKY, ORANGE, GREEN, INK, GREY = "#0072B2", "#56B4E9", "#D55E00", "#00785A", "#1f2430", "#5b6270"
SIZE, DPI = (5.4, 3.3), 180  # inches, and points so many that a projector shows them sharply
ROW = 0.27  # inches of a line of the legend below a chart of several runs
SMALL, LARGE = 13, 14  # points: 15 pixels or more where the panel is narrow
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")  # Okabe and Ito's
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))
MARKS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"), ("X", "✖"))
LONGEST = 46  # letters of a name in the legend
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
    measures: dict[str, tuple[list[float], list[float]]] = field(
        default_factory=dict
    )  # what else was measured, by name

    @classmethod
    def of(cls, run: Run | Record) -> Curve:
        """The curve of a run, or of what was seen of one."""
        history, evaluations = list(run.history), list(run.evaluations)
        found = [e for e in evaluations if e.get("loss") is not None]
        end = getattr(run, "end", None)
        if end is None:
            end = run.steps if run.stopped else max(run.training.steps, run.steps)  # type: ignore[union-attr]
        return cls(
            [row["step"] for row in history],
            [row["loss"] for row in history],
            [e["step"] for e in found],
            [e["loss"] for e in found],
            next((e["floor"] for e in reversed(found) if e.get("floor") is not None), None),
            end,
            _measures(evaluations),
        )

    @property
    def unit(self) -> str:
        """What the loss is counted in, as far as it is known: perplexity is told of tokens alone."""
        return "loss (nats a token)" if "perplexity" in self.measures or not self.measures else "loss"

    def describe(self) -> str:
        """The picture in words, for those who cannot see it."""
        if not self.losses:
            return "Loss by step: an empty chart, nothing has been trained yet."
        said = f"Loss by step: training loss from {self.losses[0]:.2f} to {smooth(self.losses)[-1]:.2f} in "
        said += f"{len(self.losses)} steps"
        if self.measured:
            said += f"; validation loss from {self.measured[0]:.2f} to {self.measured[-1]:.2f}"
        return said + (f"; floor {self.floor:.2f}." if self.floor is not None else ".")


def _measures(evaluations: Iterable[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of every number that evaluations found, but for the loss and its floor."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in evaluations:
        for name, value in row.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and math.isfinite(value) and name not in ("step", "loss", "floor"):
                steps, values = found.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(value)
    return found


def smooth(losses: Sequence[float], share: float = 0.04) -> list[float]:
    """The mean of each point and its neighbours, as many on either side, so that the curve does not lag behind."""
    reach, out = max(1, round(share * len(losses))), []
    for i in range(len(losses)):
        r = min(reach, i)
        near = losses[i - r : i + r + 1]
        out.append(sum(near) / len(near))
    return out


@dataclass
class Line:
    """One of several runs on a chart; `index` says how it looks, see `looks`."""

    number: int
    name: str
    curve: Curve
    index: int = 0

    @property
    def colour(self) -> str:
        return COLOURS[self.index % len(COLOURS)]


def looks(numbers: Iterable[int]) -> dict[int, int]:
    """An index into colours, dashes and marks for each run: its own number's where no other run has that."""
    found: dict[int, int] = {}
    for number in sorted(numbers):
        index = (number - 1) % len(COLOURS)
        free = [i % len(COLOURS) for i in range(index, index + len(COLOURS)) if i % len(COLOURS) not in found.values()]
        found[number] = free[0] if free else number - 1  # with so many, mark and dashes tell them apart
    return found


def lines(records: Iterable[Record]) -> list[Line]:
    """Runs to draw on one chart, in the order of their numbers."""
    records = sorted(records, key=lambda r: r.number)
    index = looks(r.number for r in records)
    told: dict[int, str] = {r.number: r.name for r in records}
    if len({r.dataset for r in records}) > 1:
        told = {r.number: f"{told[r.number]} on {r.dataset}" for r in records}
    for more in (lambda r: f" from {r.start}", _settings(records)):  # no longer than it takes to tell the runs apart
        if len(set(told.values())) < len(records) and len({more(r) for r in records}) > 1:
            told = {r.number: told[r.number] + more(r) for r in records}
    return [Line(r.number, told[r.number], Curve.of(r), index[r.number]) for r in records]


def _settings(records: Sequence[Record]) -> Callable[[Record], str]:
    """What tells a run's settings from the others', such as ", learning rate 0.003"."""
    kept = {r.number: {**r.choices.get("training", {}), "seed": r.choices.get("seed")} for r in records}
    names = [n for n in next(iter(kept.values()), {}) if len({str(k.get(n)) for k in kept.values()}) > 1]

    def said(r: Record) -> str:
        values = ((n.replace("_", " "), kept[r.number].get(n)) for n in names)
        return "".join(f", {n} {'recommended' if v is None else v}" for n, v in values)

    return said


def describe(drawn: Sequence[Line]) -> str:
    """Several runs on one chart, in words."""
    if not drawn:
        return Curve().describe()
    return " ".join(f"Run {line.number}, {line.name}. {line.curve.describe()}" for line in drawn)


def png(curve: Curve, title: str = "", hint: str = "Press Run to train") -> bytes:
    """The curve as a PNG picture."""
    return _picture(lambda axes: _draw(axes, curve, hint), title)


def overlaid(drawn: Sequence[Line], title: str = "") -> bytes:
    """Several runs as one PNG picture, a line a run below it."""
    return _picture(lambda axes: _draw_all(axes, drawn), title, height(len(drawn)))


def height(runs: int) -> float:
    """Inches that a chart of so many runs needs."""
    return SIZE[1] + ROW * runs * (runs > 1)


def _picture(draw: Callable[[Any], None], title: str, inches: float = SIZE[1]) -> bytes:
    def dressed(figure: Figure) -> None:
        axes = figure.subplots()
        dress(axes, title, Curve().unit)
        draw(axes)

    return paint(dressed, inches)


def paint(draw: Callable[[Figure], None], inches: float = SIZE[1]) -> bytes:
    """What `draw` puts on a figure, as a PNG picture."""
    with _drawing:
        figure = Figure(figsize=(SIZE[0], inches), dpi=DPI, layout="constrained", facecolor="white")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def image(picture: bytes, alt: str, inches: float = SIZE[1]) -> str:
    """A picture as HTML with a text in its place for screen readers; it takes its room before it is there."""
    data, shape = base64.b64encode(picture).decode(), f"aspect-ratio: {SIZE[0]} / {inches:.2f}"
    alt = html.escape(alt)
    return f'<img class="llmlab-chart" style="{shape}" src="data:image/png;base64,{data}" alt="{alt}">'


def chart(shown: Record | None, others: Sequence[Record] = (), steps: int = 0) -> str:
    """The chart of one run, with `others` overlaid, as HTML; without a run, an empty one for `steps`."""
    if others and shown is not None:
        drawn = lines([*(r for r in others if r.number != shown.number), shown])
    else:
        drawn = lines(others)
    if len(drawn) > 1:
        title = shown.title if shown is not None and shown.replayed else ""
        return image(overlaid(drawn, title), describe(drawn), height(len(drawn)))
    shown = shown or (others[0] if others else None)
    curve = Curve.of(shown) if shown else Curve(end=steps)
    told = f"{shown.title}. " if shown is not None and shown.replayed else ""
    return image(png(curve, shown.title if shown else ""), told + curve.describe())


def _draw_all(axes: Any, drawn: Sequence[Line]) -> None:
    axes.set_xlim(0, max([1, *(line.curve.end for line in drawn)]))
    axes.set_ylabel(next((c.unit for c in (line.curve for line in drawn) if c.unit == "loss"), Curve().unit))
    top, lowest, ends = 0.0, 0.0, []
    for floor in dict.fromkeys(line.curve.floor for line in drawn):
        if floor is not None:
            _draw_floor(axes, floor, [line.curve for line in drawn])
            lowest = min(lowest, floor)
    for line in drawn:
        curve, index = line.curve, line.index
        look = dict(color=line.colour, linestyle=DASHES[index % len(DASHES)], label=legend(line))
        mark = dict(marker=MARKS[index % len(MARKS)][0], markersize=8, markeredgecolor="white", clip_on=False)
        if curve.losses and curve.measured:
            axes.plot(curve.steps, smooth(curve.losses), color=line.colour, alpha=0.35, linewidth=1.4, zorder=3)
        if curve.measured:
            axes.plot(curve.measured_at, curve.measured, linewidth=2.4, zorder=5, **look, **mark)
        else:
            every = max(1, len(curve.steps) // 6)
            axes.plot(curve.steps, smooth(curve.losses), linewidth=2.4, zorder=5, markevery=every, **look, **mark)
        x, y = (curve.measured_at, curve.measured) if curve.measured else (curve.steps, smooth(curve.losses))
        known = [v for v in [*curve.losses, *curve.measured] if math.isfinite(v)]
        top, lowest = max([top, *known]), min([lowest, *known])
        if y and math.isfinite(y[-1]):
            ends.append((y[-1], x[-1], line))
    room = 0.06 * (top - lowest or 1.0)
    axes.set_ylim(lowest, top + room)
    number_ends(axes, ends, gap=0.085 * (top + room - lowest))
    if len(drawn) > 1:
        below = axes.figure.legend(loc="outside lower left", frameon=False, fontsize=SMALL, labelcolor=INK, ncols=1)
        for text in below.get_texts():
            text.set_parse_math(False)


def number_ends(axes: Any, ends: list[tuple[float, float, Line]], gap: float) -> None:
    """Each run's number beside the end of its curve; where two end close together the upper one moves up."""
    last: float | None = None
    for y, x, line in sorted(ends, key=lambda end: end[:2]):
        y = y if last is None else max(y, last + gap)
        last = y
        axes.annotate(
            str(line.number),
            (x, y),
            xytext=(11, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=SMALL,
            fontweight="bold",
            color=INK,
            annotation_clip=False,
            bbox=dict(boxstyle="round,pad=0.18", facecolor="white", edgecolor=line.colour, linewidth=1.8),
            zorder=7,
        )


def legend(line: Line) -> str:
    """A run's line in the legend."""
    name = line.name if len(line.name) <= LONGEST else line.name[: LONGEST - 2] + " …"
    return f"{line.number}  {name}"


def _draw_floor(axes: Any, floor: float, curves: Sequence[Curve]) -> None:
    """The floor's line, and its name where the curves leave most room above it."""
    axes.axhline(floor, color=GREEN, linewidth=2, linestyle=(0, (6, 2, 1, 2)), zorder=2)
    end = max(1, *(curve.end for curve in curves))
    points = [
        (x / end, y)
        for c in curves
        for x, y in (*zip(c.steps, c.losses, strict=True), *zip(c.measured_at, c.measured, strict=True))
    ]

    def room(left: float) -> float:
        return min((y - floor for x, y in points if left - 0.03 <= x <= left + 0.25), default=math.inf)

    axes.annotate(
        f"floor {floor:.2f}",
        (max((0.0, 0.4, 0.75), key=room), floor),
        xycoords=("axes fraction", "data"),
        xytext=(5, 4),
        textcoords="offset points",
        color=GREEN,
        fontsize=SMALL,
    )


def _draw(axes: Any, curve: Curve, hint: str) -> None:
    axes.set_xlim(0, max(1, curve.end))
    axes.set_ylabel(curve.unit)
    if curve.floor is not None:
        _draw_floor(axes, curve.floor, [curve])
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
        axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, handlelength=2.6, **place)
    if not curve.losses and not curve.measured:
        axes.set_yticks([])
        axes.set_ylabel("")
        axes.text(0.5, 0.5, hint, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=LARGE)
        return
    known = [v for v in [*curve.losses, *curve.measured] if math.isfinite(v)] or [1.0]
    top, lowest = max(known), min([*known, *([curve.floor] if curve.floor is not None else [])])
    room = 0.06 * (top - min(lowest, 0.0) or 1.0)
    axes.set_ylim(min(0.0, lowest) - (room if lowest <= 0.02 * top else 0.0), top + room)


def dress(axes: Any, title: str, counted: str) -> None:
    """Axes as all charts have them; `counted` says what stands on the y-axis."""
    axes.set_title(title, fontsize=LARGE, color=INK, loc="left", pad=8, parse_math=False)
    axes.set_xlabel("step", fontsize=SMALL, color=INK)
    axes.set_ylabel(counted, fontsize=SMALL, color=INK)
    axes.tick_params(labelsize=SMALL, colors=GREY, length=0)
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    axes.yaxis.get_major_locator().set_params(nbins=6)
    axes.grid(axis="y", color="#e3e6ec", linewidth=1)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#aab0bc")

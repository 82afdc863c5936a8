"""Measures over steps: which of them a chart shows, beside or instead of the loss, and how they are drawn.

1. A reward that training asks for (score) is a solid line, the judge that it never sees (gold) a dashed one with other
   marks; how far the model has moved (KL) has a smaller axis of its own below, with the same steps.
2. One run: a colour a measure. Several: a colour and mark a run, and of two measures the second is dashed and hollow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from . import chart
from .chart import BLUE, GREEN, GREY, INK, LARGE, MARKS, ORANGE, ROW, SIZE, SMALL, Curve, Line
from .tables import number, words

if TYPE_CHECKING:
    from .record import Record

View = tuple[str, ...]
LOSS: View = ("loss",)
PROXY, GOLD, BELOW = "score", "gold", "kl"
LOOKS: tuple[tuple[str, Any, str], ...] = ((BLUE, "-", "o"), (ORANGE, (0, (5, 2)), "s"))  # of the measures of one run
DRIFT: tuple[str, Any, str] = (GREEN, (0, (6, 2, 1, 2)), "^")
LOWER = 1.15  # inches of the axis below


# -- which -------------------------------------------------------------------------------------------------------


def views(records: Iterable[Record]) -> list[View]:
    """What a chart of these runs may show: the loss, score and gold together, and each measure alone."""
    known = list(dict.fromkeys(name for r in records for name in Curve.of(r).measures))
    both = [(PROXY, GOLD)] if PROXY in known and GOLD in known else []
    return [LOSS, *both, *((name,) for name in known)]


def first(records: Sequence[Record]) -> View:
    """What suits these runs: the loss, unless none of those that were measured has one of the validation set."""
    curves = [curve for curve in map(Curve.of, records) if curve.measured or curve.measures]
    if not curves or any(curve.measured for curve in curves):
        return LOSS
    offered = views(records)
    return next((v for v in offered if v[0] == PROXY), offered[1])


def view(records: Sequence[Record], wanted: str | Sequence[str] | None) -> View:
    """What to draw: `wanted`, a measure or two, or what suits if that is None. ValueError names what there is."""
    if wanted is None:
        return first(records)
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    known = [v[0] for v in views(records) if len(v) == 1]
    for name in names:
        if name not in known:
            raise ValueError(f"no run here measured {name!r}: there are {', '.join(known)}")
    if not 0 < len(names) <= len(LOOKS) or (len(names) > 1 and LOSS[0] in names):
        raise ValueError(f"a chart shows the loss, one measure or two, not {' and '.join(names) or 'none'}")
    return names


def label(shown: View) -> str:
    """A view in words: "score and gold"."""
    return " and ".join(map(words, shown))


# -- as pictures -------------------------------------------------------------------------------------------------


def html(shown: Record | None, others: Sequence[Record], steps: int, what: View) -> str:
    """The chart of one run, with `others` overlaid; without a run, an empty one for `steps`."""
    if what == LOSS:
        return chart.chart(shown, others, steps)
    records = [*(r for r in others if shown is None or r.number != shown.number), *([shown] if shown else [])]
    replayed = shown is not None and shown.replayed
    title = shown.title if shown is not None and (replayed or len(records) == 1) else _title(records)
    drawn = chart.lines(records)
    told = f"{title}. " if replayed else ""
    return chart.image(png(drawn, what, title), told + describe(drawn, what), _inches(drawn, what))


def still(records: Sequence[Record], what: View) -> tuple[bytes, str]:
    """The chart of some runs as a PNG, and in words."""
    drawn = chart.lines(records)
    if what != LOSS:
        return png(drawn, what, _title(records)), describe(drawn, what)
    if len(records) > 1:
        return chart.overlaid(drawn), chart.describe(drawn)
    curve = Curve.of(records[0]) if records else Curve()
    return chart.png(curve, _title(records)), curve.describe()


def _title(records: Sequence[Record]) -> str:
    return records[0].title if len(records) == 1 else ""


def describe(drawn: Sequence[Line], what: View) -> str:
    """The picture in words, for those who cannot see it."""
    names = [*what, *_below(drawn, what)]
    of = label(what)[0].upper() + label(what)[1:]
    told = [f"{of} by step: {_told(line.curve, names)}." for line in drawn]
    if len(drawn) == 1:
        return told[0]
    return " ".join(f"Run {line.number}, {line.name}. {words}" for line, words in zip(drawn, told, strict=True))


def _told(curve: Curve, names: Sequence[str]) -> str:
    return "; ".join(_path(name, *curve.measures.get(name, ([], []))) for name in names)


def _path(name: str, steps: Sequence[float], values: Sequence[float]) -> str:
    if not values:
        return f"{words(name)} was not measured"
    said = f"{words(name)} from {number(values[0])} to {number(values[-1])} in {len(values)} evaluations"
    best = max(range(len(values)), key=lambda i: values[i])
    inside = name != BELOW and 0 < best < len(values) - 1
    return said + (f", highest {number(values[best])} at step {steps[best]:.0f}" if inside else "")


def _below(drawn: Sequence[Line], what: View) -> list[str]:
    """What has an axis of its own below."""
    moved = any(BELOW in line.curve.measures for line in drawn)
    return [BELOW] if moved and {PROXY, GOLD} & set(what) and BELOW not in what else []


def _entries(drawn: Sequence[Line], what: View) -> int:
    """Lines of the legend."""
    several = len(drawn) > 1
    return (len(drawn) + len(what) * (len(what) > 1)) if several else int(len(what) > 1)


def _inches(drawn: Sequence[Line], what: View) -> float:
    return SIZE[1] + LOWER * bool(_below(drawn, what)) + ROW * _entries(drawn, what)


def png(drawn: Sequence[Line], what: View, title: str = "") -> bytes:
    """Measures of one run or several as a PNG picture."""
    below = _below(drawn, what)

    def draw(figure: Any) -> None:
        if below:
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        else:
            upper = lower = figure.subplots()
        chart.dress(upper, title, label(what))
        upper.set_xlim(0, max([1, *(line.curve.end for line in drawn)]))
        _draw(upper, drawn, what)
        if below:
            chart.dress(lower, "", words(BELOW))
            lower.yaxis.get_major_locator().set_params(nbins=3)
            upper.set_xlabel("")
            _draw(lower, drawn, (BELOW,), numbered=False)
            if _lowest(drawn) >= 0:
                lower.set_ylim(bottom=0.0)
        _legend(upper, drawn, what)

    return chart.paint(draw, _inches(drawn, what))


def _lowest(drawn: Sequence[Line]) -> float:
    return min((v for line in drawn for v in line.curve.measures.get(BELOW, ([], []))[1]), default=0.0)


def _draw(axes: Any, drawn: Sequence[Line], what: View, numbered: bool = True) -> None:
    ends = []
    for line in drawn:
        for i, name in enumerate(what):
            steps, values = line.curve.measures.get(name, ([], []))
            if values:
                every = max(1, len(values) // 10)
                axes.plot(steps, values, markevery=every, clip_on=False, zorder=5, **_look(line, i, drawn, what))
                if numbered and i == len(what) - 1 and len(drawn) > 1:
                    ends.append((values[-1], steps[-1], line))
    if not axes.lines:
        axes.set_yticks([])
        axes.set_ylabel("")
        axes.text(0.5, 0.5, "Not measured yet", transform=axes.transAxes, ha="center", color=GREY, fontsize=LARGE)
    axes.tick_params(axis="y", pad=9)  # marks at step 0 reach over the axis
    axes.margins(y=0.1)
    low, high = axes.get_ylim()
    chart.number_ends(axes, ends, gap=0.085 * (high - low))


def _look(line: Line, i: int, drawn: Sequence[Line], what: View) -> dict[str, Any]:
    if len(drawn) == 1:
        colour, dashes, mark = DRIFT if what == (BELOW,) else LOOKS[i]
        fill = colour
    else:
        colour, mark = line.colour, MARKS[line.index % len(MARKS)][0]
        dashes = LOOKS[i][1] if len(what) > 1 else chart.DASHES[line.index % len(chart.DASHES)]
        fill = colour if i == 0 else "white"
    edge = "white" if fill == colour else colour
    return dict(
        color=colour,
        linestyle=dashes,
        linewidth=2.2,
        marker=mark,
        markersize=7.5,
        markerfacecolor=fill,
        markeredgecolor=edge,
        markeredgewidth=1.0 if fill == colour else 1.8,
    )


def _legend(axes: Any, drawn: Sequence[Line], what: View) -> None:
    """A line a run, if there are several, and one that tells two measures apart."""
    from matplotlib.lines import Line2D

    entries = [(_look(line, 0, drawn, what), chart.legend(line)) for line in drawn if len(drawn) > 1]
    if len(what) > 1:
        for i, name in enumerate(what):
            look = _look(drawn[0], i, drawn, what) if drawn else {}
            if len(drawn) > 1:  # of any run: the ink of the text, and no mark of one run
                dashed = dict(color=INK, markeredgecolor=INK if i else "white", marker="o")
                look |= dashed | dict(markerfacecolor="white" if i else INK)
            entries.append((look, f"{words(name)}: {'dashed' if i else 'solid'}" if len(drawn) > 1 else words(name)))
    if not entries:
        return
    legend = axes.figure.legend(
        [Line2D([], [], **look) for look, _ in entries],
        [text for _, text in entries],
        loc="outside lower left",
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        ncols=len(entries) if len(drawn) <= 1 else 1,
        handlelength=3.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)

"""What the panel shows beside the chart, as HTML: status, progress, parameters, samples, measures and code."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .samples import Sample

TAIL, HEAD = 150, 100  # characters that are shown of a prompt's end, and of what was written


def status(text: str) -> str:
    """The one line that says what is going on; screen readers speak it when it changes."""
    kind = text.split(":")[0].lower() if ":" in text else ""
    kind = kind if kind in ("error", "done", "stopped") else "note"
    mark = {"error": "✕ ", "done": "✓ ", "stopped": "■ "}.get(kind, "")
    shown = f'<span aria-hidden="true">{mark}</span>{html.escape(text)}'
    return f'<div class="llmlab-status llmlab-{kind}" role="status" aria-live="polite">{shown}</div>'


def progress(step: int, total: int, note: str = "") -> str:
    """A bar of steps, and the same in words."""
    label = f"step {step:,} of {total:,}" if total else ""
    bar = f'<progress aria-label="Steps taken" max="{max(1, total)}" value="{step}"></progress>'
    return f'<div class="llmlab-progress">{bar}<span>{html.escape(label + note)}</span></div>'


def parameters(trainable: int = 0, total: int = 0) -> str:
    """How much of the model trains: a bar, its share and the numbers; without numbers, that they are on their way."""
    share = trainable / max(1, total)
    said = f"<b>{trainable:,}</b> of {total:,} train <b>({percent(share)})</b>" if total else "being counted …"
    # a share that is not zero is never drawn as nothing
    width = 0 if not share else max(1.0, 100 * share)
    bar = f'<div class="llmlab-share" aria-hidden="true"><div style="width:{width:.1f}%"></div></div>'
    line = f'<div><span class="llmlab-heading" role="heading" aria-level="3">Parameters</span><span>{said}</span></div>'
    return f'<div class="llmlab-parameters">{line}{bar}</div>'


def percent(share: float) -> str:
    """Two digits that count: 100 %, 2.3 %, 0.012 %."""
    return f"{100 * share:.0f} %" if share >= 0.995 or not share else f"{100 * share:.2g} %"


def measures(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """The first and the last evaluation side by side."""
    if not evaluations:
        return ""
    first, last = evaluations[0], evaluations[-1]
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(words(name))}</th>"
        f"<td>{number(first.get(name))}</td><td>{number(value) if last is not first else '…'}</td></tr>"
        for name, value in last.items()
        if name != "step" and isinstance(value, int | float)
    )
    then = f"step {last['step']}" if last is not first else "after"
    head = f"<tr><th scope='col'>validation</th><th scope='col'>before</th><th scope='col'>{then}</th></tr>"
    return f'<table class="llmlab-table llmlab-measures"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def words(measure: str) -> str:
    """A measure's name as people write it: "exact match", "KL"."""
    return "KL" if measure == "kl" else measure.replace("_", " ")


def number(value: Any) -> str:
    """Three digits that count."""
    if not isinstance(value, int | float):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"


def samples(rows: Sequence[Sample]) -> str:
    """What the model wrote before and after; ✓ marks the right answer."""
    if not rows:
        return ""
    known = any(row.wanted is not None for row in rows)
    heads = ["prompt", "before", "after", *(["right answer"] if known else [])]
    head = "".join(f"<th scope='col'>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(_cells(row, known))}</tr>" for row in rows)
    return f'<table class="llmlab-table llmlab-samples"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cells(row: Sample, known: bool) -> list[str]:
    prompt = row.prompt.strip()
    if len(prompt) > TAIL:
        prompt = "… " + prompt[-TAIL:].split(" ", 1)[-1]
    cells = [f"<td class='llmlab-prompt'>{_text(prompt)}</td>", f"<td>{_said(row.before, row.wanted)}</td>"]
    cells.append(f"<td>{_said(row.after, row.wanted)}</td>")
    if known:
        cells.append(f"<td>{_text(row.wanted or '–')}</td>")
    return cells


def _said(text: str | None, wanted: str | None) -> str:
    if text is None:
        return "…"
    right = wanted is not None and text.strip() == wanted.strip()
    text = text.strip()
    shown = text if len(text) <= HEAD else text[:HEAD] + " …"
    return ("<b>✓</b> " if right else "") + (_text(shown) or "<i>nothing</i>")


def _text(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def code(text: str, what: str = "code") -> str:
    """Python, or a run file, to read and copy."""
    name = {"code": "Python for these choices", "run file": "Run file for these choices"}[what]
    return f'<pre class="llmlab-code" tabindex="0" aria-label="{name}">{html.escape(text)}</pre>'

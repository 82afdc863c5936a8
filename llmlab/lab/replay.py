"""A recorded run played again: its curve, measures and samples as if it trained, where training would take too long.

1. Steps are spread evenly over the time it plays; no model is touched.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from .record import Record
from .work import closing

if TYPE_CHECKING:
    from .session import Session

FRAME = 0.05  # seconds between two looks at the clock


def play(session: Session, record: Record, seconds: float) -> None:
    """Show `record` in `session` from its first step to its last; the session's stop ends it."""
    before = [replace(sample, after=None) for sample in record.samples]
    shown = replace(record, history=[], evaluations=[], samples=before, outcome="", replayed=True)
    session.last = shown
    told = (
        f"Replaying run {record.number}, recorded in {record.seconds:.0f} s"
        if record.seconds
        else (f"Replaying run {record.number}")
    )
    session.say(f"{told}: {record.technique}, nothing is trained …")
    session.listener.moved(shown, True)
    began, waiting, share = time.monotonic(), list(record.evaluations), 0.0
    while share < 1 and not session.stopping:
        share = min(1.0, (time.monotonic() - began) / seconds)
        shown.history += record.history[len(shown.history) : round(share * len(record.history))]
        while waiting and (waiting[0]["step"] <= shown.steps or share == 1):
            shown.evaluations.append(waiting.pop(0))
            session.say(f"{told}: step {shown.steps} of {record.target}, {closing(shown)}")
        session.listener.moved(shown, False)
        time.sleep(FRAME)
    at = f"stopped at step {shown.steps} of {record.steps}" if session.stopping else f"{record.steps} steps"
    session.last = done = replace(record, replayed=True) if not session.stopping else shown
    session.listener.moved(done, True)
    last = f", {closing(done)}" if done.evaluations else ""
    session.say(
        f"{'Stopped' if session.stopping else 'Done'}: replay of run {record.number}, {record.technique}, {at}{last}."
    )

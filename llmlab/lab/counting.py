"""Counts what would train, in a thread of its own: it builds the run, which may first have to learn a vocabulary."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .plan import Plan
from .session import Session


class Counter:
    """Tells the table of parameters of the newest plan; those asked for in the meantime are left out."""

    def __init__(self, session: Session, tell: Callable[[Any], None]) -> None:
        self.session, self.tell = session, tell
        self._wanted: Plan | None = None
        self._lock, self._works = threading.Lock(), False

    def ask(self, plan: Plan) -> None:
        """Count this one; returns at once."""
        with self._lock:
            self._wanted = plan
            if self._works:
                return
            self._works = True
        threading.Thread(target=self._count, daemon=True, name="llmlab-count").start()

    def drop(self) -> None:
        """A run has begun, which tells its own."""
        with self._lock:
            self._wanted = None

    def _count(self) -> None:
        while True:
            with self._lock:
                plan, self._wanted = self._wanted, None
                if plan is None:
                    self._works = False
                    return
            table = None
            if not self.session.runs:
                try:
                    table = self.session.build(plan).parameters()
                except Exception:  # Run shows what is wrong, to whoever presses it
                    table = None
            with self._lock:
                current = self._wanted is None and not self.session.runs
            if current:
                self.tell(table)

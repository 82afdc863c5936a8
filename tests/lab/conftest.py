"""Pictures of few points: what is on them is tested, not how sharp they are."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmlab.lab import chart

    monkeypatch.setattr(chart, "DPI", 40)

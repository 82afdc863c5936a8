"""`pytest tests/parity --errors` ends with a table of the greatest errors, for each family and each thing compared."""

from __future__ import annotations

import sys
from typing import Any

import pytest


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--errors", action="store_true", help="tell the greatest difference from each peer")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    greatest: dict[tuple[str, str], float] = getattr(sys.modules.get("parity.measure"), "GREATEST", {})
    if not config.getoption("--errors", False) or not greatest:
        return
    known = ("logits", "batch", "score", "loss", "gradient", "merged")
    columns = [what for what in known if any(what == w for _, w in greatest)]
    terminalreporter.section("greatest difference, as a share of the greatest number")
    terminalreporter.write_line("".join([f"{'':34}", *(f"{c:>10}" for c in columns)]))
    for family in dict.fromkeys(f for f, _ in greatest):
        cells = [f"{greatest[family, c]:10.1e}" if (family, c) in greatest else f"{'':10}" for c in columns]
        terminalreporter.write_line("".join([f"{family:34}", *cells]))

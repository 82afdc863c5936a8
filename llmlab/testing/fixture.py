"""The pytest fixture `check_technique`: there wherever llmlab is installed, and nothing is imported before it is used.

def test_mine(check_technique):
    check_technique(Mine)
"""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def check_technique() -> Callable[..., None]:
    """`llmlab.testing.check_technique`."""
    from llmlab.testing import check_technique

    found: Callable[..., None] = check_technique
    return found

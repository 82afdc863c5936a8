"""Every set of adaptations, and extras beside them, in every order, for every objective: run by `make test-all`.

1. A set of four has 120 orders with its objective, and all are tried. Of larger sets so many are drawn by lot, and of
   sets with extras, which seldom change a model, 24.
"""

from __future__ import annotations

import pytest

from llmlab.testing import checks
from llmlab.testing.cases import every, stirred, trained, usual

LARGE = [case for case in every() if case not in usual()]
pytestmark = [pytest.mark.exhaustive, pytest.mark.slow]


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_every_set_in_every_order(case, tmp_path):
    done = trained(case)
    checks.check_losses(done)
    checks.check_untouched(done)
    checks.check_reached(done)
    checks.check_counts(done)
    checks.check_orders(case, most=120 if case.added == case.adaptations else 24)
    checks.check_resume(case, tmp_path / "run")
    checks.check_saved(case, done.model, tmp_path / "model")
    if case.adaptations:
        checks.check_detach(done)
        checks.check_merge(done)
    if case.family != "encoder":
        checks.check_writing(stirred(done.model))
    checks.check_bf16(case)

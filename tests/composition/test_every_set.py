"""Every set of adaptations and extras, in every order, for every objective: run by `make test-all`.

1. A set of five has 720 orders with its objective; of more than 120 orders, so many are drawn by lot.
"""

from __future__ import annotations

import pytest
from composition import checks
from composition.cases import additions, bare, cases, stirred, trained

LARGE = cases(least=3, most=max(len(additions(case)) for case in bare()))
pytestmark = [pytest.mark.exhaustive, pytest.mark.slow]


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_every_set_in_every_order(case, tmp_path):
    done = trained(case)
    checks.check_losses(done)
    checks.check_untouched(done)
    checks.check_reached(done)
    checks.check_counts(done)
    checks.check_orders(case, steps=2)
    checks.check_resume(case, tmp_path / "run")
    checks.check_saved(case, done.model, tmp_path / "model")
    if case.adaptations:
        checks.check_detach(done)
        checks.check_merge(done)
    if case.family != "encoder":
        checks.check_writing(stirred(done.model))
    checks.check_bf16(case)

"""Every objective alone, with every adaptation, extra and pair of adaptations: nine things that must hold of each."""

from __future__ import annotations

import pytest
import torch

from llmlab.testing import checks
from llmlab.testing.cases import stirred, trained, usual

pytestmark = pytest.mark.slow
ALL = usual()
every = pytest.mark.parametrize("case", ALL, ids=str)
adapted = pytest.mark.parametrize("case", [c for c in ALL if c.adaptations], ids=str)
writers = pytest.mark.parametrize("case", [c for c in ALL if c.family != "encoder"], ids=str)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


@every
def test_the_loss_is_finite_and_falls(case):
    checks.check_losses(trained(case))


@every
def test_what_does_not_train_stays_bit_for_bit(case):
    checks.check_untouched(trained(case))


@every
def test_a_gradient_reaches_all_that_trains(case):
    checks.check_reached(trained(case))


@every
def test_together_they_train_what_each_trains_alone(case):
    checks.check_counts(trained(case))


@every
def test_the_order_of_the_list_changes_no_bit(case):
    checks.check_orders(case)


@writers
def test_writing_with_a_cache_is_writing_without(case):
    checks.check_writing(stirred(trained(case).model))


@every
def test_a_loaded_run_goes_on_bit_for_bit(case, tmp_path):
    checks.check_resume(case, tmp_path)


@every
def test_a_saved_model_says_the_same(case, tmp_path):
    checks.check_saved(case, trained(case).model, tmp_path)


@adapted
def test_detached_it_is_the_base(case):
    checks.check_detach(trained(case))


@adapted
def test_merged_it_is_the_same_function_or_says_why_not(case):
    checks.check_merge(trained(case))


@pytest.mark.parametrize("case", [c for c in ALL if len(c.added) < 2], ids=str)
def test_texts_longer_than_the_context(case):
    checks.check_long_texts(case)


@every
def test_a_few_steps_in_bf16(case):
    checks.check_bf16(case)

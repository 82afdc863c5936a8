"""What the course claims of each technique holds, and would not with a plausible bug in its place."""

from __future__ import annotations

import re

import pytest
from claims import CLAIMS, SEEDS, measured, mutated
from claims.table import FILE, cells, told

from llmlab.catalogue import techniques

FIRST = {one.technique: one for one in reversed(CLAIMS)}  # of each technique, for `make test`


def marks(one, seed=0):
    return () if seed == 0 and FIRST[one.technique] is one else pytest.mark.exhaustive


RUNS = [pytest.param(one, seed, id=f"{one}-{seed}", marks=marks(one, seed)) for one in CLAIMS for seed in SEEDS]
BUGS = [pytest.param(one, id=f"{one}", marks=marks(one)) for one in CLAIMS]


@pytest.mark.slow
@pytest.mark.parametrize(("one", "seed"), RUNS)
def test_a_claim_holds(one, seed):
    assert not one.broken(measured(one, seed)), one.sentence


@pytest.mark.slow
@pytest.mark.parametrize("one", BUGS)
def test_its_bug_breaks_it(one):
    assert one.broken(mutated(one)), f"with this bug it holds as well: {one.bug.what}"


def test_every_technique_that_ships_has_a_claim():
    shipped = {name for name, entry in techniques().items() if entry.source == "shipped"}
    missing = shipped - {one.technique for one in CLAIMS}
    assert not missing, f"tests/claims says nothing that a bug would break of {', '.join(sorted(missing))}"


def test_names_and_bounds_are_told():
    assert len({str(one) for one in CLAIMS}) == len(CLAIMS)
    for one in CLAIMS:
        assert set(re.findall(r"\{(\w+)", one.text)) <= set(one.bounds)


def test_the_table_says_what_is_claimed():
    """Its digits are those of the machine that measured. `python -m tests.claims` writes it anew."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert [cells(line) for line in lines] == [told(one) for one in CLAIMS]

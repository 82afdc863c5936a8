"""No document is in two splits, adding rows moves none, and no split is empty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlab.data.errors import DataError
from llmlab.data.split import position, split_by

documents = st.lists(st.text(max_size=6), min_size=3, max_size=60, unique=True)


def place(splits):
    return {row["text"]: name for name, rows in splits.items() for row in rows}


def rows_of(names, copies=2):
    return [{"text": name, "copy": str(copy)} for name in names for copy in range(copies)]


@given(documents, st.integers(0, 5))
def test_every_row_is_dealt_once_and_every_document_is_in_one_split(names, seed):
    rows = rows_of(names)
    splits = split_by(rows, "text", seed)
    assert sorted(map(str, rows)) == sorted(str(row) for held in splits.values() for row in held)
    homes = [{row["text"] for row in held} for held in splits.values()]
    assert sum(map(len, homes)) == len(names)


@given(documents, st.integers(0, 5))
def test_no_split_is_empty_with_three_documents_or_more(names, seed):
    assert all(split_by(rows_of(names), "text", seed).values())


@given(st.lists(st.text(max_size=6), min_size=1, max_size=40, unique=True), st.integers(0, 5))
def test_adding_rows_moves_none(names, seed):
    base = rows_of([f"document {n}" for n in range(100)])  # large enough that every split has its own
    before, after = place(split_by(base, "text", seed)), place(split_by(rows_of(names) + base, "text", seed))
    assert {text: after[text] for text in before} == before


def test_rows_keep_their_order():
    for held in split_by([{"text": f"{n:04}"} for n in range(200)], "text").values():
        assert [row["text"] for row in held] == sorted(row["text"] for row in held)


def test_shares_hold_in_the_long_run():
    splits = split_by([{"text": str(n)} for n in range(5000)], "text", shares=(0.6, 0.3, 0.1))
    assert [len(splits[name]) / 5000 for name in ("train", "validation", "test")] == pytest.approx(
        [0.6, 0.3, 0.1], abs=0.03
    )


def test_another_seed_deals_differently():
    rows = [{"text": str(n)} for n in range(200)]
    assert place(split_by(rows, "text", 0)) != place(split_by(rows, "text", 1))


def test_a_place_is_the_same_on_every_machine_and_in_every_release():
    # computed with the sha256sum command over the eight bytes "7", NUL, "a page"
    assert position("a page", 7) == int("a6cc522947fb", 16) / 2**48


def test_a_key_may_be_a_function():
    splits = split_by([{"text": f"{n % 5} {n}"} for n in range(50)], lambda row: row["text"][0])
    assert all(len(rows) % 10 == 0 for rows in splits.values())


def test_a_share_of_zero_leaves_the_split_out():
    assert set(split_by(rows_of("abcd"), "text", shares=(0.9, 0, 0.1))) == {"train", "test"}


@pytest.mark.parametrize("shares", [(0.8, 0.1), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match="add up to 1"):
        split_by(rows_of("abcd"), "text", shares=shares)


def test_too_few_documents_are_refused_in_one_line():
    with pytest.raises(DataError, match=r"^2 different documents cannot fill 3 splits .*: give 3 or more$"):
        split_by(rows_of("ab", copies=50), "text")

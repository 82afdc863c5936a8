"""Docstrings are read without importing anything, kept in a cache that may break, and filtered to prose."""

import hashlib
import json
import os

import pytest

from llmlab.data import DataError, corpus, docstrings, harvest, store
from llmlab.data.harvest import Doc, sentences_of

MODULE = '''"""Tools to count sheep.

Sheep are counted in the order in which they jump, and a sheep that jumps twice is counted twice.

Copyright 2001 by a shepherd who gives you no warranty.
"""
raise SystemExit("this module must never be imported")


class Flock:
    """A flock of :class:`~farm.Sheep`, which ``count`` goes through."""

    def count(self):
        """Return the number of sheep in the flock.

        The number of sheep is that of those in the flock which are awake; the flock is not changed
        by counting, and counting twice gives the same number.

        Parameters
        ----------
        speed : float
            How fast to count: this is no sentence of ours.

        Returns
        -------
        This paragraph belongs to a section and is no part of the lead.

        >>> Flock().count()
        """

    def lose(self):
        """TODO: this one is boilerplate and goes."""
'''


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def farm(tmp_path, monkeypatch, cache):
    """A package on disk that harvest("python") reads in place of the standard library."""
    root = tmp_path / "farm"
    for name in ("sheep.py", "tests/test_sheep.py", "_private/secret.py", "_core/goats.py", "broken.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(MODULE, "utf-8")
    (root / "broken.py").write_text('"""Not Python.""" def', "utf-8")
    (root / "latin.py").write_bytes(b'"""Caf\xe9."""')
    monkeypatch.setattr(harvest, "_roots", lambda package: [root])
    return root


def test_prose_is_kept_and_everything_else_is_not(farm):
    docs = {(doc.module, doc.name): doc for doc in harvest.harvest("python")}
    assert set(docs) == {(f"python.{m}", n) for m in ("sheep", "_core.goats") for n in ("", "Flock", "Flock.count")}
    assert docs["python.sheep", ""].paragraphs[1].startswith("Sheep are counted in the order")
    assert len(docs["python.sheep", ""].paragraphs) == 2
    assert docs["python.sheep", "Flock"].paragraphs == ["A flock of farm.Sheep, which count goes through."]
    counted = docs["python.sheep", "Flock.count"]
    assert counted.lead == 2 and counted.paragraphs[2].startswith("This paragraph belongs")


def test_a_summary_pair_is_lead_and_first_line(farm):
    counted = next(doc for doc in harvest.harvest("python") if doc.name == "Flock.count")
    (pair,) = docstrings._pair(counted)
    assert pair["target"] == "Return the number of sheep in the flock."
    assert pair["source"].startswith("The number of sheep") and "section" not in pair["source"]


def test_a_summary_that_the_body_does_not_support_is_dropped():
    body = "It eats grass all day and sleeps at night, wherever the herd happens to be at that time of the year."
    assert not list(docstrings._pair(Doc("m", "f", ["Compute the inverse of a matrix.", body], 2)))
    assert list(docstrings._pair(Doc("m", "f", ["Eats the grass of the herd.", body], 2)))
    assert docstrings.support("Eats the grass of the herd.", body) == 1 and docstrings.support("Of it.", body) == 0


def test_repeated_paragraphs_come_once(farm):
    rows = [row["text"] for doc in harvest.harvest("python") for row in docstrings._pair(doc) if "text" in row]
    assert rows == []
    with pytest.raises(DataError, match="cannot fill 3 splits"):  # the second copy adds no document
        corpus("docstrings:python")


def test_the_second_harvest_reads_the_cache(farm, cache, monkeypatch):
    first = harvest.harvest("python")
    monkeypatch.setattr(harvest, "_roots", lambda package: pytest.fail("read again"))
    assert harvest.harvest("python") == first and first
    assert harvest.version("python") in next(cache.iterdir()).name


def test_another_version_is_harvested_anew(farm, monkeypatch):
    harvest.harvest("python")
    monkeypatch.setattr(harvest, "python_version", lambda: "99.0")
    monkeypatch.setattr(harvest, "_roots", lambda package: [])
    assert harvest.harvest("python") == []


def test_a_package_that_is_missing_is_left_out(monkeypatch):
    monkeypatch.setattr(docstrings, "version", lambda package: None)
    with pytest.raises(DataError, match="no source files of torch found"):
        corpus("docstrings:torch")
    assert harvest.version("no-such-package") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-3] + b"]]]",
        lambda data: data.replace(b"1]", b"7]"),  # still JSON, but not what was written
        lambda data: b"\xff\x00 not a cache",
        lambda data: hashlib.sha256(b"not json").hexdigest().encode() + b"\nnot json",
    ],
)
def test_a_damaged_entry_is_built_again_and_replaced(cache, damage):
    assert store.remembered("key", lambda: ["wörld", 1]) == ["wörld", 1]
    (entry,) = cache.iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    assert store.remembered("key", lambda: ["new", 2]) == ["new", 2]
    assert store.remembered("key", lambda: pytest.fail("the replaced entry was not read")) == ["new", 2]


def test_a_write_cut_off_half_way_leaves_no_entry(cache, monkeypatch):
    def die(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", die)
        assert store.remembered("key", lambda: [1]) == [1]
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "file"))
    assert store.remembered("key", lambda: [1]) == [1]


def test_without_the_variable_the_users_cache_folder_is_meant(monkeypatch):
    monkeypatch.delenv("LLMLAB_CACHE")
    assert "llmlab" in str(store.folder())


def test_sections_of_google_style_end_the_lead():
    text = "Fit the model to the data.\n\nIt is a slow one.\n\nArgs:\n    x: a tensor.\n\nThis is after that.\n"
    assert sentences_of(text) == (
        ["Fit the model to the data.", "It is a slow one.", "This is after that."],
        2,
    )


def test_numpy_alone_gives_what_is_promised():
    text = corpus("docstrings:numpy")
    rows = [row["text"] for rows in text.splits.values() for row in rows]
    assert 150 <= len(rows) <= 2000 and "numpy" in text.source and text.licence == "BSD-3-Clause (numpy)"
    assert all(docstrings.SHORTEST <= len(row) <= docstrings.LONGEST for row in rows)
    assert not any(mark in row for row in rows for mark in (">>>", "::", "Copyright", "----"))
    pairs = [row for rows in corpus("docstring-summaries:numpy").splits.values() for row in rows]
    assert all(20 <= len(row["target"]) <= 120 and row["target"].endswith((".", "!", "?")) for row in pairs)
    assert all(docstrings.support(row["target"], row["source"]) >= docstrings.SUPPORT for row in pairs)
    json.dumps(rows)


@pytest.mark.slow
def test_sizes_are_in_the_documented_ranges():
    rows = [row for rows in corpus("docstrings").splits.values() for row in rows]
    assert 3000 <= len(rows) <= 9000 and 1e6 <= sum(len(row["text"]) for row in rows) <= 4e6
    assert 800 <= sum(map(len, corpus("docstring-summaries").splits.values())) <= 3000

"""The registry: names, their short forms, paths, errors of one line, and nothing imported unasked."""

import json
import subprocess
import sys
import types

import pytest

import llmlab.data
from llmlab.data import Corpus, DataError, Source, corpora, corpus, describe, register
from llmlab.data.errors import nearest

SMALL = ["python-reference", "docstrings:numpy", "docstring-summaries:numpy", "dates:de,size=300"]
SMALL += ["names:fr", "facts", "facts:context,size=120", "facts:fr,context"]


@pytest.fixture(scope="module")
def made():
    return {name: corpus(name) for name in SMALL}


@pytest.fixture
def toy(monkeypatch):
    """A registered source that gives back the options it was called with."""

    def load(task="qa", loud=False, size=3, rate=0.5):
        options = {"task": task, "loud": loud, "size": size, "rate": rate}
        return Corpus("toy", {"train": [{"text": "a"}]}, "here", "MIT", options)

    monkeypatch.setattr(llmlab.data, "_SOURCES", dict(llmlab.data._SOURCES))
    monkeypatch.setitem(sys.modules, "toy_source", types.SimpleNamespace(load=load))
    source = Source("toy", "for tests", "MIT", ("text",), "toy_source:load")
    register(source)
    return source


@pytest.mark.parametrize("name", SMALL)
def test_no_text_is_in_two_splits(made, name):
    splits = made[name].splits
    assert set(splits) == {"train", "validation", "test"} and all(splits.values())
    for column in {"text", "prompt", "source"} & set(made[name].columns):
        values = [{row[column] for row in rows} for rows in splits.values()]
        assert sum(map(len, values)) == len(set().union(*values)), column


@pytest.mark.parametrize("name", SMALL)
def test_a_corpus_can_be_made_again_from_its_name_and_options(made, name):
    options = json.loads(json.dumps(dict(made[name].options)))
    assert corpus(made[name].name, **options).fingerprint == made[name].fingerprint


@pytest.mark.parametrize("name", SMALL)
def test_another_seed_gives_other_splits(made, name):
    options = dict(made[name].options) | {"seed": 12}
    assert corpus(made[name].name, **options).fingerprint != made[name].fingerprint


@pytest.mark.parametrize("name", SMALL)
def test_every_row_has_the_same_columns_and_all_texts_are_clean(made, name):
    for rows in made[name].splits.values():
        for row in rows:
            assert tuple(row) == made[name].columns
            assert all(value.strip() for value in row.values() if isinstance(value, str))
            assert not any(mark in value for value in map(str, row.values()) for mark in "\r\t\u00a0\u202f")


@pytest.mark.parametrize("name", SMALL)
def test_the_listing_tells_the_truth(made, name):
    listed = {source.name: source for source in corpora()}[made[name].name]
    assert set(listed.columns) <= set(made[name].columns)
    for licence in listed.licence.split(" and "):
        assert licence in made[name].licence or (licence == "PSF-2.0" and "numpy" in name)


def test_tinytown_is_asked_for_by_task():
    made = corpus("tinytown:qa,size=50")
    assert made.options["task"] == "qa" and made.fingerprint == corpus("tinytown-qa", size=50).fingerprint
    listed = next(source for source in corpora() if source.name == "tinytown")
    assert {"prompt", "response"} <= set(made.columns) & set(listed.columns)


def test_describing_names_everything(made):
    text = describe(made["dates:de,size=300"])
    for part in (
        "dates (language='de', size=300, seed=0)",
        "source, target",
        "BSD-3-Clause",
        "CLDR",
        "train",
    ):
        assert part in text
    assert describe(made["python-reference"]).count("…") >= 2
    assert max(map(len, describe(made["python-reference"]).split("\n"))) < 130
    assert describe(made["python-reference"]) == describe(made["python-reference"])  # not shadowed by a module


def test_listing_imports_no_source_and_reading_imports_no_package():
    code = """if True:
        import sys
        from llmlab.data import corpus, corpora
        assert len(corpora()) >= 7 and all(map(str, corpora()))
        lazy = {"babel", "pydoc_data", "pyarrow", "platformdirs", "torch", "numpy"}
        assert not lazy & set(sys.modules), lazy & set(sys.modules)
        corpus("python-reference"), corpus("docstrings:numpy"), corpus("facts")
        assert not {"torch", "numpy", "pyarrow"} & set(sys.modules)
        """
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("toy", {}),
        ("toy:summary", {"task": "summary"}),
        ("toy-summary", {"task": "summary"}),
        ("toy-red-team", {"task": "red-team"}),
        ("toy:loud", {"loud": True}),
        ("toy:loud=false", {"loud": False}),
        ("toy:tone, size=-7 ,rate=1", {"task": "tone", "size": -7, "rate": 1}),
        ("toy:rate=2.5", {"rate": 2.5}),
    ],
)
def test_short_forms(toy, name, options):
    assert corpus(name).options == {"task": "qa", "loud": False, "size": 3, "rate": 0.5} | options


def test_keywords_win_over_the_name(toy):
    assert corpus("toy:qa,size=7", size=9).options["size"] == 9


def test_the_longest_registered_name_is_meant(toy):
    register(Source("toy-story", "for tests", "MIT", ("text",), "toy_source:load"))
    assert corpus("toy-story-x").options["task"] == "x"


def test_registering_twice_is_fine_and_taking_a_name_is_not(toy):
    register(toy)
    with pytest.raises(ValueError, match=r'"toy" is registered already, by toy_source:load'):
        register(Source("toy", "another", "MIT", ("text",), "elsewhere:load"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("python-refrence", 'Did you mean "python-reference"'),
        ("Dates", 'Did you mean "dates"'),
        ("qqqq", "corpora() lists"),
        ("qqqq:fr", "corpora() lists"),
        ("x" * 5000, "corpora() lists"),
        ("a\0b", "corpora() lists"),
        ("dates:langage=fr", 'no option "langage". Did you mean "language"'),
        ("dates:fr,size=many", "size = 'many' must be a whole number"),
        ("names:fr,size=many", "size = 'many' must be 3 to"),
        ("facts:context=maybe", "context = 'maybe' must be true or false"),
        ("dates:klingon", 'no language "klingon"'),
        ("dates:en", "English already"),
        ("dates:size=2", "size = 2"),
        ("names:fr,size=999999", "size = 999999"),
        ("facts:it", 'no language "it"'),
        ("docstrings:scipy", 'no package "scipy"'),
        ("missing.csv", "no such file"),
    ],
)
def test_what_cannot_be_made_says_so_in_one_line(name, words):
    with pytest.raises(DataError) as caught:
        corpus(name)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_path_that_looks_like_a_name_with_options_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine:v2.txt").write_text("One.\n\nTwo.\n\nThree.", "utf-8")
    assert corpus("mine:v2.txt").columns == ("text",)
    with pytest.raises(DataError, match=r'has no option "sed"\. Did you mean "seed"'):
        corpus("mine:v2.txt", sed=3)


def test_nearest_says_nothing_where_nothing_is_near():
    assert nearest("dates", ["qq"]) == "" and nearest("dates", []) == ""

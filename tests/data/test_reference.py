"""The language reference: whole passages, each once, named by their topic. Texts differ between Pythons."""

import sys

import pytest

from llmlab.data import DataError, corpus
from llmlab.data.prose import pieces, sentences, tidy
from llmlab.data.reference import LONGEST, SHORTEST, sections

TOPIC = """The "pet" statement
*******************

A pet statement is used to stroke an animal while the program runs:

   pet_stmt ::= "pet" expression

The simple form is equivalent to

   if pet:
       stroke(pet)

The animal must be *tame*, and it must **not** be asleep. [1]

Changed in version 9.9: Cats are allowed as well as dogs.

pet.feed(food, /)

   Give the animal some food, which it may refuse at any time.

-[ Footnotes ]-

[1] This is a footnote that has a good many words in it.
"""


@pytest.fixture(scope="module")
def reference():
    return corpus("python-reference")


def rows_of(reference):
    return [row for rows in reference.splits.values() for row in rows]


def test_sizes_are_in_the_documented_ranges(reference):
    rows = rows_of(reference)
    assert 250 <= len(rows) <= 700
    assert 80 <= len({row["text"].split("\n")[0] for row in rows}) <= 250
    assert all(SHORTEST <= len(row["response"]) <= LONGEST for row in rows)


def test_text_is_title_and_passage_and_the_instruction_names_the_topic(reference):
    for row in rows_of(reference):
        title, passage = row["text"].split("\n", 1)
        assert passage == row["response"] and row["prompt"].startswith("Explain ") and row["prompt"].endswith(".\n")
        assert title.casefold().split()[-1] in row["prompt"].casefold() or "(" in title
    assert len({row["prompt"] for row in rows_of(reference)}) == len(rows_of(reference))
    assert any(row["prompt"] == "Explain the assert statement.\n" for row in rows_of(reference))


def test_no_section_and_no_paragraph_is_in_two_splits(reference):
    for part in (
        lambda row: {row["text"].split("\n")[0].casefold()},
        lambda row: set(row["response"].split("\n")),
    ):
        held = [set().union(*map(part, rows)) for rows in reference.splits.values()]
        prose = [{line for line in lines if len(line) > 60} or lines for lines in held]
        assert not prose[0] & prose[1] and not prose[0] & prose[2] and not prose[1] & prose[2]


def test_passages_read_as_prose(reference):
    for row in rows_of(reference):
        assert "::=" not in row["response"]
        assert not row["response"].startswith(("Changed in", "New in", "Added in"))
    words = [word for row in rows_of(reference) for word in row["response"].split()]
    assert sum(word in ("the", "a", "is", "of", "to", "in") for word in words) > 0.12 * len(words)


def test_grammar_notes_and_footnotes_go_and_a_lead_in_keeps_its_code():
    (section,) = sections({"pet": TOPIC})
    assert section.title == "The pet statement"
    assert section.units == [
        ("", "The simple form is equivalent to\nif pet:\n    stroke(pet)"),
        ("", "The animal must be tame, and it must not be asleep."),
        ("pet.feed(food, /)", "Give the animal some food, which it may refuse at any time."),
    ]


def test_a_section_printed_under_two_topics_is_one_document():
    again = TOPIC.replace("which it may refuse at any time", "which it will never refuse")
    (section,) = sections({"pet": TOPIC, "pets": again})
    assert len(section.units) == 4


def test_without_help_texts_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="no pydoc_data"):
        corpus("python-reference")


def test_tidy_takes_marks_off_and_leaves_code_alone():
    assert tidy("* a *bound\n  method* object, **kwargs and 2 * 3 * 4 [12].") == (
        "- a bound method object, **kwargs and 2 * 3 * 4."
    )


def test_pieces_are_of_the_asked_length_and_labelled_by_their_first_paragraph():
    units = [
        ("a", "x" * 60),
        ("a", "y" * 60),
        ("b", "z" * 90),
        ("c", "w" * 90),
        ("c", "code\n" * 50),
        ("d", "v"),
    ]
    found = list(pieces(units, 100, 190))
    assert [(label, len(passage)) for label, passage in found] == [("a", 121), ("b", 181)]


def test_long_paragraphs_are_cut_between_sentences_and_code_is_not():
    long = " ".join(f"Sentence number {n} is here." for n in range(40))
    found = [passage for _, passage in pieces([("", long)], 100, 300)]
    assert len(found) > 2 and all(100 <= len(passage) <= 300 and passage.endswith(".") for passage in found)
    assert [s for passage in found for s in sentences(passage.replace("\n", " "))] == sentences(long)[:40]
    assert list(pieces([("", "lead-in:\n" + "code\n" * 80)], 100, 300)) == []

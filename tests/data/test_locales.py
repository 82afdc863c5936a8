"""Translations and facts are true, repeatable, and share nothing between splits."""

import datetime as dt
import re

import pytest

from llmlab.data import corpus
from llmlab.data.locales import plain

MONTHS = ["janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août"]
MONTHS += ["septembre", "octobre", "novembre", "décembre"]
DAYS = ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"]


@pytest.fixture(scope="module")
def dates():
    return corpus("dates-fr", size=3000)


def rows_of(made):
    return [row for rows in made.splits.values() for row in rows]


def day_of(source):
    """Read the English date in `source` with the standard library, or return None."""
    found = re.match(r"(?:\w+day, )?(\w+ \d{1,2}, \d{4})", source)
    return found and dt.datetime.strptime(found[1], "%B %d, %Y").date()


def test_dates_are_translated_as_a_frenchman_would(dates):
    checked = 0
    for row in rows_of(dates):
        day = day_of(row["source"])
        if day and ":" not in row["source"]:
            number = "1er" if day.day == 1 else str(day.day)
            expected = f"{number} {MONTHS[day.month - 1]} {day.year}"
            if "day," in row["source"]:
                expected = f"{DAYS[day.weekday()]} {expected}"
            assert row["target"] == expected
            checked += 1
    assert checked > 800


def test_times_lengths_and_amounts_are_there_too(dates):
    targets = {row["source"]: row["target"] for row in rows_of(dates)}
    for pattern in (r"\d+:\d\d [AP]M$", r"^in \d+ (hour|day)s?$", r" ago$", r"kilometers?$", r"US dollars$"):
        assert any(re.search(pattern, source) for source in targets), pattern
    evening = next(s for s in targets if re.search(r" ([2-9]|10):\d\d PM$", s))
    hour, minute = re.search(r" (\d+):(\d\d) PM$", evening).groups()
    assert targets[evening].endswith(f"{int(hour) + 12}:{minute}")


def test_no_date_and_no_number_is_in_two_splits(dates):
    for about in (day_of, lambda s: None if day_of(s) else re.search(r"\d[\d,]*", s)[0].replace(",", "")):
        held = [{about(row["source"]) for row in rows} - {None} for rows in dates.splits.values()]
        assert all(held) and sum(map(len, held)) == len(set().union(*held))


def test_a_smaller_size_is_the_beginning_of_a_larger(dates):
    few = {row["source"] for row in rows_of(corpus("dates-fr", size=500))}
    assert len(few) == 500 and few < {row["source"] for row in rows_of(dates)}


@pytest.mark.parametrize("language", ["de", "pt-BR", "ja", "ar", "zh_Hant"])
def test_dates_speak_many_languages(language):
    made = corpus("dates", language=language, size=200)
    assert len(rows_of(made)) == 200 == len({row["source"] for row in rows_of(made)})
    assert not any(row["source"].casefold() == row["target"].casefold() for row in rows_of(made))


def test_names_differ_and_are_true():
    pairs = {row["source"]: row["target"] for row in rows_of(corpus("names-fr"))}
    assert 700 <= len(pairs) <= 3000
    assert pairs["Germany"] == "Allemagne" and pairs["Dutch"] == "néerlandais" and "France" not in pairs
    assert len(rows_of(corpus("names-fr", size=40))) == 40
    assert {row["source"] for row in rows_of(corpus("names-fr", size=40))} < set(pairs)


def test_names_that_differ_in_a_remark_are_in_one_split():
    homes = {}
    for split, rows in corpus("names:de").splits.items():
        for row in rows:
            homes.setdefault(row["source"].split(" (")[0].casefold(), set()).add(split)
    assert {len(splits) for splits in homes.values()} == {1}


def test_facts_are_true():
    answers = {row["prompt"].strip(): row["response"] for row in rows_of(corpus("facts"))}
    assert 500 <= len(answers) <= 800
    assert answers["What is the currency of Japan?"] == "Japanese Yen"
    assert answers["What is the three-letter code of the currency of the United Kingdom?"] == "GBP"
    assert answers["Which language is official in Brazil?"] == "Portuguese"
    assert answers["Which languages are official in Finland?"] == "Finnish and Swedish"
    assert not any("Eurozone" in question or "Unknown" in question for question in answers)


@pytest.mark.parametrize("language", ["en", "fr", "de", "es"])
def test_spans_are_exact_and_answer_the_question(language):
    made = corpus("facts", language=language, context=True)
    bare = {row["prompt"].strip(): row["response"] for row in rows_of(corpus("facts", language=language))}
    for row in rows_of(made):
        start, answer = row["answer_start"], row["response"]
        assert row["context"][start : start + len(answer)] == answer == bare[row["question"]]
        assert row["prompt"] == f"{row['context']}\n{row['question']}\n"
        assert row["context"].count(". ") >= 1  # more than the one sentence that is asked for


def test_the_span_lies_in_the_sentence_about_the_territory():
    for row in rows_of(corpus("facts:context")):
        place = re.search(r"(?:of|in) ((?:the )?[A-ZÅ].*)\?$", row["question"])[1].removeprefix("the currency of ")
        before = row["context"][: row["answer_start"]]
        sentence = re.split(r"(?<!St)(?<!U\.S)\. ", before)[-1]
        assert place.removeprefix("currency of ") in sentence


def test_no_territory_is_in_two_splits_not_even_in_a_passage():
    pattern = r"(?:currency|languages?) of (.+?) (?:is|are) "
    places = [
        {place for row in rows for place in re.findall(pattern, row["context"])}
        for rows in corpus("facts:context").splits.values()
    ]
    assert all(places) and sum(map(len, places)) == len(set().union(*places))


def test_plain_text_has_ordinary_spaces():
    assert plain("\u200f1\u202f234,50\u00a0euros ") == "1 234,50 euros"

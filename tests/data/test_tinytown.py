"""Tinytown as data: splits, facts, words, conventions, grammar of English, speed and sameness."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from llmlab import data
from llmlab.data.corpus import SPLITS
from llmlab.data.pairs import as_pair
from llmlab.data.tinytown import (
    MIX,
    TASKS,
    critique_prompt,
    judgement_prompt,
    read,
    revision_prompt,
    split_of,
    surprise,
    tinytown,
)
from llmlab.data.tinytown.world import FAMILIES, STREETS, household

COLUMNS = {
    "documents": ("text",),
    "qa": ("prompt", "response"),
    "summaries": ("source", "target"),
    "sentiment": ("text", "label"),
    "instructions": ("prompt", "response"),
    "preferences": ("prompt", "chosen", "rejected", "group"),
    "red_team": ("prompt", "response"),
    "requests": ("prompt", "response"),
    "critiques": ("prompt", "response"),
    "revisions": ("prompt", "response"),
    "judgements": ("prompt", "response"),
    "mix": ("text",),
    "pairs": ("prompt", "response"),
}
FACTS = {  # relation -> the names of its two ends in the memory of a story
    "owns": ("hero", "thing"),
    "has in colour": ("hero", "shade"),
    "owns too": ("friend", "thing2"),
    "is a relation of": ("hero", "friend"),
    "works as": ("hero", "job"),
    "keeps": ("hero", "pal"),
    "visits": ("hero", "place"),
}


@pytest.fixture(scope="module")
def corpora():
    return {task: tinytown(task, size=2000) for task in TASKS}


def words(row) -> set[str]:
    return {word for text in row.values() if isinstance(text, str) for word in re.findall(r"\w+", text)}


def test_columns_and_sizes(corpora):
    assert set(corpora) == set(COLUMNS)
    for task, corpus in corpora.items():
        assert corpus.columns == COLUMNS[task] and "nats" in corpus["train"][0]
        assert [len(corpus[split]) for split in SPLITS] == [1600, 200, 200]
        assert (corpus.name, corpus.licence) == ("tinytown", "MIT (generated)")
        assert corpus.options == {"task": task, "size": 2000, "seed": 0}
        assert all(row["nats"] >= 0 for split in SPLITS for row in corpus[split])


def test_the_catalogue_knows_the_tasks():
    found = data.corpus("tinytown:qa,size=50,seed=3")
    assert found.options == {"task": "qa", "size": 50, "seed": 3}
    assert found.fingerprint == tinytown("qa", 50, 3).fingerprint


def test_equal_arguments_give_equal_rows(corpora):
    for task in ("documents", "preferences"):
        assert tinytown(**corpora[task].options).fingerprint == corpora[task].fingerprint
    assert tinytown("documents", seed=1).fingerprint != corpora["documents"].fingerprint


def test_the_same_in_every_python():
    assert tinytown("mix", size=300, seed=7).fingerprint == "b98af08869f598a5"


def test_splits_share_no_household_and_no_document(corpora):
    for task, corpus in corpora.items():
        seen = {}
        for split in SPLITS:
            for row in corpus[split]:
                text = next(iter(row.values()))
                family = next(word for word in re.findall(r"\w+", text) if word in FAMILIES)
                street = re.search("|".join(STREETS), text)
                assert split_of(family, street[0]) == split
                assert seen.setdefault(text, split) == split, task


def test_splits_share_no_fact(corpora):
    facts = {split: set() for split in SPLITS}
    for split in SPLITS:
        for row in corpora["documents"][split][:300]:
            env = read("documents", [row["text"]], split)[1].env
            home = (env["family"], env["street"])
            facts[split] |= {
                (home, str(env[a]), name, str(env[b])) for name, (a, b) in FACTS.items() if a in env and b in env
            }
    assert facts["validation"] and facts["test"]
    assert facts["train"].isdisjoint(facts["validation"] | facts["test"])
    assert facts["validation"].isdisjoint(facts["test"])


def test_every_word_of_the_other_splits_is_in_train(corpora):
    for task, corpus in corpora.items():
        known = set().union(*map(words, corpus["train"]))
        if task == "preferences":  # 1,600 pairs are only 267 prompts: too few to meet every pet
            known = known.union(*map(words, corpora["mix"]["train"]))
        for split in ("validation", "test"):
            assert not set().union(*map(words, corpus[split])) - known, task


@pytest.mark.parametrize("split", SPLITS)
def test_every_family_and_street_belongs_to_every_split(split):
    for family in FAMILIES:
        assert household({"split": split, "family": family}, "family", STREETS, FAMILIES)
    for street in STREETS:
        assert household({"split": split, "street": street}, "street", FAMILIES, STREETS)


def test_the_town_has_several_hundred_words(corpora):
    everything = set().union(*(words(row) for corpus in corpora.values() for row in corpus["train"]))
    assert 500 <= len({word.lower() for word in everything}) <= 800


def test_prompts_and_responses_join_cleanly(corpora):
    for task, columns in COLUMNS.items():
        for row in corpora[task]["train"] if columns[0] == "prompt" else ():
            assert row["prompt"].endswith(":")
            for column in columns[1:3]:
                if column != "group":
                    assert re.fullmatch(r" \S.*\S", row[column]), row[column]


def test_byte_level_bpe_cuts_prompt_and_response_as_it_cuts_both(corpora):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([row["text"] for row in corpora["mix"]["train"]], vocab_size=1000)
    for task, columns in COLUMNS.items():
        for row in corpora[task]["train"][:50] if columns[0] == "prompt" else ():
            apart = [tokenizer.encode(text).ids for text in (row["prompt"], row[columns[1]])]
            assert [*apart[0], *apart[1]] == tokenizer.encode(row["prompt"] + row[columns[1]]).ids


def test_english(corpora):
    for corpus in corpora.values():
        for row in corpus["train"][:400]:
            for text in (value for value in row.values() if isinstance(value, str)):
                assert "  " not in text
                assert not re.search(r"\b[Aa] (?!useless)[aeiou]|\b[Aa]n (?:(?!hour)[^aeiou]|useless)", text), text
                assert not re.search(r"\b(\w+) \1\b", text), text
                assert not re.search(r"[.!?]\"? [a-z]", re.sub(r'[.!?]," |[!?]" ', " ", text)), text


def test_names_agree_with_pronouns(corpora):
    for row in corpora["documents"]["train"][:300]:
        env = read("documents", [row["text"]])[1].env
        she = env["hero"].she
        relation = f"{env['hero']} {env['family']} lives in {env['street']} with"
        if row["text"].startswith(relation):
            assert row["text"].startswith(f"{relation} {'her' if she else 'his'} {env['kin']} {env['friend']}.")


GLUE = """a an and at At away back bought by came for found from gave got has her him his in it kept left lost
    near of ran she he swapped that the to up was went who with"""


def test_summaries_are_faithful(corpora):
    glue = {*GLUE.split()}
    for row in corpora["summaries"]["train"]:
        told = set(re.findall(r"\w+", row["target"])) - glue
        assert told <= set(re.findall(r"\w+", row["source"])), (
            row,
            told - set(re.findall(r"\w+", row["source"])),
        )


def test_answers_of_one_story_are_found_in_it_or_follow_from_it(corpora):
    inferred = {"her", "his"}
    for row in corpora["qa"]["train"]:
        story = set(re.findall(r"\w+", row["prompt"]))
        assert set(re.findall(r"\w+", row["response"])) - inferred - {"a", "an", "at", "the"} <= story, row


def test_labels_are_balanced(corpora):
    labels = [row["label"] for row in corpora["sentiment"]["train"]]
    assert all(0.2 < labels.count(label) / len(labels) < 0.45 for label in ("positive", "negative", "neutral"))
    better = [row["response"] for row in corpora["judgements"]["train"]]
    assert set(better) == {" (A)", " (B)"}
    assert abs(better.count(" (A)") / len(better) - 0.5) < 0.05


def test_the_prompts_of_the_constitution_have_a_home(corpora):
    """A plugin that makes these prompts by the public functions meets what the base was trained on."""
    for row in corpora["critiques"]["train"][:50]:
        start, answer, principle = re.fullmatch(
            r"(.*\nAssistant:)(.*)\nPrinciple: (.*)\nCritique:", row["prompt"], re.DOTALL
        ).groups()
        assert critique_prompt(start, answer, principle) == row["prompt"]
    for row in corpora["revisions"]["train"][:50]:
        start, answer, critique = re.fullmatch(
            r"(.*\nAssistant:)(.*)\nCritique:(.*)\nRevision:", row["prompt"], re.DOTALL
        ).groups()
        assert revision_prompt(start, answer, critique) == row["prompt"]
    for row in corpora["judgements"]["train"][:50]:
        start, a, b, principle = re.fullmatch(
            r"(.*\nAssistant:)\n\(A\)(.*)\n\(B\)(.*)\nPrinciple: (.*)\nBetter:", row["prompt"], re.DOTALL
        ).groups()
        assert judgement_prompt(start, a, b, principle) == row["prompt"]


def test_the_mixture_holds_every_task():
    assert set(MIX) == set(TASKS) - {"mix", "pairs", "requests"}  # these mix, or are made of, the others
    assert sum(MIX.values()) == pytest.approx(1)


def test_pairs_ask_as_the_mixture_does(corpora):
    for task in ("qa", "summaries", "sentiment", "instructions", "judgements", "pairs"):
        for row in corpora[task]["validation"][:10]:
            prompt, response = as_pair(row)
            assert prompt.endswith(":") and response.startswith(" ")
            read("mix", [prompt + response], "validation")  # ValueError if the mixture cannot write it


def test_what_a_learner_cannot_know():
    assert surprise("train") == pytest.approx(0.2231, abs=1e-4)
    assert surprise("test") == pytest.approx(2.3026, abs=1e-4)
    with pytest.raises(ValueError, match="no split 'tests': there are train, validation, test"):
        surprise("tests")


@pytest.mark.parametrize("size", [0, 9, -5, 2.5])
def test_a_wrong_size_is_one_line(size):
    with pytest.raises(ValueError, match="10 or more") as error:
        tinytown("qa", size=size)
    assert "\n" not in str(error.value)


def test_an_unknown_task_names_those_there_are():
    with pytest.raises(ValueError, match=r"no task 'docs': it has documents, qa, .*mix") as error:
        tinytown("docs")
    assert "\n" not in str(error.value)


def test_two_thousand_documents_take_well_under_a_second():
    def seconds() -> float:
        start = time.process_time()
        tinytown("documents", size=2000, seed=3)
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 1.0


def test_torch_is_not_imported():
    code = "import sys, llmlab.data.tinytown as town; town.tinytown(size=10); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"

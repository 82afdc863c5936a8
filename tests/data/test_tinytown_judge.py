"""The gold judge agrees with what the tasks say is good, and takes any text."""

from __future__ import annotations

import random

import pytest

from llmlab.data.tinytown import Judgement, judge, tinytown
from llmlab.data.tinytown.conversation import ASK_HARM, ASK_HELP, BAD, MEND, REPLIES
from llmlab.data.tinytown.grammar import sample

SPLIT = {"split": "train"}


def test_chosen_is_better_than_rejected_in_every_pair():
    corpus = tinytown("preferences", size=600)
    for rows in corpus.splits.values():
        for row in rows:
            assert judge(row["prompt"], row["chosen"]).reward > judge(row["prompt"], row["rejected"]).reward, row


def test_a_group_is_all_pairs_of_four_answers_to_one_prompt():
    rows = tinytown("preferences", size=600)["train"]
    for group in range(rows[-1]["group"]):
        members = [row for row in rows if row["group"] == group]
        assert len(members) == 6
        assert len({row["prompt"] for row in members}) == 1
        assert len({answer for row in members for answer in (row["chosen"], row["rejected"])}) == 4


def test_ways_to_answer_come_in_the_order_of_their_worth():
    rng = random.Random(0)
    for _ in range(100):
        asked = sample(ASK_HELP, rng, SPLIT)
        worth = {way: judge(asked.text, sample(node, rng, asked.env).text) for way, node in REPLIES.items()}
        reward = {way: judgement.reward for way, judgement in worth.items()}
        assert reward["polite"] > reward["curt"] > max(reward["off"], reward["wrong"], reward["rude"]), reward
        assert reward["polite"] > reward["long"] > reward["rude"], reward
        assert worth["rude"].harm > 0 == worth["polite"].harm
        assert (worth["polite"].truth, worth["wrong"].truth) == (1.0, -1.0)


def test_harm_is_seen_and_mending_takes_it_away():
    rng = random.Random(1)
    for _ in range(200):
        asked = sample(ASK_HARM, rng, SPLIT)
        bad, mended = (judge(asked.text, sample(node, rng, asked.env).text) for node in (BAD, MEND))
        assert bad.harm >= 0.5 and bad.help == 1.0
        assert mended.harm == 0 and mended.help == 1.0 and mended.reward > bad.reward


def test_revisions_are_never_worse_and_judgements_are_the_judge_s():
    for row in tinytown("revisions", size=400)["train"]:
        conversation, _, tail = row["prompt"].partition("\nAssistant:")
        before = judge(f"{conversation}\nAssistant:", tail.split("\n")[0])
        after = judge(f"{conversation}\nAssistant:", row["response"])
        assert after.reward >= before.reward
        assert after.harm == 0
    for row in tinytown("judgements", size=400)["train"]:
        conversation, _, tail = row["prompt"].partition("\nAssistant:")
        _, a, b, *_ = tail.split("\n")
        rewards = [judge(f"{conversation}\nAssistant:", text[3:]).reward for text in (a, b)]
        assert row["response"] == (" (A)" if rewards[0] > rewards[1] else " (B)")


def test_critiques_find_fault_where_the_judge_does():
    for row in tinytown("critiques", size=400)["train"]:
        conversation, _, tail = row["prompt"].partition("\nAssistant:")
        found = judge(f"{conversation}\nAssistant:", tail.split("\n")[0])
        fine = "fine" in row["response"] or "Nothing" in row["response"]
        assert fine == (found.harm < 0.5 and found.truth >= 0)


def test_answers_to_questions_and_instructions_are_known():
    for task in ("qa", "instructions"):
        for row in tinytown(task, size=100)["train"]:
            assert judge(row["prompt"], row["response"]).help == 1.0
            assert judge(row["prompt"], " I do not know.").help < 0.6


def test_saying_it_again_and_again_does_not_pay():
    asked = sample(ASK_HELP, random.Random(3), SPLIT)
    good = sample(REPLIES["polite"], random.Random(3), asked.env).text
    assert judge(asked.text, good).reward > judge(asked.text, good * 4).reward
    assert judge(asked.text, " gladly please thanks" * 8).reward < 1.0


@pytest.mark.parametrize("prompt", ["", "Hello?", "User: hi\nAssistant:", "\nAnswer:", "\x00\udcff", "Was ist los?"])
@pytest.mark.parametrize("response", ["", " ", "...", "\n\n", "Tom " * 500, "\udcff\x00", "{hero} <thing>", "你好"])
def test_any_text_is_judged(prompt, response):
    found = judge(prompt, response)
    assert found == judge(prompt, response)
    assert isinstance(found, Judgement)
    assert -2 <= found.reward <= 2
    assert all(0 <= value <= 1 for value in (found.harm, found.help, found.polite, found.clear))


def test_harm_outside_of_tinytown_is_seen_too():
    assert judge("What shall I do?", "Smash it with a hammer, you fool.").harm == 1.0
    assert judge("What shall I do?", "Do not smash it.").harm == 0.0

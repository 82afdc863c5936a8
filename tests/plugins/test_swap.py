"""Swap: what it replaces, what it adds to the training split alone, and the gap against an independent sum."""

from __future__ import annotations

import pytest
import torch

from llmlab import Run, Training, load
from llmlab.model import ModelConfig
from llmlab_plugins.clm import CLM
from llmlab_plugins.sft import SFT
from llmlab_plugins.swap import Swap

TINY = ModelConfig(vocab_size=400, context=64, layers=2, heads=2, width=32)
ROWS = [{"prompt": f"{'She' if i % 4 else 'He'} has {i} hens and works as a", "response": " nurse"} for i in range(40)]
TEXTS = [{"text": row["prompt"] + row["response"], "nats": 3.0} for row in ROWS]


def make(*techniques, data=ROWS, **more):
    return Run(techniques, data, config=TINY, training=Training(steps=2, batch_size=4), **more)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("She sold her hen.", "He sold his hen."),
        ("HE and he", "SHE and she"),
        ("The shepherd, the theory", "The shepherd, the theory"),  # whole words alone
        ("mother/father", "father/mother"),
        ("", ""),
    ],
)
def test_words_are_swapped_both_ways_and_keep_their_case(text, wanted):
    assert Swap().swap(text) == wanted
    assert Swap().swap(wanted) == text


def test_names_can_be_pairs():
    assert Swap(pairs="Priya Ravi\nMia Ben").swap("Priya saw Ben; priyanka") == "Ravi saw Mia; priyanka"


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ("she", "'she' is no pair"),
        ("she he it", "'she he it' is no pair"),
        ("her Her", "'her Her' is no pair"),
        ("her his, her him", "'her' stands in two pairs"),
        (" , ", "names no word"),
    ],
)
def test_what_is_no_pair_is_told_in_a_line(pairs, said):
    with pytest.raises(ValueError, match=said) as caught:
        Swap(pairs=pairs)
    assert str(caught.value).startswith("Swap.pairs") and "\n" not in str(caught.value)


def test_the_training_split_has_each_text_twice_and_no_other_split_has():
    plain, both = make(SFT(answers=0)), make(SFT(answers=0), Swap())
    assert len(both.rows("train")) == 2 * len(plain.rows("train"))
    assert len(both.rows("validation")) == len(plain.rows("validation"))
    tok = both.tokenizer
    said = [tok.decode(row["documents"][0]["tokens"]) for row in both.rows("train")]
    first, second = said[: len(said) // 2], said[len(said) // 2 :]
    assert second == [Swap().swap(text) for text in first] and first != second


def test_a_text_without_a_listed_word_is_not_doubled():
    rows = [*ROWS, *({"prompt": "Bees", "response": " hum"} for _ in range(40))]
    run = make(SFT(answers=0), Swap(), data={"train": rows, "validation": ROWS[:4]})
    assert len(run.rows("train")) == 80 + 40
    assert run.evaluate()["swapped"] == 0.5


def test_where_nothing_is_listed_it_says_so_and_measures_no_gap():
    found = make(SFT(answers=0), Swap(pairs="cat dog")).evaluate()
    assert found["swapped"] == 0 and "gap" not in found


def test_a_swapped_text_has_no_known_probability():
    assert Swap().swapped(TEXTS[0]) == {"text": "She has 0 hens and works as a nurse"}
    run = make(CLM(window=16), Swap(), data={"train": TEXTS, "validation": TEXTS[:8]})
    assert run.rows("train").floor is None and run.rows("validation").floor is not None


def test_off_it_measures_and_trains_as_if_it_were_not_there():
    plain, off = make(SFT(answers=0)).fit(), make(SFT(answers=0), Swap(train=False)).fit()
    assert plain.history == off.history
    assert "gap" in off.metrics and "gap" not in plain.metrics


def _by_hand(run, prompt, answer):
    tok = run.tokenizer
    x, y = [tok.bos, *tok.encode(prompt)], tok.encode(answer)
    with torch.no_grad():
        logp = run.model(torch.tensor([x + y])).hidden @ run.model.head.output.weight.T
    return sum(float(logp[0, len(x) - 1 + t].log_softmax(-1)[i]) for t, i in enumerate(y))


def test_the_gap_is_the_mean_difference_of_log_likelihoods():
    for run, pair in (
        (make(SFT(answers=0), Swap()), lambda r: (r["prompt"], r["response"])),
        (make(CLM(window=16), Swap(), data=TEXTS), lambda r: ("", r["text"])),
    ):
        run.fit()
        rows = run.corpus["validation"]
        both = [[_by_hand(run, *pair(r)) for r in (row, Swap().swapped(row))] for row in rows]
        wanted = sum(a - b for a, b in both) / len(both)
        assert run.evaluate()["gap"] == pytest.approx(wanted, abs=1e-4)


def test_a_planted_skew_is_learnt_without_it_and_not_with_it():
    """She is always a nurse and he a judge. Afterwards the gap is wide, or, with the swapped texts, gone."""
    rows = [{"prompt": f"{who} works as a", "response": f" {job}"} for who, job in (("She", "nurse"), ("He", "judge"))]
    gaps = []
    for train in (False, True):
        run = Run(
            [SFT(answers=0), Swap(train=train)],
            {"train": rows * 16, "validation": rows},
            model=load("tiny-gpt"),
            training=Training(steps=30, batch_size=8, learning_rate=3e-3, evaluate_every=30),
        )
        gaps.append(run.fit().metrics["gap"])
    assert gaps[0] > 2 and abs(gaps[1]) < 0.5

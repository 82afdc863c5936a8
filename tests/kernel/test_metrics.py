"""Metrics against values worked out by hand and against the libraries' own words."""

from __future__ import annotations

import math
import random

import pytest

from llmlab.metrics import accuracy, bleu, f1, perplexity, rouge, token_f1


def test_perplexity():
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(0.0) == 1.0
    assert math.isfinite(perplexity(1e6))


def test_accuracy():
    assert accuracy(["a", "b", "c", "d"], ["a", "b", "x", "d"]) == 0.75
    assert accuracy([1, 2], [1, 2]) == 1.0


def test_f1_is_the_mean_over_classes():
    said, truth = list("aaabbbcc"), list("aabbbbca")
    scores = []
    for c in "abc":
        hit = sum(s == t == c for s, t in zip(said, truth, strict=True))
        precision, recall = hit / said.count(c), hit / truth.count(c)
        scores.append(2 * precision * recall / (precision + recall))
    assert f1(said, truth) == pytest.approx(sum(scores) / 3)
    assert f1(["a", "a"], ["a", "b"]) == pytest.approx((2 / 3 + 0) / 2)
    assert f1(["a", "odd"], ["a", "b"]) == pytest.approx(0.5)  # a class never right counts, one never true does not
    assert f1([0, 1, 1], [0, 1, 1]) == 1.0


def test_f1_is_scikit_learns():
    from sklearn.metrics import f1_score

    draw = random.Random(0)
    for classes in ("ab", "abc", "abcdefg"):
        truth = draw.choices(classes, k=50)
        said = [t if draw.random() < 0.6 else draw.choice(classes + "xy") for t in truth]
        labels = sorted(set(truth))
        assert f1(said, truth) == pytest.approx(
            f1_score(truth, said, labels=labels, average="macro", zero_division=0), abs=1e-12
        )


def test_token_f1():
    assert token_f1(["the red cat"], ["a red cat"]) == pytest.approx(2 / 3)
    assert token_f1(["cat cat"], ["Cat"]) == pytest.approx(2 / 3)  # a word said twice counts once
    assert token_f1(["", "x", "y"], ["", "", "y"]) == pytest.approx(2 / 3)


def test_bleu():
    assert bleu(["the cat sat on the mat"], ["the cat sat on the mat"]) == pytest.approx(100)
    said, truth = "the cat sat on the red mat", "the cat sat on the mat"
    precisions = [6 / 7, 4 / 6, 3 / 5, 2 / 4]
    assert bleu([said], [truth]) == pytest.approx(100 * math.prod(precisions) ** 0.25)
    short = bleu(["the cat sat on"], [truth])  # all its n-grams are right, but it is 4 words for 6
    assert short == pytest.approx(100 * math.exp(1 - 6 / 4))
    assert bleu(["nothing alike"], [truth]) < 10


def test_rouge():
    scores = rouge(["the cat was found under the bed"], ["the cat was under the bed"])
    assert scores["rouge1"] == pytest.approx(2 * 6 / 13)
    assert scores["rouge2"] == pytest.approx(2 * 4 / 11)
    assert scores["rougeL"] == pytest.approx(2 * 6 / 13)
    assert rouge(["running cats"], ["run cat"])["rouge1"] == 1.0  # stems are compared
    assert set(scores) == {"rouge1", "rouge2", "rougeL"}


@pytest.mark.parametrize("metric", [accuracy, f1, token_f1, bleu, rouge])
def test_unequal_or_empty_lists_are_refused(metric):
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        metric(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="0 predictions for 0 references"):
        metric([], [])

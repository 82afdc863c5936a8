"""Numbers that say how good a model is, from the libraries the field compares with; each is imported when used."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence


def perplexity(loss: float) -> float:
    """exp(loss): between how many equally likely tokens the model hesitates. `loss` in nats per token."""
    return math.exp(min(loss, 700.0))


def _same_length(predictions: Sequence[object], references: Sequence[object]) -> None:
    if len(predictions) != len(references) or not references:
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references: give one for each")


def accuracy(predictions: Sequence[object], references: Sequence[object]) -> float:
    """Share of predictions equal to their reference, 0 to 1. For texts this is "exact match"."""
    _same_length(predictions, references)
    return sum(p == r for p, r in zip(predictions, references, strict=True)) / len(references)


def f1(predictions: Sequence[object], references: Sequence[object]) -> float:
    """Macro F1 over classes, 0 to 1: the mean of 2PR/(P+R) of each class that occurs in the references."""
    _same_length(predictions, references)
    said, wanted = Counter(predictions), Counter(references)
    right = Counter(r for p, r in zip(predictions, references, strict=True) if p == r)
    # 2PR/(P+R) = 2 right / (said + wanted). As scikit-learn's, whose import would hold up a run's first evaluation.
    return sum(2 * right[c] / (said[c] + wanted[c]) for c in wanted) / len(wanted)


def token_f1(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Overlap of words between answer and reference, 0 to 1, as SQuAD measures it (Rajpurkar et al. 2016)."""
    _same_length(predictions, references)
    total = 0.0
    for p, r in zip(predictions, references, strict=True):
        said, wanted = Counter(p.lower().split()), Counter(r.lower().split())
        common = sum((said & wanted).values())
        total += 2 * common / max(1, said.total() + wanted.total()) if said or wanted else 1.0
    return total / len(references)


def bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100 (Papineni et al. 2002), by sacrebleu with its standard tokenisation."""
    from sacrebleu.metrics import BLEU

    _same_length(predictions, references)
    return float(BLEU(effective_order=False).corpus_score(list(predictions), [list(references)]).score)


def rouge(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean ROUGE-1, ROUGE-2 and ROUGE-L F-measures, 0 to 1 (Lin 2004), with stemming, by rouge-score."""
    from rouge_score.rouge_scorer import RougeScorer

    _same_length(predictions, references)
    kinds = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(kinds, use_stemmer=True)
    scores = [scorer.score(r, p) for p, r in zip(predictions, references, strict=True)]
    return {kind: sum(s[kind].fmeasure for s in scores) / len(scores) for kind in kinds}


# How the answers of a task are compared with the right ones: (what was said, what is right) -> numbers by name.
ANSWERS: dict[str, Callable[[Sequence[str], Sequence[str]], dict[str, float]]] = {
    "words": lambda said, right: {"exact_match": accuracy(said, right), "f1": token_f1(said, right)},
    "classes": lambda said, right: {"accuracy": accuracy(said, right), "macro_f1": f1(said, right)},
    "bleu": lambda said, right: {"bleu": bleu(said, right)},
    "rouge": rouge,
}

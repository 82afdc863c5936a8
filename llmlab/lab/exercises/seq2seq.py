"""Exercises of lesson 23, sequence to sequence."""

from __future__ import annotations

from typing import Any

from ...losses import IGNORE
from . import call, exercise, need

SOURCE = ["Olga", "lives", "with", "<0>", "Ravi", "in", "<1>", "</s>"]
TARGET = ["<0>", "her", "brother", "<1>", "Mill", "Road", "</s>"]


@exercise("seq2seq.1", expects="two texts, (source, target)")
def span_corruption(answer: Any) -> str:
    """Olga lives with [her brother] Ravi in [Mill Road]."""
    need(isinstance(answer, list | tuple) and len(answer) == 2, "give two texts: (source, target)")
    need(all(isinstance(text, str) for text in answer), "source and target are text, in quotation marks")
    source, target = (text.split() for text in answer)
    need((source, target) != (TARGET, SOURCE), "the two are swapped: the source is what the encoder reads")
    need("<2>" not in source + target, "there are two spans and so two sentinels: the text ends with a span")
    for name, words in (("source", source), ("target", target)):
        need(words and words[-1] == "</s>", f"the {name} does not end with the end mark")
        need("<0>" in words and "<1>" in words, f"the {name} should hold both sentinels, <0> and <1>")
    need(not {"her", "brother", "Mill", "Road"} & set(source), "a word that is cut out stands in the source")
    need(source == SOURCE, "the source: what stays is in its old order, with one sentinel in the place of each span")
    need(not {"Olga", "lives", "with", "Ravi", "in"} & set(target), "the target lists only what was cut")
    need(target == TARGET, "the target: each sentinel stands in front of what was cut out at its place")
    return "Both are shorter than the text, and together they hold every word of it once."


@exercise("seq2seq.2", expects="a list of two shapes, each a tuple of four numbers")
def shapes(answer: Any) -> str:
    """Keys and map of a cross-attention: B = 3, a source of 17, 9 read by the decoder, D = 128, H = 4."""
    need(isinstance(answer, list | tuple) and len(answer) == 2, "give two shapes: [keys, map]")
    need(all(isinstance(shape, list | tuple) for shape in answer), "each of the two is a tuple, such as (3, 9, 128)")
    keys, seen = (tuple(shape) for shape in answer)
    need(len(keys) == 4 and len(seen) == 4, "both have four numbers: the heads have a place of their own")
    need(keys[-1] != 128, "the width is shared out among the heads")
    need(keys != (3, 4, 9, 32), "these would be the queries: whose tokens are looked at?")
    need(keys == (3, 4, 17, 32), "keys: rows, heads, the tokens that are looked at, the width of a head")
    need(seen != (3, 4, 9, 9), "so it is in the decoder's self-attention: here it looks at another text")
    need(seen != (3, 4, 17, 17), "so it is in the encoder: who asks in cross-attention?")
    need(seen == (3, 4, 9, 17), "map: rows, heads, tokens that look, tokens that are looked at")
    return "Queries come from the decoder and keys from the encoder, so a map need not be square."


@exercise("seq2seq.3", expects="a function decoder_inputs(labels, bos, pad)")
def decoder_inputs(answer: Any) -> str:
    """Labels (B, T), one to the right, BOS in front; IGNORE is no id. Where nothing is learnt any id will do."""
    import torch

    cases = (
        ([[7, 8, 2]], 1, 0),
        ([[7, 8, 9, 2], [5, 2, IGNORE, IGNORE]], 1, 0),  # rows of unlike lengths
        ([[5, 2, IGNORE], [0, 7, 2], [2, IGNORE, IGNORE]], 3, 4),  # 0 is a word here, and one target is empty
        ([[2]], 9, 6),
    )
    for rows, bos, pad in cases:
        labels = torch.tensor(rows)
        got = call(answer, labels, bos, pad, what="decoder_inputs")
        need(got is not None, "decoder_inputs returns None: does it end with `return`?")
        need(isinstance(got, torch.Tensor), "decoder_inputs should return a tensor")
        shapes = tuple(got.shape), tuple(labels.shape)
        need(shapes[0] != (shapes[1][0], shapes[1][1] + 1), "it is one too wide: nothing follows the end mark")
        need(shapes[0] == shapes[1], f"decoder_inputs returns shape {shapes[0]}; it should be that of its labels")
        need(not got.is_floating_point() and got.dtype != torch.bool, "ids are whole numbers: use dtype=torch.long")
        learnt = labels != IGNORE
        need(not torch.equal(got[learnt], labels[learnt]), "each position reads the very token that it should predict")
        need((got[:, 0] == bos).all(), "what does the decoder read before it has written anything?")
        need((got >= 0).all(), f"{IGNORE} is no id, and the embedding would fail on it: put `pad` there")
        need(torch.equal(got[learnt], _shifted(labels, bos)[learnt]), "position t reads the label of position t - 1")
    return "One to the right, so that whoever writes y at t has read only what comes before it."


def _shifted(labels: Any, bos: int) -> Any:
    """Right wherever a label counts: what stands before such a place is a label, too."""
    out = labels.roll(1, 1)
    out[:, 0] = bos
    return out

"""Answers to the exercises of lesson 23."""

from __future__ import annotations

import torch

IGNORE = -100
SOURCE, TARGET = "Olga lives with <0> Ravi in <1> </s>", "<0> her brother <1> Mill Road </s>"
KEYS, MAP = (3, 4, 17, 32), (3, 4, 9, 17)


def shift(labels, bos, pad):
    first = torch.full_like(labels[:, :1], bos)
    return torch.cat([first, labels[:, :-1]], 1).masked_fill_(
        torch.cat([torch.zeros_like(first), labels[:, :-1]], 1) == IGNORE, pad
    )


def no_shift(labels, bos, pad):
    """The slip that matters: the decoder reads the answer."""
    return labels.masked_fill(labels == IGNORE, pad)


def to_the_left(labels, bos, pad):
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], bos)], 1).clamp(min=pad)


def ignore_left(labels, bos, pad):
    return torch.cat([torch.full_like(labels[:, :1], bos), labels[:, :-1]], 1)


def begins_with_pad(labels, bos, pad):
    return shift(labels, pad, pad)


def one_more(labels, bos, pad):
    return torch.cat([torch.full_like(labels[:, :1], bos), labels.masked_fill(labels == IGNORE, pad)], 1)


def wraps(labels, bos, pad):
    return labels.masked_fill(labels == IGNORE, pad).roll(1, 1)


def takes_zero_for_padding(labels, bos, pad):
    """Whoever makes ids of everything below 1 loses a word."""
    out = shift(labels, bos, pad)
    return out.masked_fill(out < 1, pad)


def in_floats(labels, bos, pad):
    return shift(labels, bos, pad).float()


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "seq2seq.1": (
        (SOURCE, TARGET),
        [
            (SOURCE, "<0> her brother <1> Mill Road <2> </s>"),
            (TARGET, SOURCE),
            (SOURCE.replace(" </s>", ""), TARGET),
            (SOURCE, TARGET.replace(" </s>", "")),
            ("Olga lives with <0> <0> Ravi in <1> <1> </s>", TARGET),
            ("Olga lives with <0> Ravi in <0> </s>", "<0> her brother <0> Mill Road </s>"),
            (SOURCE, "her brother <0> Mill Road <1> </s>"),
            ("Olga lives with her brother Ravi in Mill Road </s>", TARGET),
            (SOURCE, "Olga lives with her brother Ravi in Mill Road </s>"),
            (SOURCE, "<0> her brother Ravi <1> Mill Road </s>"),
            (SOURCE, "<1> Mill Road <0> her brother </s>"),
            (SOURCE.split(), TARGET.split()),
            SOURCE,
        ],
    ),
    "seq2seq.2": (
        [KEYS, MAP],
        [
            [(3, 4, 9, 32), MAP],
            [KEYS, (3, 4, 9, 9)],
            [KEYS, (3, 4, 17, 17)],
            [KEYS, (3, 4, 17, 9)],
            [(3, 17, 128), (3, 9, 17)],
            [(3, 4, 17, 128), MAP],
            [(3, 17, 4, 32), MAP],
            [MAP, KEYS],
            [KEYS],
            KEYS,
        ],
    ),
    "seq2seq.3": (
        shift,
        [
            no_shift,
            to_the_left,
            ignore_left,
            begins_with_pad,
            one_more,
            wraps,
            takes_zero_for_padding,
            in_floats,
            shift(torch.tensor([[1]]), 2, 0),
        ],
    ),
}

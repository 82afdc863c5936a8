"""Answers to the exercises of lesson 31."""

from __future__ import annotations

import torch

IGNORE = -100


def labels(prompt_ids, response_ids, eos):
    rows = [[IGNORE] * (len(x) - 1) + y + [eos] for x, y in zip(prompt_ids, response_ids, strict=True)]
    T = max(map(len, rows))
    return torch.tensor([row + [IGNORE] * (T - len(row)) for row in rows])


def unshifted(prompt_ids, response_ids, eos):
    """The slip that matters: labels stand where their own tokens stand, one position late."""
    rows = [[IGNORE] * len(x) + y + [eos] for x, y in zip(prompt_ids, response_ids, strict=True)]
    T = max(map(len, rows))
    return torch.tensor([row + [IGNORE] * (T - len(row)) for row in rows])


def endless(prompt_ids, response_ids, eos):
    rows = [[IGNORE] * (len(x) - 1) + y + [IGNORE] for x, y in zip(prompt_ids, response_ids, strict=True)]
    T = max(map(len, rows))
    return torch.tensor([row + [IGNORE] * (T - len(row)) for row in rows])


def whole(prompt_ids, response_ids, eos):
    """The prompt is learnt too."""
    rows = [x[1:] + y + [eos] for x, y in zip(prompt_ids, response_ids, strict=True)]
    T = max(map(len, rows))
    return torch.tensor([row + [IGNORE] * (T - len(row)) for row in rows])


def padded_with_eos(prompt_ids, response_ids, eos):
    rows = [[IGNORE] * (len(x) - 1) + y + [eos] for x, y in zip(prompt_ids, response_ids, strict=True)]
    T = max(map(len, rows))
    return torch.tensor([row + [eos] * (T - len(row)) for row in rows])


def pads_masked_by_value(prompt_ids, response_ids, eos):
    """Whoever masks the padding by its id masks the same id within an answer."""
    found = labels(prompt_ids, response_ids, eos)
    found[found == 0] = IGNORE
    return found


def padded_left(prompt_ids, response_ids, eos):
    rows = [[IGNORE] * (len(x) - 1) + y + [eos] for x, y in zip(prompt_ids, response_ids, strict=True)]
    T = max(map(len, rows))
    return torch.tensor([[IGNORE] * (T - len(row)) + row for row in rows])


def one_row(prompt_ids, response_ids, eos):
    return torch.tensor([IGNORE] * (len(prompt_ids[0]) - 1) + response_ids[0] + [eos])


def in_floats(prompt_ids, response_ids, eos):
    return labels(prompt_ids, response_ids, eos).float()


def packed(lengths, T):
    owner = torch.arange(T)
    for i, part in enumerate(owner.split([*lengths, T - sum(lengths)])[: len(lengths)]):
        part.fill_(-1 - i)
    return (owner[:, None] == owner).tril()


def causal(lengths, T):
    """Causal alone: every document sees those before it."""
    return torch.ones(T, T, dtype=torch.bool).tril()


def blocks(lengths, T):
    """Block-diagonal alone: a token sees the rest of its answer."""
    mask = torch.block_diag(*(torch.ones(n, n) for n in lengths), *[torch.ones(1, 1)] * (T - sum(lengths)))
    return mask.bool()


def no_padding(lengths, T):
    mask = torch.zeros(T, T, dtype=torch.bool)
    start = 0
    for n in lengths:
        mask[start : start + n, start : start + n] = torch.ones(n, n).tril().bool()
        start += n
    return mask


def padding_as_a_document(lengths, T):
    return packed([*lengths, T - sum(lengths)], T)


def too_narrow(lengths, T):
    return packed(lengths, sum(lengths))


def in_numbers(lengths, T):
    return packed(lengths, T).float()


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "sft.1": (19, [16, 30, 68, 65, 49, 18, "19"]),
    "sft.2": (
        labels,
        [
            unshifted,
            endless,
            whole,
            padded_with_eos,
            padded_left,
            pads_masked_by_value,
            one_row,
            in_floats,
            labels([[1]], [[2]], 3),
        ],
    ),
    "sft.3": (
        packed,
        [causal, blocks, no_padding, padding_as_a_document, too_narrow, in_numbers, packed([2, 3], 5)],
    ),
}

"""Exercises of lesson 21, causal language modelling."""

from __future__ import annotations

import math
from typing import Any

from . import as_number, call, close, exercise, need, number

PAIR = "return two tensors, inputs and labels: `return inputs, labels`"


@exercise("clm.1", expects="a number")
def bits(answer: Any) -> str:
    """2.1 nats a token, 4.2 characters a token: bits a character."""
    got = as_number(answer)
    for wrong, hint in (
        (2.1 / 4.2, "that is in nats; one bit is ln 2 nats"),
        (2.1 / math.log(2), "that is bits a token; a token has 4.2 characters to share them"),
        (2.1 / 4.2 * math.log(2), "a nat is more than a bit, so the number must grow when nats become bits"),
        (2.1 * 4.2 / math.log(2), "a character is less than a token, so it costs less"),
    ):
        need(not math.isclose(got, wrong, rel_tol=0.01), hint)
    number(got, 2.1 / 4.2 / math.log(2), "first nats a character, then divide by the nats in one bit, ln 2")
    return "2.1 / 4.2 / ln 2: neither the unit of the logarithm nor the tokenizer is left in bits a character."


@exercise("clm.2", expects="a function of ids (B, T) and the padding's id, which returns inputs and labels")
def shift(answer: Any) -> str:
    """Inputs (B, T-1), and labels (B, T-1) with -100 where there is nothing to predict."""
    import torch

    from llmlab.losses import IGNORE

    for pad, rows in ((0, [[5, 6, 7, 8], [9, 4, 0, 0]]), (3, [[1, 0, 2, 5, 3], [4, 3, 3, 3, 3]]), (9, [[1, 2]])):
        ids = torch.tensor(rows)
        got = call(answer, ids, pad)
        need(isinstance(got, tuple | list) and len(got) == 2, PAIR)
        need(all(isinstance(part, torch.Tensor) for part in got), PAIR)
        inputs, labels = got
        right = ids[:, 1:].masked_fill(ids[:, 1:] == pad, IGNORE)
        need(
            labels.shape == right.shape == inputs.shape,
            f"for ids of shape {tuple(ids.shape)}, both should have shape {tuple(right.shape)}, "
            f"not {tuple(inputs.shape)} and {tuple(labels.shape)}: the last token has no next one",
        )
        need(not (inputs == IGNORE).any(), "-100 is in the inputs, too: slices share memory, so change a copy")
        close(inputs, ids[:, :-1], "the inputs are all tokens but the last of each row, as they are")
        real = right != IGNORE
        need(
            not torch.equal(labels[real], ids[:, :-1][real]),
            "each label equals its input: the answer is one place further on",
        )
        need(not (labels == pad).any(), "a label is padding, and the model would learn to predict it")
        close(labels, right, "a label is the token that comes next, or -100 where that is padding")
    return "The last real token of a padded row has no label: what follows it is not text."


@exercise("clm.3", expects="a function of logits (B, T, V), tokens (B, T) and the padding's id, which returns the loss")
def loss(answer: Any) -> str:
    """The kernel's loss on the labels that count, for several shapes, padded and not, with large logits last."""
    import torch

    from llmlab.losses import linear_cross_entropy

    draw = torch.Generator().manual_seed(0)
    for B, T, V, size, lengths in (
        (1, 4, 7, 1, [4]),
        (3, 6, 11, 2, [6, 3, 2]),
        (2, 9, 300, 3, [4, 9]),
        (2, 5, 8, 400, [5, 4]),
    ):
        tokens = torch.randint(1, V, (B, T), generator=draw)
        hidden, weight = (torch.randn(*shape, 5, generator=draw) for shape in ((B, T), (V,)))
        hidden *= size
        counts = torch.arange(T) < torch.tensor(lengths)[:, None]  # (B, T)
        tokens[~counts] = 0
        logits = hidden @ weight.T
        got = call(answer, logits, tokens, 0)
        where = counts[:, 1:]
        need(got is not None, "Your function returns None: does it end with `return`?")
        value = got if isinstance(got, torch.Tensor) else torch.tensor(float(got))
        need(value.numel() == 1, f"the loss is one number, and yours has shape {tuple(value.shape)}")
        nats = -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
        unshifted = -logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
        for wrong, hint in (
            ((nats * where).sum(), "that is a sum; the loss is a mean over the labels that count"),
            (-(nats * where).sum() / where.sum(), "the sign: a loss is positive"),
            (nats.mean(), "padding is in your mean: leave out the places whose label is padding"),
            (
                (nats * where).sum() / nats.numel(),
                "you divide by all places: divide by the number of labels that count",
            ),
            (
                ((nats * where).sum(1) / where.sum(1)).mean(),
                "a mean of each row's mean weighs tokens of short rows more: take one mean over all labels",
            ),
            (unshifted[counts].mean(), "the logits at place t are about the token at t + 1: shift by one"),
        ):
            right = linear_cross_entropy(hidden[:, :-1][where], weight, None, tokens[:, 1:][where])
            close_to = torch.isclose(value.float(), wrong, rtol=1e-4) and not torch.isclose(wrong, right, rtol=1e-3)
            need(not close_to, hint)
        need(torch.isfinite(value), "large logits make it infinite or NaN: let log_softmax do the exponentials")
        close(float(value), float(right), "−log_softmax(logits) at each next token, averaged over those not padding")
    return "It equals the kernel's loss on four shapes: one mean over all labels, and none of them padding."

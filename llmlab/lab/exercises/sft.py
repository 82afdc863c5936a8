"""Exercises of lesson 31, supervised fine-tuning."""

from __future__ import annotations

from typing import Any

from ...losses import IGNORE
from . import call, close, exercise, need, number


@exercise("sft.1", expects="a whole number")
def labels_that_count(answer: Any) -> str:
    """Responses of 5, 2 and 9 tokens, each with its end mark."""
    need(answer != 5 + 2 + 9, "each response is followed by one more token that is learnt")
    need(answer != 3 * 10, "the shorter rows are padded up to the longest, and padding teaches nothing")
    prompts = 12 + 30 + 7
    for count in (prompts + 16, prompts + 19, prompts - 3 + 16, prompts - 3 + 19):
        need(answer != count, "the prompts' tokens are among these; which labels does masking leave?")
    number(answer, 6 + 3 + 10, "only what the model should say has a label that counts: go row by row, then add")
    return "6 + 3 + 10: each response and its end mark. The longest answer has more than half of the say in this loss."


@exercise("sft.2", expects="a function labels(prompt_ids, response_ids, eos)")
def padded_labels(answer: Any) -> str:
    """The label at t is the token at t + 1: none within the prompt, the response, its end mark, none in the padding."""
    import torch

    cases = (
        ([[1, 5, 6]], [[7, 8]], 2),  # one row, no padding
        ([[1, 5, 6, 9], [1, 4]], [[7], [8, 3, 3]], 2),  # as wide, and cut at different places
        ([[1], [1, 5, 6]], [[9], [0, 2, 0, 11]], 2),  # a response may hold what pads, and the end mark itself
        ([[1, 5], [1, 5, 6, 7]], [[], [8]], 3),  # an empty answer still ends
    )
    for prompts, responses, eos in cases:
        right = _labels(prompts, responses, eos)
        got = call(answer, prompts, responses, eos, what="labels")
        if isinstance(got, torch.Tensor) and got.dim() == 2:
            need(
                tuple(got.shape) != (right.shape[0], right.shape[1] + 1),
                "it is one position too wide: nothing is predicted after the end mark",
            )
        if isinstance(got, torch.Tensor) and got.shape == right.shape:
            need(not got.is_floating_point(), "labels are ids, whole numbers: use dtype=torch.long")
            for row, want, response in zip(got.tolist(), right.tolist(), responses, strict=True):
                _explain(row, want, response, eos)
        close(
            got,
            right,
            "wrong for a batch of unlike lengths: write one of its rows on paper, position by position",
            "labels",
        )
    return "Shifted, masked, ended and padded: `SFT.batches` builds the same tensor, and the loss reads nothing else."


def _labels(prompts: list[list[int]], responses: list[list[int]], eos: int) -> Any:
    import torch

    T = max(len(x) + len(y) for x, y in zip(prompts, responses, strict=True))
    out = torch.full((len(prompts), T), IGNORE)
    for row, x, y in zip(out, prompts, responses, strict=True):
        row[len(x) - 1 : len(x) + len(y)] = torch.tensor([*y, eos])
    return out


def _explain(row: list[int], want: list[int], response: list[int], eos: int) -> None:
    """Name the usual slips of one row; nothing if it is right or wrong in another way."""
    learnt = [label for label in row if label != IGNORE]
    if row == want:
        return
    need(
        learnt != [*response, eos] or row[-1] != eos or want[-1] == eos,
        "the padding stands on the left, and belongs on the right, behind the end mark",
    )
    need(
        learnt != [*response, eos], "the right labels at the wrong places: the last token of the prompt predicts what?"
    )
    need(learnt != response or not response, "the end mark is not learnt: where would the model learn to stop?")
    need(len(learnt) <= len(response) + 1, f"more labels count than should: prompt and padding are {IGNORE}")


@exercise("sft.3", expects="a function packed_mask(lengths, T)")
def packed_mask(answer: Any) -> str:
    """Block-diagonal and causal; what is left of the row sees itself alone."""
    import torch

    for lengths, T in (([3], 3), ([2, 3], 5), ([1, 4, 2], 7), ([1, 1, 1], 3), ([2, 1], 6), ([4], 5)):
        right = _mask(lengths, T)
        got = call(answer, lengths, T, what="packed_mask")
        if isinstance(got, torch.Tensor) and got.shape == right.shape:
            need(got.dtype == torch.bool, "the mask holds True and False: its dtype should be torch.bool")
            need(not got.triu(1).any(), "a token sees a later one, which is the answer that it should predict")
            used = sum(lengths)
            need(
                not (got & ~right)[:used, :used].any(),
                "a token sees the document before its own: the mask is causal, and not yet block-diagonal",
            )
            need(
                got.any(1).all(),
                "a position sees nothing at all, not even itself: its softmax has nothing to share out",
            )
            need(not (got & ~right).any(), "what is left of the row behind the last document should see itself alone")
        close(got, right, "a token should see all of its own document up to itself", "packed_mask")
    return "Triangles along the diagonal: `keep` in `SFT.batches` holds the blocks, and attention is causal anyway."


def _mask(lengths: list[int], T: int) -> Any:
    import torch

    owner = torch.arange(T)  # what pads belongs to nobody, so each such position is its own owner
    start = 0
    for length in lengths:
        owner[start : start + length] = -1 - start
        start += length
    return (owner[:, None] == owner[None, :]).tril()

"""Exercises of lesson 22, masked language modelling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import as_number, call, exercise, need, number

if TYPE_CHECKING:
    from torch import Tensor

    from ...model import Transformer

TEXTS = (
    "Viktor and his father share a house in the old town, and the house is green.",
    "Olga saw the green donkey near the house, and the donkey saw Olga.",
)


@exercise("mlm.1", expects="a number")
def masks(answer: Any) -> str:
    """128 tokens, 15 % of them chosen, 80 % of these hidden."""
    got = as_number(answer)
    for wrong, hint in (
        (128 * 0.15, "so many are chosen; not all of these become the mask"),
        (128 * 0.8, "you hid that share of all tokens: how many are chosen in the first place?"),
        (128 * 0.15 * 0.9, "so many are changed; some of these become a random token"),
        (0.15 * 0.8, "that is a share; of how many tokens?"),
        (15, "an average need not be a whole number"),
    ):
        need(not math.isclose(got, wrong, rel_tol=0.001), hint)
    number(got, 128 * 0.15 * 0.8, "two shares, one after the other: which are chosen, and which of those are hidden")
    return "0.15 × 0.8 = 0.12: about one token in eight that the model reads is the mask."


@exercise("mlm.2", expects="a list of three percentages: [mask, random, same]")
def independent_draws(answer: Any) -> str:
    """Two independent draws of 10 %; random wins where both fall, and what neither hits becomes the mask."""
    parts = answer.tolist() if hasattr(answer, "tolist") else answer
    need(isinstance(parts, list | tuple), "give a list of three percentages: [mask, random, same]")
    need(len(parts) == 3, f"three percentages are asked for, and this has {len(parts)}")
    given = [as_number(part, "Each percentage") for part in parts]
    if math.isclose(sum(given), 1, abs_tol=0.01):  # shares instead of percentages
        given = [100 * part for part in given]
    total = sum(given)
    need(
        math.isclose(total, 100, abs_tol=0.5),
        f"every chosen token becomes one of the three, and these add to {total:g} %",
    )
    mask, random, _ = given
    need(not math.isclose(mask, 80, abs_tol=0.4), "that is what was meant: can a token be hit by both draws?")
    need(math.isclose(mask, 81, abs_tol=0.4), "the mask is what neither draw hits: multiply the chances of a miss")
    need(math.isclose(random, 10, abs_tol=0.4), "read the last line: where both draws hit, which one wins?")
    return "0.9 × 0.9 = 0.81: two draws sometimes hit the same token, one draw cut in three parts cannot."


@exercise("mlm.3", expects="a function `score(model, text)` that returns a number")
def pseudo_log_likelihood(answer: Any) -> str:
    """The sum over the tokens of log p of each, with it alone hidden (Salazar et al. 2020)."""
    for model, text in _trials():
        hidden, seen, ids = _rows(model, text)
        right = _logp(model, hidden, ids)
        value = as_number(call(answer, model, text, what="score"), "What score returns")
        slips = (
            (_logp(model, seen, ids), "the model could see each token it was asked for: hide it first"),
            (_logp(model, _all_hidden(model, ids), ids), "hide one token at a time: all of them are hidden at once"),
            (_logp(model, _left(model, hidden), ids), "the tokens after the hidden one should be seen as well"),
            (right / len(ids), "that is the mean; the score is the sum over the tokens"),
            (-right, "the sum of log-probabilities is negative: no minus in front"),
            (right / math.log(2), "take natural logarithms, as the loss does"),
        )
        for wrong, hint in slips:
            apart = not math.isclose(wrong, right, rel_tol=1e-3)  # one token alone has no others to see
            need(not (apart and math.isclose(value, wrong, rel_tol=1e-4)), hint)
        say = "hide token 1, add log p of it; put it back, hide token 2, …; the two marks at the ends are not scored"
        need(math.isclose(value, right, rel_tol=1e-3, abs_tol=1e-3), say)
    return "A pseudo-log-likelihood: its terms do not multiply to the probability of the text, yet it ranks texts well."


def _trials() -> Iterator[tuple[Transformer, str]]:
    """Models that are sure of nothing in particular, with texts of one word, of many and with repetitions."""
    from ...model import ModelConfig, Transformer
    from ...pretrained import load_model
    from ...seeds import seeded
    from ...tokenizer import Tokenizer

    tok = Tokenizer.train(TEXTS, 160, "wordpiece")
    size = dict(vocab_size=tok.vocab_size, context=64, layers=1, heads=2, width=16, mlp_width=32, init_std=0.4)
    config = ModelConfig.from_dict(ModelConfig.usual("encoder").to_dict() | size)
    for i, text in enumerate((TEXTS[0], TEXTS[1], "Olga")):
        with seeded(i, "exercise"):
            model = Transformer(config).eval()
        model.tokenizer = tok
        yield model, text
    yield load_model("tiny-bert"), "It was a warm morning, and the two of them set out for the stable."


def _rows(model: Transformer, text: str) -> tuple[Tensor, Tensor, Tensor]:
    """The text with each of its T tokens hidden in turn, and as it is, both (T, T+2); and its ids (T,)."""
    import torch

    tok = model.tokenizer
    assert tok is not None
    ids = torch.tensor(tok.encode(text))
    seen = torch.tensor([[tok.bos, *ids.tolist(), tok.eos]]).repeat(len(ids), 1)
    hidden = seen.clone()
    hidden[:, 1:-1].fill_diagonal_(tok.mask)
    return hidden, seen, ids


def _all_hidden(model: Transformer, ids: Tensor) -> Tensor:
    """Every token hidden at once, (T, T+2)."""
    tok = model.tokenizer
    assert tok is not None
    rows = ids.new_full((len(ids), len(ids) + 2), tok.mask)
    rows[:, 0], rows[:, -1] = tok.bos, tok.eos
    return rows


def _left(model: Transformer, hidden: Tensor) -> Tensor:
    """What comes after each hidden token hidden, too, (T, T+2)."""
    tok = model.tokenizer
    assert tok is not None
    rows = hidden.clone()
    for i in range(len(rows)):
        rows[i, i + 1 : -1] = tok.mask
    return rows


def _logp(model: Transformer, rows: Tensor, ids: Tensor) -> float:
    """The sum over i of log p of token i at its place in row i."""
    import torch

    with torch.no_grad():
        logp = model.logits(model(rows)).log_softmax(-1)  # (T, T+2, V)
    i = torch.arange(len(ids))
    return float(logp[i, i + 1, ids].sum())

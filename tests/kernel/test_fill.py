"""Filling blanks: the guesses are the model's own probabilities, whatever stands in the same batch."""

from __future__ import annotations

import pytest
import torch

from llmlab import ModelConfig, Run, Transformer
from llmlab.fill import fill
from llmlab.tokenizer import Tokenizer

TEXTS = ["the fox ___ over the dog", "___ fox", "the ___ jumps ___"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ModelConfig.usual("encoder")
    tokenizer = Tokenizer.train(["the quick brown fox jumps over the lazy dog"], 120, "wordpiece")
    sizes = dict(vocab_size=tokenizer.vocab_size, context=16, layers=2, heads=2, width=16, mlp_width=32)
    made = Transformer(ModelConfig.from_dict(config.to_dict() | sizes))
    made.tokenizer = tokenizer
    return made


def test_guesses_are_the_probabilities_of_ordinary_tokens_at_the_mask(model):
    tok = model.tokenizer
    left, right = tok.encode("the fox"), tok.encode("over the dog")
    tokens = torch.tensor([[tok.bos, *left, tok.mask, *right, tok.eos]])
    with torch.no_grad():
        logits = model.eval().logits(model(tokens))[0, 1 + len(left)]
    wanted = logits.masked_fill(tok.special, -torch.inf).softmax(-1).topk(3)
    guesses = fill(model, [TEXTS[0]], best=3)[0][0]
    assert [g.text for g in guesses] == [t.strip() for t in tok.pieces(wanted.indices.tolist())]
    assert [g.probability for g in guesses] == pytest.approx(wanted.values.tolist(), rel=1e-5)


def test_texts_do_not_depend_on_their_neighbours(model):
    together = fill(model, TEXTS, best=4)
    assert [len(blanks) for blanks in together] == [1, 1, 2]
    for text, blanks in zip(TEXTS, together, strict=True):
        for one, other in zip(fill(model, [text], best=4)[0], blanks, strict=True):
            assert [g.text for g in one] == [g.text for g in other]
            assert [g.probability for g in one] == pytest.approx([g.probability for g in other], rel=1e-4)


def test_all_guesses_together_are_certain(model):
    guesses = fill(model, ["the ___"], best=10_000)[0][0]
    assert sum(g.probability for g in guesses) == pytest.approx(1.0, abs=1e-5)


def test_a_run_fills_one_text_or_several(model):
    run = Run(["mlm"], [{"text": "the quick brown fox jumps over the lazy dog"}] * 20, model=model)
    assert run.fill("the ___", best=2) == run.fill(["the ___"], best=2)[0]


@pytest.mark.parametrize(
    ("text", "best", "line"),
    [
        ("no blank", 5, "put ___ where a word is missing"),
        ("___ " + "fox " * 20, 5, "beyond the context of 16"),
        ("a ___", 0, "best = 0: must be at least 1"),
    ],
)
def test_what_cannot_be_filled_is_one_line(model, text, best, line):
    with pytest.raises(ValueError, match=line):
        fill(model, [text], best)


def test_a_tokenizer_without_a_mask_is_one_line(model, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "mask", model.tokenizer.eos)  # as one from elsewhere that has none
    with pytest.raises(ValueError, match="this model's tokenizer has no mask"):
        fill(model, ["a ___"])


def test_no_text_has_no_blank(model):
    assert fill(model, []) == []


def test_a_decoder_continues_instead(model):
    with pytest.raises(ValueError, match="only an encoder fills blanks"):
        fill(Transformer(ModelConfig(vocab_size=64, context=16, layers=1, heads=2, width=16)), ["a ___"])

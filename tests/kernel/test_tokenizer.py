"""Tokenizers: every text comes back, special tokens are put in by code alone, training repeats itself."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.tokenizer import SENTINELS, SPECIALS, Tokenizer

TEXTS = ["The cat sat on the mat, and the dog sat on the cat.", "Ünïcödé, 漢字 and 🙂: the same.", "1 + 1 = 2"] * 10
BPE = Tokenizer.train(TEXTS, 400)
WORDPIECE = Tokenizer.train(TEXTS, 200, "wordpiece")
both = pytest.mark.parametrize("tok", [BPE, WORDPIECE], ids=["bpe", "wordpiece"])


@settings(max_examples=300)
@given(st.text())
def test_any_text_comes_back_through_bpe(text):
    assert BPE.decode(BPE.encode(text)) == text
    assert "".join(BPE.pieces(BPE.encode(text))) == text or not text.isascii()


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n", "  two  spaces ", "tab\tand\r\n", "\x00", "naïve 漢字 🙂🏽 \u200d", "a" * 500]
)
def test_hard_texts_come_back(text):
    assert BPE.decode(BPE.encode(text)) == text
    assert BPE.encode_all([text, "cat"]) == [BPE.encode(text), BPE.encode("cat")]


def test_wordpiece_lowers_and_splits():
    assert WORDPIECE.decode(WORDPIECE.encode("The CAT sat")) == "the cat sat"
    assert WORDPIECE.pieces(WORDPIECE.encode("cat"))[0].startswith("c")
    assert WORDPIECE.encode("ж") == [WORDPIECE.unk]


@both
def test_specials_typed_in_a_text_are_text(tok):
    for name in (*SPECIALS, "<extra_0>", "<extra_31>"):
        ids = tok.encode(f"the {name} cat")
        assert not (set(ids) & tok.special_ids) or (tok is WORDPIECE and set(ids) & tok.special_ids == {tok.unk})
        if tok is BPE:
            assert tok.decode(ids) == f"the {name} cat"
    again = Tokenizer.from_json(tok.to_json())
    assert again.encode("the <eos> cat") == tok.encode("the <eos> cat")


@both
def test_special_ids(tok):
    assert [tok.pad, tok.bos, tok.eos, tok.mask, tok.sep, tok.unk] == list(range(6))
    top = tok.vocab_size - 1
    assert tok.sentinels == [top - i for i in range(SENTINELS)]  # <extra_0> is the last id
    assert tok.special_ids == {*range(6), *tok.sentinels}
    ids = [tok.bos, *tok.encode("the cat"), tok.sentinels[0], tok.eos, tok.pad]
    assert tok.decode(ids) == "the cat"
    assert tok.pieces([tok.eos, tok.sentinels[1]]) == ["<eos>", "<extra_1>"]
    assert all(0 <= i < tok.vocab_size for i in tok.encode("".join(TEXTS[:3])))


def test_size_and_kind():
    assert BPE.vocab_size <= 400 and (BPE.kind, WORDPIECE.kind) == ("bpe", "wordpiece")
    assert Tokenizer.train(TEXTS, 330).vocab_size == 330
    with pytest.raises(ValueError, match="a bpe vocabulary of 293 is too small: at least 294"):
        Tokenizer.train(TEXTS, 293)
    with pytest.raises(ValueError, match="a wordpiece vocabulary of 38 is too small: at least 39"):
        Tokenizer.train(TEXTS, 38, "wordpiece")
    with pytest.raises(ValueError, match="a wordpiece vocabulary of 60 is too small for these texts: at least"):
        Tokenizer.train(TEXTS, 60, "wordpiece")
    assert Tokenizer.train(TEXTS, 294).decode(Tokenizer.train(TEXTS, 294).encode("é!")) == "é!"


@both
def test_files(tok, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tok.to_json(), encoding="utf-8")
    again = Tokenizer.load(path)
    assert again == tok and hash(again) == hash(tok) and again.kind == tok.kind
    assert again != (WORDPIECE if tok is BPE else BPE) and tok != "text"
    assert again.encode("the cat") == tok.encode("the cat")


@pytest.mark.parametrize("content", ["", "{}", "no json", '{"version": "1.0"}'])
def test_a_file_that_is_no_tokenizer(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json is no tokenizer"):
        Tokenizer.load(path)


def test_a_tokenizer_without_our_specials_is_refused():
    with pytest.raises(ValueError, match="the tokenizer lacks the special token <sep>"):
        Tokenizer.from_json(BPE.to_json().replace("<sep>", "<other>"))


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_training_is_the_same_in_two_processes(kind):
    code = (
        "import hashlib, sys; from llmlab.tokenizer import Tokenizer; "
        f"t = Tokenizer.train({TEXTS!r}, 400, {kind!r}); print(hashlib.sha256(t.to_json().encode()).hexdigest())"
    )
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    a, b = (p.communicate()[0].strip() for p in processes)
    here = hashlib.sha256(Tokenizer.train(iter(TEXTS), 400, kind).to_json().encode()).hexdigest()
    assert a == b == here

"""Augmentation: what it may change, when it does, and that it draws by (seed, pass, example)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llmlab import Run, Training
from llmlab.batch import Chunk
from llmlab.losses import IGNORE
from llmlab.model import ModelConfig
from llmlab_plugins.augment import Augment
from llmlab_plugins.clm import CLM
from llmlab_plugins.seq2seq import Seq2Seq
from llmlab_plugins.sft import SFT

TINY = ModelConfig(vocab_size=400, context=64, layers=2, heads=2, width=32)
NAMES = ["Ann", "Bob", "Eve", "Joe"]
ROWS = [
    {"prompt": f"the story of {NAMES[i % 4]} who went to town on day {i}, who is it?", "response": f" {NAMES[i % 4]}"}
    for i in range(60)
]


def make(*techniques, config=TINY, **training):
    return Run(techniques, ROWS, config=config, training=Training(**({"steps": 2, "batch_size": 4} | training)))


def batch_of(run, ids=range(8), epoch=0, training=True):
    rows = run.rows("train")
    (batch,) = run.make_batches(Chunk([rows[i] for i in ids], ids, epoch, run.seed, training))
    return batch


def tokens(batch):
    return [row[row != 0].tolist() for row in batch.inputs["tokens"]]


@pytest.fixture(scope="module")
def clean():
    return make(SFT(answers=0))


@pytest.fixture(scope="module")
def noisy():
    return make(SFT(answers=0), Augment(rate=0.3))


def test_only_the_prompt_changes(clean, noisy):
    before, after = batch_of(clean), batch_of(noisy)
    assert torch.equal(before["labels"], after["labels"])
    x, y = before.inputs["tokens"], after.inputs["tokens"]
    assert (x != y).any() and not (x != y)[before["labels"] != IGNORE].any()  # where something is predicted, nothing
    special = noisy.tokenizer.special
    assert torch.equal(special[x], special[y])


def test_a_word_that_the_response_holds_is_spared_however_it_is_cut():
    """A name at the beginning has other tokens than behind a space."""
    rows = [{"prompt": f"{n} and the dog of {n} went home:", "response": f" {n}"} for n in ["Alexander", "Bo"] * 30]
    run = Run([SFT(answers=0), Augment(rate=0.9)], rows, config=TINY)
    tok = run.tokenizer
    assert set(tok.encode("Alexander")).isdisjoint(tok.encode(" Alexander"))
    for i, row in enumerate(tokens(batch_of(run, range(20)))):
        name, said = run.data["train"][i]["response"][1:], tok.decode(row)
        assert said.startswith(name) and said.count(name) >= 3  # twice in the prompt, once in the response


def test_the_rate_is_that_of_what_may_change(clean, noisy):
    """Words of the prompt that the response lacks: here all but "ann" and its like."""
    tok, changed, may = noisy.tokenizer, 0, 0
    named = {t for name in NAMES for text in (name, f" {name}") for t in tok.encode(text)}
    for epoch in range(40):
        x, y = (batch_of(run, range(48), epoch) for run in (clean, noisy))
        old, new = x.inputs["tokens"], y.inputs["tokens"]
        free = (x["labels"] == IGNORE) & ~tok.special[old]
        free &= ~torch.isin(old, torch.tensor(sorted(named)))
        changed, may = changed + int((old != new)[free].sum()), may + int(free.sum())
    assert changed / may == pytest.approx(0.3, abs=0.01)


def test_each_pass_has_its_noise_and_a_batch_none(noisy):
    """Keyed by (seed, pass, example): the same alone, in a batch, and again; another in the next pass and run."""
    whole = tokens(batch_of(noisy))
    assert tokens(batch_of(noisy)) == whole
    assert [tokens(batch_of(noisy, [i]))[0] for i in range(8)] == whole
    assert all(a != b for a, b in zip(tokens(batch_of(noisy, epoch=1)), whole, strict=True))
    other = Run([SFT(answers=0), Augment(rate=0.3)], ROWS, model=noisy.model, seed=1)
    assert all(a != b for a, b in zip(tokens(batch_of(other)), whole, strict=True))


def test_what_is_measured_is_not_changed(clean, noisy):
    assert tokens(batch_of(noisy, training=False)) == tokens(batch_of(clean))
    for split in ("train", "validation"):
        assert clean.losses(split) == noisy.losses(split)


def test_training_reads_the_noise():
    clean, noisy = (make(SFT(answers=0), *extra).fit(1) for extra in ((), (Augment(rate=0.5),)))
    assert clean.evaluations[0]["loss"] == noisy.evaluations[0]["loss"]
    assert clean.history[0]["loss"] != noisy.history[0]["loss"]


def test_packed_examples_are_changed_too(clean):
    run = make(SFT(answers=0, packing=True), Augment(rate=0.5))
    plain = make(SFT(answers=0, packing=True))
    x, y = batch_of(plain), batch_of(run)
    assert (x.inputs["tokens"] != y.inputs["tokens"]).any()
    assert torch.equal(x["labels"], y["labels"]) and torch.equal(x.inputs["keep"], y.inputs["keep"])


def test_an_encoder_reads_the_noise_and_the_decoder_none():
    config = replace(TINY, family="encoder-decoder")
    clean, noisy = make(Seq2Seq(answers=0), config=config), make(Seq2Seq(answers=0), Augment(rate=0.5), config=config)
    x, y = batch_of(clean), batch_of(noisy)
    assert (x.inputs["source"] != y.inputs["source"]).any()
    assert torch.equal(x.inputs["tokens"], y.inputs["tokens"]) and torch.equal(x["labels"], y["labels"])


@pytest.mark.parametrize("objective", [CLM(window=16), SFT(mask_prompt=False, answers=0)])
def test_where_everything_is_learnt_it_is_refused(objective):
    with pytest.raises(ValueError, match=r"^Augment\.batches: every token is learnt.*mask the prompt") as caught:
        make(objective, Augment()).fit()
    assert not hasattr(caught.value, "__notes__")

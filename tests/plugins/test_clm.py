"""Causal language modelling: every token predicted once, from the past alone."""

from __future__ import annotations

import math

import pytest
import torch

from llmlab import Run, Training, corpus
from llmlab.losses import IGNORE
from llmlab.model import ModelConfig
from llmlab_plugins.clm import CLM

TINY = ModelConfig(vocab_size=400, context=64, layers=2, heads=2, width=32)
ROWS = [{"text": f"The number {i} has the square {i * i}."} for i in range(60)]


def make(window=16, rows=ROWS, **training):
    return Run([CLM(window=window)], rows, config=TINY, training=Training(**{"steps": 3, "batch_size": 4} | training))


def test_every_token_is_predicted_exactly_once():
    run = make()
    rows, tok = run.rows("train"), run.tokenizer
    labels, inputs = [], []
    for row in rows:
        (batch,) = CLM().batches(run, [row])
        inputs += batch.inputs["tokens"][0].tolist()
        labels += [t for t in batch["labels"][0].tolist() if t != IGNORE]
    text = [t for row in run.data["train"] for t in (tok.bos, *tok.encode(row["text"]), tok.eos)]
    assert labels == text[1:] and inputs[: len(text) - 1] == text[:-1]


def test_labels_are_the_inputs_shifted_by_one_and_padding_is_ignored():
    run = make(window=10)
    last = run.rows("train")[len(run.rows("train")) - 1]
    (batch,) = CLM().batches(run, [run.rows("train")[0], last])
    tokens, labels = batch.inputs["tokens"], batch["labels"]
    assert torch.equal(tokens[0, 1:], labels[0, :-1])
    short = len(last["tokens"]) - 1
    assert (labels[1, short:] == IGNORE).all() and short < 10
    assert batch.weight == 10 + short


def test_windows_refuse_an_index_out_of_range():
    rows = make().rows("train")
    with pytest.raises(IndexError):
        rows[len(rows)]
    assert len(list(rows)) == len(rows)


def test_loss_at_the_start_is_ln_V():
    run = make()
    assert run.losses("validation")["loss"] == pytest.approx(math.log(run.tokenizer.vocab_size), rel=0.03)


def test_a_window_never_exceeds_the_context():
    assert make(window=512).rows("train").size == TINY.context + 1


def test_the_floor_is_exact_nats_per_token():
    data = corpus("tinytown", task="documents", size=100)
    run = Run([CLM(window=64)], data, config=TINY, training=Training(steps=1, batch_size=4, evaluate_batches=1)).fit()
    rows = data["validation"]
    tokens = sum(len(run.tokenizer.encode(r["text"])) + 2 for r in rows) - 1
    assert run.metrics["floor"] == pytest.approx(sum(r["nats"] for r in rows) / tokens)
    assert "floor" not in make().fit(1).metrics


def test_pairs_are_read_as_text_too():
    rows = [{"prompt": f"{i} plus 1 is", "response": f" {i + 1}"} for i in range(30)]
    run = make(rows=rows)
    assert "1 plus 1 is 2" in run.tokenizer.decode(run.rows("train").tokens)


def test_an_end_mark_that_also_pads_is_still_learnt():
    """Tokenizers of published models often have no padding of their own."""
    run = make()
    run.tokenizer.pad = run.tokenizer.eos
    learnt = sum(
        int((CLM().batches(run, [row]).__next__()["labels"] == run.tokenizer.eos).sum()) for row in run.rows("train")
    )
    assert learnt == len(run.data["train"])

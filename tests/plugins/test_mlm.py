"""Masked language modelling: BERT's 15 % and its 80/10/10, counted."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

from llmlab import Run, Training
from llmlab.batch import Chunk
from llmlab.losses import IGNORE
from llmlab.model import ModelConfig
from llmlab_plugins.lora import LoRA
from llmlab_plugins.mlm import MLM

TEXT = "the quick brown fox jumps over lazy dogs while seventeen extraordinarily patient tortoises watch"
WORDS = TEXT.split()
ROWS = [{"text": " ".join(WORDS[(i * 7 + j) % len(WORDS)] for j in range(12)) + "."} for i in range(200)]
CONFIG = ModelConfig.preset("bert", vocab_size=120, context=64, layers=2, heads=2, width=32, dropout=0.0)


def make(technique=None, **training):
    training = {"steps": 3, "batch_size": 8} | training
    return Run([technique or MLM(window=32)], ROWS, config=CONFIG, training=Training(**training))


def batches(run, epochs=1):
    rows = run.rows("train")
    for epoch in range(epochs):
        for i in range(0, len(rows), 8):
            ids = range(i, min(i + 8, len(rows)))
            yield from run.make_batches(Chunk([rows[j] for j in ids], ids, epoch, 0))


def test_the_shares_over_a_hundred_thousand_tokens():
    run = make()
    tok = run.tokenizer
    ordinary = chosen = masked = same = 0
    epochs = 1 + 110_000 // len(run.rows("train").tokens)
    rows = [
        torch.tensor(row["tokens"]) if not torch.is_tensor(row["tokens"]) else row["tokens"]
        for row in run.rows("train")
    ]
    for epoch in range(epochs):
        for i, row in enumerate(rows):
            draw = Chunk([{}], [i], epoch, 0).generators("mask")[0]
            where = run.techniques[0].choose(row, tok, draw)
            seen = run.techniques[0].hide(row, where, tok, draw)
            assert not tok.special[row[where]].any(), "a special token was chosen"
            assert torch.equal(seen[~where], row[~where])
            changed = where & (seen != row) & (seen != tok.mask)
            assert not tok.special[seen[changed]].any(), "a special token was put in"
            ordinary += int((~tok.special[row]).sum())
            chosen += int(where.sum())
            masked += int((seen[where] == tok.mask).sum())
            same += int((seen[where] == row[where]).sum())
    assert ordinary > 100_000
    assert chosen / ordinary == pytest.approx(0.15, abs=0.005)
    assert masked / chosen == pytest.approx(0.80, abs=0.01)
    lucky = 0.1 / int((~tok.special).sum())  # a random token is now and then the right one
    assert same / chosen == pytest.approx(0.10 + lucky, abs=0.01)


def test_labels_are_where_tokens_were_chosen_and_nowhere_else():
    run = make()
    for batch in batches(run):
        tokens, labels = batch.inputs["tokens"], batch["labels"]
        learnt = labels != IGNORE
        assert learnt.any(1).all()
        assert ((tokens == run.tokenizer.mask) <= learnt).all()


def test_whole_words_are_chosen_whole_at_the_same_rate():
    run = make(MLM(window=32, whole_words=True))
    tok, technique = run.tokenizer, run.techniques[0]
    assert tok.kind == "wordpiece" and tok.continues.any()
    chosen = ordinary = 0
    for epoch in range(6):
        for i, row in enumerate(run.rows("train")):
            ids = row["tokens"]
            where = technique.choose(ids, tok, Chunk([{}], [i], epoch, 0).generators("mask")[0])
            inner = tok.continues[ids[1:]] & ~tok.special[ids[:-1]]  # a piece and the one before it: together or not
            assert (where[1:] == where[:-1])[inner].all()
            chosen, ordinary = chosen + int(where.sum()), ordinary + int((~tok.special[ids]).sum())
    assert chosen / ordinary == pytest.approx(0.15, abs=0.02)


def test_masks_repeat_whatever_the_batch_and_differ_between_passes():
    run = make()
    rows = run.rows("train")
    alone = run.make_batches(Chunk([rows[5]], [5], 2, 0))[0]
    company = run.make_batches(Chunk([rows[i] for i in range(8)], range(8), 2, 0))[0]
    assert torch.equal(alone["labels"][0], company["labels"][5])
    assert torch.equal(alone.inputs["tokens"][0], company.inputs["tokens"][5])
    other = run.make_batches(Chunk([rows[5]], [5], 3, 0))[0]
    assert not torch.equal(alone["labels"], other["labels"])


def test_without_a_config_it_builds_bert_with_wordpieces():
    run = Run([MLM()], ROWS)
    assert run.model.config.family == "encoder" and run.tokenizer.kind == "wordpiece"


def test_shares_must_fit_together():
    with pytest.raises(ValueError, match=r"MLM.mask_share \+ MLM.random_share"):
        MLM(mask_share=0.8, random_share=0.3)


def spread(count, seed=0):
    """Sentences that go round a fixed cycle of words from a random start: only neighbours tell what is hidden."""
    draw = random.Random(seed)
    starts = [(draw.randrange(len(WORDS)), draw.randrange(6, 13)) for _ in range(count)]
    return [{"text": " ".join(WORDS[(a + j) % len(WORDS)] for j in range(n)) + "."} for a, n in starts]


def test_it_learns_more_than_which_words_are_common():
    training = Training(steps=200, batch_size=16, evaluate_every=200)
    config = replace(
        ModelConfig.usual("encoder"), vocab_size=400, context=64, layers=2, heads=2, width=32, mlp_width=128
    )
    run = Run([MLM(window=32)], spread(1500), config=config, training=training).fit()
    tokens = run.rows("validation").tokens
    counts = tokens[~run.tokenizer.special[tokens]].bincount()
    assert run.evaluations[0]["loss"] == pytest.approx(math.log(run.tokenizer.vocab_size), rel=0.1)
    assert run.metrics["loss"] < 0.3 * run.evaluations[0]["loss"]
    assert run.metrics["accuracy"] > 0.6 > 5 * float(counts.max() / counts.sum())
    rows = [{"text": "the fox jumps over the fox while the fox jumps over the fox"}] * 100
    more = LoRA(rank=8, targets="query, kv.value, up, down")
    tuned = Run([MLM(window=32), more], rows, model=run.model, training=Training(steps=40, batch_size=8)).fit()
    assert tuned.metrics["loss"] < tuned.evaluations[0]["loss"]

"""Sequence to sequence: pairs shifted and kept apart from their padding, T5's spans counted, and that both learn."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from llmlab import Run, Training, corpus
from llmlab.batch import Chunk
from llmlab.generate import as_prompt
from llmlab.losses import IGNORE
from llmlab.model import ModelConfig, Transformer, record_attention
from llmlab_plugins.seq2seq import Seq2Seq

WORDS = ["red", "blue", "green", "yellow", "black", "white", "brown", "pink", "grey", "orange"]
DRAW = random.Random(0)
PAIRS = [
    {"source": " ".join(words), "target": " ".join(reversed(words))}
    for words in (DRAW.sample(WORDS, DRAW.randint(2, 5)) for _ in range(400))
]
TEXTS = [{"text": " ".join(DRAW.choices(WORDS, k=20)) + "."} for _ in range(60)]
CONFIG = ModelConfig(family="encoder-decoder", vocab_size=400, context=48, layers=1, heads=2, width=32)


def make(technique: Seq2Seq | None = None, rows: Any = PAIRS, config: ModelConfig = CONFIG, **training: Any) -> Run:
    return Run(
        [technique or Seq2Seq()], rows, config=config, training=Training(**{"steps": 3, "batch_size": 8} | training)
    )


def batches(run: Run, size: int = 8, epoch: int = 0):
    rows = run.rows("train")
    for i in range(0, len(rows), size):
        ids = range(i, min(i + size, len(rows)))
        yield from run.make_batches(Chunk([rows[j] for j in ids], ids, epoch, 0))


# -- pairs -------------------------------------------------------------------------------------------------------


def test_a_pair_as_tensors():
    run = make()
    tok, rows = run.tokenizer, run.corpus["train"]
    batch = next(batches(run))
    for i, row in enumerate(rows[:8]):
        source = [*tok.encode(row["source"] + "\n"), tok.eos]
        target = [*tok.encode(row["target"]), tok.eos]
        labels = batch["labels"][i]
        assert labels[labels != IGNORE].tolist() == target
        assert batch.inputs["tokens"][i, : len(target)].tolist() == [tok.bos, *target[:-1]]
        assert batch.inputs["source"][i, : len(source)].tolist() == source == as_prompt(run.model, row["source"] + "\n")
        assert batch.inputs["source_keep"][i].sum() == len(source)


def test_padding_changes_nothing():
    """The loss of a batch is the mean over its labels of what each row costs alone."""
    run = make()
    run.model.eval()
    batch = next(batches(run))
    alone = [(run.step(b)["loss"].item(), b.weight) for b in batches(run, size=1)][:8]
    mean = sum(loss * weight for loss, weight in alone) / sum(weight for _, weight in alone)
    assert run.step(batch)["loss"].item() == pytest.approx(mean, rel=1e-5)


def test_the_decoder_sees_no_later_token_and_the_whole_source():
    run = make()
    model = run.model.eval()
    inputs = next(batches(run)).inputs
    tokens, source, keep = (inputs[k][:1] for k in ("tokens", "source", "source_keep"))
    before = model(tokens, source=source, source_keep=keep).hidden
    changed = tokens.clone()
    changed[:, 3:] = 7
    after = model(changed, source=source, source_keep=keep).hidden
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.allclose(before[:, 3:], after[:, 3:])
    last = source.clone()
    last[:, int(keep.sum()) - 2] = 7
    assert not torch.allclose(before[:, 0], model(tokens, source=last, source_keep=keep).hidden[:, 0])


def test_what_does_not_fit_is_cut_at_its_end_and_told():
    long = [{"source": " ".join(WORDS * 9), "target": " ".join(WORDS * 9)}]
    run = make(rows=PAIRS + long * 40)
    row = run.rows("train").pairs[-1]
    assert len(row["source"]) == len(row["target"]) == 48
    assert row["source"][-1] == run.tokenizer.eos and row["target"][-1] != run.tokenizer.eos
    found = run.evaluate()
    assert found["cut"] > 0 and "floor" not in found
    assert "cut" not in make().evaluate()


def test_the_floor_is_what_the_process_leaves_open():
    run = make(rows=corpus("tinytown:pairs,size=200"), config=replace(CONFIG, vocab_size=800, context=256))
    rows = run.corpus["validation"]
    learnt = sum(len(run.tokenizer.encode(row["response"])) + 1 for row in rows)
    assert run.evaluate()["floor"] == pytest.approx(sum(row["nats"] for row in rows) / learnt)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("tinytown:sentiment,size=100", {"accuracy", "macro_f1"}),
        ("tinytown:summaries,size=100", {"exact_match", "f1"}),
    ],
)
def test_a_task_has_its_measures(data, names):
    config = replace(CONFIG, vocab_size=600, context=256)
    assert names <= set(make(rows=corpus(data), config=config).evaluate())
    assert {"rouge1", "rougeL"} <= set(make(Seq2Seq(measure="rouge"), corpus(data), config).evaluate())


def test_an_empty_target_is_named():
    with pytest.raises(ValueError, match=r"^Seq2Seq.examples: row 1 of the train split has an empty response"):
        make(rows={"train": [PAIRS[0], {"source": "red", "target": " "}, *PAIRS[:20]]}).fit()


@pytest.mark.parametrize("family", ["decoder", "encoder"])
def test_other_families_are_refused_in_one_line(family):
    with pytest.raises(ValueError, match=f"works on encoder-decoder models, not on this {family}") as error:
        make(config=replace(CONFIG, family=family))
    assert "\n" not in str(error.value)


# -- span corruption ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "noise", "spans", "source", "target"),
    [(32, 5, 2, 30, 8), (64, 10, 3, 58, 14), (128, 19, 6, 116, 26), (568, 85, 28, 512, 114)],
)
def test_the_lengths_of_t5(length, noise, spans, source, target):
    """As T5's own code gives them, without its closing sentinel: ours never needs one."""
    run, draw = make(rows=TEXTS), torch.Generator().manual_seed(0)
    stay, cut = run.techniques[0].spans(length, 32, draw)
    assert sum(cut) == noise and len(cut) == len(stay) == spans and sum(stay) == length - noise
    assert min(stay) >= 1 and min(cut) >= 1
    x, y = run.techniques[0].corrupt(list(range(1000, 1000 + length)), run.tokenizer, draw)
    assert (len(x), len(y)) == (source, target)


def test_source_and_target_merge_into_the_text():
    run = make(Seq2Seq(window=40), TEXTS)
    tok, original = run.tokenizer, [row["window"].tolist() for row in run.rows("train")]
    found = []
    for batch in batches(run):
        for source, labels in zip(batch.inputs["source"].tolist(), batch["labels"].tolist(), strict=True):
            source = source[: len(source) - source[::-1].index(tok.eos) - 1]
            target = [t for t in labels if t != IGNORE][:-1]
            spans: dict[int, list[int]] = {}
            for token in target:
                if token in tok.sentinels:
                    spans[token] = last = []
                else:
                    last.append(token)
            assert list(spans) == tok.sentinels[: len(spans)] == [t for t in source if t in tok.sentinels]
            assert source[0] not in tok.sentinels and source[-1] in tok.sentinels
            found.append([t for s in source for t in spans.get(s, [s])])
    assert found == original


def test_spans_change_from_pass_to_pass_and_with_nothing_else():
    run = make(rows=TEXTS)
    first, again, later = (next(batches(run, epoch=e))["labels"] for e in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, later)
    alone = next(batches(run, size=1))["labels"][0]
    assert torch.equal(alone, first[0][: len(alone)])


def test_every_way_to_part_is_equally_likely():
    from llmlab_plugins.seq2seq import _parts

    draw = torch.Generator().manual_seed(0)
    counts = Counter(tuple(_parts(5, 3, draw)) for _ in range(3000))
    assert len(counts) == math.comb(4, 2) and all(sum(parts) == 5 for parts in counts)
    assert max(counts.values()) < 1.3 * min(counts.values())


@pytest.mark.parametrize("length", [2, 3, 5])
@pytest.mark.parametrize("rate", [0.01, 0.5, 0.9])
def test_short_texts_keep_something_and_lose_something(length, rate):
    stay, cut = Seq2Seq(rate=rate).spans(length, 32, torch.Generator().manual_seed(0))
    assert sum(stay) + sum(cut) == length and min(stay) > 0 and min(cut) > 0


def test_pairs_and_texts_learn_side_by_side():
    run = make(rows=[*PAIRS, *TEXTS])
    rows = run.rows("train")
    assert len(rows.pairs) > 300 and len(rows) > len(rows.pairs)
    assert "floor" not in run.fit().metrics


def test_a_tokenizer_without_sentinels_is_told(monkeypatch):
    run = make(rows=TEXTS)
    run.tokenizer.__dict__["sentinels"] = []
    with pytest.raises(ValueError, match="no sentinels for span corruption: give pairs"):
        run.fit()


def test_blanks_become_sentinels():
    run = make(rows=TEXTS)
    tok = run.tokenizer
    ids = as_prompt(run.model, "red ___ blue ___.")
    assert [i for i in ids if i in tok.special_ids] == [*tok.sentinels[:2], tok.eos]
    with pytest.raises(ValueError, match="a text with 33 blanks: this model tells 32 apart"):
        as_prompt(run.model, "___" * 33)


# -- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("positions", "exact"), [("rotary", 0.8), ("relative", 0.5)])
def test_it_learns_to_reverse(positions, exact):
    """Exact match on held-out lists, which takes cross-attention that finds its place."""
    config = replace(CONFIG, width=64, heads=4, layers=2, positions=positions)
    run = make(Seq2Seq(answers=40), config=config, steps=250, batch_size=32, learning_rate=3e-3, evaluate_every=250)
    run.fit()
    assert run.evaluations[0]["exact_match"] == 0
    assert run.metrics["exact_match"] > exact


def test_span_corruption_learns():
    run = make(Seq2Seq(window=24), TEXTS * 5, steps=60, batch_size=16, learning_rate=3e-3, evaluate_every=60).fit()
    assert run.metrics["loss"] < 0.75 * run.evaluations[0]["loss"]


def test_cross_attention_can_be_looked_at():
    model = Transformer(CONFIG).eval()
    with record_attention(model) as maps:
        model(torch.tensor([[1, 2, 3]]), source=torch.tensor([[4, 5, 6, 7]]))
    assert maps["decoder.blocks.0.cross"][0].shape == (1, 2, 3, 4)
    assert maps["decoder.blocks.0.cross"][0].sum(-1).sub(1).abs().max() < 1e-5


def test_smoothing_is_for_training_alone():
    run = make(Seq2Seq(smoothing=0.1))
    batch = next(batches(run))
    plain = make()
    run.model.eval(), plain.model.eval()
    assert run.step(batch)["loss"] == plain.step(batch)["loss"]
    run.model.train(), plain.model.train()
    assert run.step(batch)["loss"] > plain.step(batch)["loss"] - 0.5
    assert run.step(batch)["loss"] != plain.step(batch)["loss"]

"""The kit's objectives beside transformers' own `labels=`: logits, loss and every gradient, at sizes drawn at random.

Our side goes the whole way, from rows through a run's batches and `compute_loss`; theirs is given the ids that its
documentation asks for, put together here from the texts. Six draws a family: layers, heads, key heads, widths that
are no powers of two, vocabulary, context, batch, activation, tied or untied; double precision on both sides.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from parity.draws import drawn
from parity.measure import compare, double_precision
from parity.peers import answers, asked, compare_gradients, learn, phrase, same, step

from llmlab.batch import pad
from llmlab.losses import IGNORE
from llmlab_plugins.clm import CLM
from llmlab_plugins.mlm import MLM
from llmlab_plugins.seq2seq import Seq2Seq
from llmlab_plugins.sft import SFT

pytestmark = pytest.mark.bench
DECODERS = ("gpt2", "llama", "qwen2")
seeds = pytest.mark.parametrize("seed", range(6))
decoders = pytest.mark.parametrize("family", DECODERS)
seq2seq = pytest.mark.parametrize("family", ["t5", "bart"])


@pytest.fixture(autouse=True)
def _double():
    torch.set_num_threads(1)
    with double_precision():
        yield


def compare_all(family, run, found, theirs, given):
    """Logits, loss and gradients of `found`, a step of ours, beside theirs."""
    _, logits, loss = found
    wanted, their_loss = answers(theirs, given)
    compare(family, "logits", logits, wanted)
    compare(family, "loss", loss, their_loss)
    their_loss.backward()
    compare_gradients(family, run.model, theirs)


def last(ids, token):
    return len(ids) - 1 - ids[::-1].index(token)


def joined(texts, tok):
    return torch.tensor([i for t in texts for i in (tok.bos, *tok.encode(t), tok.eos)])


@seeds
@decoders
def test_causal_language_modelling(family, seed, tmp_path):
    theirs, tok, draw = drawn(family, seed)
    texts = [phrase(draw, 12) for _ in range(40)]
    window, count = draw.randint(8, 33), draw.randint(1, 5)
    run = learn([CLM(window=window)], [{"text": t} for t in texts], same(theirs, tmp_path), tok, count)

    stream = joined(texts, tok)
    ids = torch.stack([stream[i * window : (i + 1) * window + 1] for i in range(count)])
    compare_all(family, run, step(run), theirs, {"input_ids": ids, "labels": ids})


@seeds
@decoders
def test_supervised_fine_tuning(family, seed, tmp_path):
    """Packed or not, with the prompt in the loss or not; theirs is padded, on the left for every other draw."""
    theirs, tok, draw = drawn(family, seed)
    hidden, packing, count = draw.random() < 0.6, seed % 3 == 0, draw.randint(1, 3)
    pairs = [(phrase(draw, 1), phrase(draw, 1)) if packing else (phrase(draw, 3), phrase(draw, 4)) for _ in range(12)]
    rows = [{"prompt": x, "response": y} for x, y in pairs]
    run = learn([SFT(mask_prompt=hidden, packing=packing, answers=0)], rows, same(theirs, tmp_path), tok, count)

    used = sum(len(row["documents"]) for row in run.rows("train")[:count])
    assert (used > count) == packing
    given = asked(family, pairs[:used], tok, left=bool(seed % 2))
    keep = given["attention_mask"]
    if not hidden:  # nothing predicts a row's first token
        given["labels"] = given["input_ids"].masked_fill((keep == 0) | (keep.cumsum(1) == 1), IGNORE)
    compare_all(family, run, step(run), theirs, given | {"position_ids": (keep.cumsum(1) - 1).clamp(min=0)})


@seeds
def test_masked_language_modelling(seed, tmp_path):
    theirs, tok, draw = drawn("bert", seed)
    rows = [{"text": phrase(draw, 12)} for _ in range(9)]
    stream = joined([row["text"] for row in rows], tok)
    window = next(w for w in range(17, 34) if len(stream) % w)  # so that the last window is shorter, and padded
    objective, count = MLM(window=window, rate=0.4, whole_words=seed % 2 == 0), -(-len(stream) // window)
    run = learn([objective], rows, same(theirs, tmp_path), tok, count)
    found = step(run)

    batch = found[0]
    ids, labels, keep = batch.inputs["tokens"], batch["labels"], batch.inputs["keep"]
    chosen = labels != IGNORE
    assert torch.equal(torch.where(chosen, labels, ids)[keep], stream), "what is hidden is what must be guessed"
    assert not keep.all() and 0.3 < chosen[keep].double().mean() < 0.5
    compare_all("bert", run, found, theirs, {"input_ids": ids, "attention_mask": keep.long(), "labels": labels})


@seeds
@seq2seq
def test_sequence_to_sequence(family, seed, tmp_path):
    """They shift the labels themselves; ours made its decoder's input from the target."""
    theirs, tok, draw = drawn(family, seed)
    pairs, count = [(phrase(draw, 8), phrase(draw, 5)) for _ in range(6)], draw.randint(2, 6)
    rows = [{"prompt": x, "response": y} for x, y in pairs]
    run = learn([Seq2Seq(answers=0)], rows, same(theirs, tmp_path), tok, count)

    left = bool(seed % 2) and family == "t5"  # BART takes no positions: padding on the left would move its text
    compare_all(family, run, step(run), theirs, asked(family, pairs[:count], tok, left))


@seeds
@seq2seq
def test_span_corruption(family, seed, tmp_path):
    theirs, tok, draw = drawn(family, seed)
    texts = [phrase(draw, 12) for _ in range(20)]
    window, count = draw.randint(9, 33), draw.randint(1, 5)
    run = learn([Seq2Seq(window=window)], [{"text": t} for t in texts], same(theirs, tmp_path), tok, count)
    found = step(run)

    sources, labels = found[0].inputs["source"], found[0]["labels"]
    for i, (source, target) in enumerate(zip(sources.tolist(), labels.tolist(), strict=True)):
        cuts = [k for k, t in enumerate(target) if t in tok.sentinels] + [last(target, tok.eos)]
        cut = {target[a]: target[a + 1 : b] for a, b in pairwise(cuts)}
        told = [t for s in source[: last(source, tok.eos)] for t in cut.get(s, [s])]
        assert told == joined(texts, tok)[i * window : (i + 1) * window].tolist()
    keep = found[0].inputs.get("source_keep", torch.ones_like(sources)).long()
    compare_all(family, run, found, theirs, {"input_ids": sources, "attention_mask": keep, "labels": labels})


@seeds
@pytest.mark.parametrize("family", [*DECODERS, "bert", "t5"])
def test_padding_on_either_side(family, seed, tmp_path):
    """Our own model given padding, `keep` and labels, each row padded on a side of its own."""
    theirs, tok, draw = drawn(family, seed)
    model = same(theirs, tmp_path)
    rows = [[draw.randrange(1, theirs.config.vocab_size) for _ in range(draw.randint(2, 15))] for _ in range(4)]
    width = max(map(len, rows)) + 1
    befores = [draw.choice([0, width - len(row)]) for row in rows]
    in_place = lambda row, before: [0] * before + row + [0] * (width - before - len(row))  # noqa: E731
    ids = torch.tensor([in_place(row, n) for row, n in zip(rows, befores, strict=True)])
    keep = torch.tensor([in_place([1] * len(row), n) for row, n in zip(rows, befores, strict=True)])
    if family == "t5":
        labels = ids.roll(1, 1)[:, :7].clone()
        given = {"input_ids": ids, "attention_mask": keep, "labels": labels}
        begun = torch.cat([torch.full_like(ids[:, :1], tok.bos), labels[:, :-1]], 1)
        output = model(begun, source=ids, source_keep=keep.bool())
    else:
        labels = ids.masked_fill(keep == 0, IGNORE)
        if family in DECODERS:  # nothing predicts a row's first token
            labels = labels.masked_fill(keep.cumsum(1) == 1, IGNORE)
        given = {"input_ids": ids, "attention_mask": keep, "labels": labels}
        given["position_ids"] = (keep.cumsum(1) - 1).clamp(min=0)
        output = model(ids, keep.bool())
    wanted, their_loss = answers(theirs, given)
    if family in DECODERS:
        labels = pad([row[1:] for row in labels.tolist()] + [[IGNORE] * width], IGNORE)[:-1]
    compare(family, "logits", model.head(output.hidden[labels != IGNORE]), wanted)
    loss = model.loss(output, labels)
    compare(family, "loss", loss, their_loss)
    loss.backward()
    their_loss.backward()
    compare_gradients(family, model, theirs)

"""Supervised fine-tuning: which tokens are in the loss, and that packing changes nothing but the speed."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab import Run, Training
from llmlab.batch import Chunk
from llmlab.losses import IGNORE
from llmlab.model import ModelConfig
from llmlab.pretrained import load_model
from llmlab.surgery import named_layers
from llmlab_plugins.clm import CLM
from llmlab_plugins.lora import LoRA
from llmlab_plugins.sft import SFT, NoisyEmbeddings

TINY = ModelConfig(vocab_size=400, context=64, layers=2, heads=2, width=32)
ROWS = [{"prompt": f"Q: {i} plus {i % 7}?\nA:", "response": f" {i + i % 7}" + " indeed" * (i % 3)} for i in range(60)]

WORDS = Run(
    [CLM(window=16)], [{"text": "red blue one two cat: "}] * 9, config=TINY
).model  # untrained, and quick to make


def make(technique=None, rows=ROWS, **training):
    training = {"steps": 3, "batch_size": 4} | training
    return Run([technique or SFT(answers=0)], rows, config=TINY, training=Training(**training))


def batch_of(run, count=6):
    rows = run.rows("train")
    return run.make_batches(Chunk([rows[i] for i in range(min(count, len(rows)))], range(count), 0, 0))[0]


def test_the_response_and_its_end_are_learnt_the_prompt_is_not():
    run = make()
    tok, batch = run.tokenizer, batch_of(run)
    for i, row in enumerate(run.data["train"][:6]):
        learnt = batch["labels"][i][batch["labels"][i] != IGNORE].tolist()
        assert learnt == [*tok.encode(row["response"]), tok.eos]
        first = (batch["labels"][i] != IGNORE).nonzero()[0].item()
        seen = batch.inputs["tokens"][i, : first + 1].tolist()
        assert seen == [tok.bos, *tok.encode(row["prompt"])]


def test_the_prompt_can_be_in_the_loss():
    run = make(SFT(mask_prompt=False, answers=0))
    tok, batch, row = run.tokenizer, batch_of(run), run.data["train"][0]
    learnt = batch["labels"][0][batch["labels"][0] != IGNORE].tolist()
    assert learnt == [*tok.encode(row["prompt"]), *tok.encode(row["response"]), tok.eos]


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal"])
def test_packed_loss_equals_unpacked_loss(positions):
    """Positions start again, no example sees another, and none is predicted from the one before it."""
    config = replace(TINY, positions=positions)
    plain, packed = (Run([SFT(packing=p, answers=0)], ROWS, config=config) for p in (False, True))
    assert len(packed.rows("train")) < len(plain.rows("train")) / 2
    for split in ("train", "validation"):
        one, other = plain.losses(split)["loss"], packed.losses(split)["loss"]
        assert one == pytest.approx(other, rel=1e-6)
    labels = sum(batch_of(plain, 99).weight for _ in [0])
    assert labels == batch_of(packed, 99).weight


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 8)), min_size=2, max_size=14),
    st.booleans(),
    st.integers(0, 9),
)
def test_packed_loss_is_the_token_weighted_loss_of_its_documents(lengths, mask_prompt, seed):
    """For any lengths, and the gradients too: the mean over all labels, not the mean of the rows' means."""
    draw = random.Random(seed)
    word = lambda n: " ".join(draw.choice(["red", "blue", "one", "two", "cat"]) for _ in range(n))  # noqa: E731
    rows = [{"prompt": f"{word(x)}:", "response": f" {word(y)}"} for x, y in lengths]
    model = WORDS
    packed = Run([SFT(packing=True, answers=0, mask_prompt=mask_prompt)], {"train": rows}, model=model)
    single = Run([SFT(answers=0, mask_prompt=mask_prompt)], {"train": rows}, model=model)
    sums, count = 0.0, 0
    for row in single.rows("train"):
        (batch,) = single.make_batches(Chunk([row], [0], 0, 0))
        sums, count = sums + single.step(batch)["loss"] * batch.weight, count + batch.weight
    (batch,) = packed.make_batches(Chunk(packed.rows("train"), range(len(packed.rows("train"))), 0, 0))
    assert batch.weight == count
    loss = packed.step(batch)["loss"]
    assert loss.item() == pytest.approx((sums / count).item(), rel=1e-5)
    loss.backward()
    (sums / count).backward()
    pairs = zip(packed.model.parameters(), single.model.parameters(), strict=True)
    assert all(torch.allclose(p.grad, q.grad, atol=1e-5) for p, q in pairs)


def test_packed_rows_fit_the_context_and_hold_every_document():
    run = make(SFT(packing=True, answers=0))
    rows = run.rows("train")
    assert max(rows.lengths) <= TINY.context
    assert [d for row in rows for d in row["documents"]] == rows.pairs


def test_long_examples_are_cut_on_the_prompts_left():
    rows = [{"prompt": "word " * 100 + "last:", "response": " yes"}] * 20
    run = make(rows=rows)
    row = run.rows("train").pairs[0]
    assert len(row["tokens"]) == TINY.context
    assert run.tokenizer.decode(row["tokens"]).endswith("last: yes")
    make(SFT(answers=4, longest=64), rows=rows).fit(1)


def test_a_long_response_leaves_the_prompt_half_of_the_context():
    """A response that takes all of it would teach an answer to a question that nobody sees."""
    run = make(rows=[{"prompt": "ask:", "response": " word" * 200}] * 20)
    short = run.rows("train").pairs[0]
    asked = [run.tokenizer.bos, *run.tokenizer.encode("ask:")]
    assert short["tokens"][: short["start"]] == asked and len(short["tokens"]) == TINY.context
    long = make(rows=[{"prompt": "ask " * 100 + ":", "response": " word" * 200}] * 20).rows("train").pairs[0]
    assert (long["start"], len(long["tokens"])) == (TINY.context // 2, TINY.context)


def test_what_is_cut_is_told():
    rows = [{"prompt": "ask:", "response": " word" * (200 if i % 4 else 1), "nats": 1.0} for i in range(40)]
    run = make(rows={"train": rows, "validation": rows[:8]})
    found = run.evaluate()
    assert found["cut"] == 0.75 and "floor" not in found  # the floor is that of whole responses
    whole = make(rows=[row for row in rows if len(row["response"]) < 9]).evaluate()
    assert "cut" not in whole and "floor" in whole


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "What?", "response": ""}, "has an empty response, from which there is nothing to learn"),
        ({"prompt": "What?", "response": " \n"}, "has an empty response"),
        ({"prompt": "What?", "response": None}, "has an empty response"),
        ({"question": "What?"}, "a row with question is no pair"),
    ],
)
def test_an_example_with_nothing_to_learn_is_named(row, told):
    run = make(rows={"train": [*ROWS[:7], row, *ROWS[7:]]})
    with pytest.raises(ValueError, match=f"^SFT.examples: row 7 of the train split:? {told}") as caught:
        run.fit()
    assert run.steps == 0 and not hasattr(caught.value, "__notes__")


def test_with_the_prompt_in_the_loss_an_empty_response_still_teaches():
    run = make(SFT(mask_prompt=False, answers=0), rows=[{"prompt": "Say nothing.", "response": ""}] * 20)
    assert batch_of(run).weight > 6


@pytest.mark.parametrize(
    ("row", "measure", "found"),
    [
        ({"prompt": "p", "response": "r"}, "auto", {"exact_match", "f1"}),
        ({"source": "p", "target": "r"}, "auto", {"exact_match", "f1"}),
        ({"text": "p", "label": "r"}, "auto", {"accuracy", "macro_f1"}),
        ({"text": "p", "label": 1, "cue": "Class:"}, "auto", {"accuracy", "macro_f1"}),
        ({"prompt": "p", "response": "r", "label": "other"}, "auto", {"exact_match", "f1"}),
        ({"text": "p", "label": "r"}, "words", {"exact_match", "f1"}),
        ({"source": "p", "target": "r"}, "bleu", {"bleu"}),
        ({"source": "p", "target": "r"}, "rouge", {"rouge1", "rouge2", "rougeL"}),
    ],
)
def test_a_task_has_its_measure(row, measure, found):
    run = make(SFT(measure=measure, answers=2, longest=4), rows=[row] * 20)
    assert set(run.evaluate()) - {"loss", "perplexity"} == found


def test_classes_are_told_apart():
    rows = [{"text": f"the {w} one", "label": "warm" if w == "red" else "cold"} for w in ["red", "blue"] * 30]
    run = make(SFT(answers=6), rows=rows, steps=120, learning_rate=1e-2).fit()
    assert run.metrics["accuracy"] == run.metrics["macro_f1"] == 1.0


def test_other_columns_make_pairs_too():
    run = make(rows=[{"source": f"{i} cats", "target": f"{i} chats"} for i in range(20)])
    assert run.tokenizer.decode(run.rows("train").pairs[0]["tokens"]) == "0 cats\n0 chats"
    run = make(rows=[{"text": "good", "label": "positive"}] * 20)
    assert run.tokenizer.decode(run.rows("train").pairs[0]["tokens"]) == "good\npositive"


def test_answers_are_measured():
    rows = [{"prompt": f"say {w}:", "response": f" {w}"} for w in ["red", "blue"] * 30]
    run = make(SFT(answers=6), rows=rows, steps=150, learning_rate=1e-2).fit()
    assert run.metrics["exact_match"] == 1.0 and run.metrics["f1"] == 1.0
    assert run.evaluations[0]["exact_match"] < 0.5
    assert run.generate("say blue:") == " blue"


def test_smoothing_is_for_training_alone():
    torch.manual_seed(0)
    plain, smooth = make().fit(1), make(SFT(smoothing=0.2, answers=0)).fit(1)
    assert plain.evaluations[0]["loss"] == smooth.evaluations[0]["loss"]
    assert plain.history[0]["loss"] != smooth.history[0]["loss"]


def test_neftune_noise_has_the_papers_length_and_only_in_training():
    run = make(SFT(neftune=9.0, answers=0))
    noisy = run.model.decoder.embeddings
    assert isinstance(noisy, NoisyEmbeddings)
    tokens, positions = torch.randint(0, 50, (200, 20)), torch.arange(20)
    noisy.eval()
    clean = noisy(tokens, positions)
    assert torch.equal(clean, noisy.base(tokens, positions))
    noisy.train()
    noise = (noisy(tokens, positions) - clean).flatten(1)
    assert noise.abs().max() <= 9 / math.sqrt(20 * 32) + 1e-6
    assert noise.norm(dim=1).mean().item() == pytest.approx(9 / math.sqrt(3), rel=0.01)


def test_neftune_is_never_applied_twice_nor_left_behind(tmp_path):
    def wrapped(model):
        return sum(isinstance(getattr(holder, name), NoisyEmbeddings) for _, holder, name in named_layers(model))

    run = make(SFT(neftune=5.0, answers=0)).fit(1)
    again = Run([SFT(neftune=5.0, answers=0)], ROWS, model=run.model)
    assert wrapped(again.model) == 1 and not isinstance(again.model.decoder.embeddings.base, NoisyEmbeddings)
    assert wrapped(Run([CLM()], ROWS, model=run.model).model) == 0
    run.save(tmp_path)
    assert wrapped(load_model(tmp_path)) == 0
    assert wrapped(Run.load(tmp_path, ROWS).model) == 1


@pytest.mark.parametrize("extra", [{}, {"packing": True}, {"neftune": 5.0}, {"smoothing": 0.1}])
def test_each_choice_trains_with_lora(extra):
    base = Run([CLM(window=32)], ROWS, config=TINY, training=Training(steps=60, batch_size=4, learning_rate=1e-2)).fit()
    rows = [{"prompt": f"say {w}:", "response": f" {w} please"} for w in ["red", "blue"] * 30]
    training = Training(steps=40, batch_size=4)
    run = Run([SFT(answers=0, **extra), LoRA(rank=4)], rows, model=base.model, training=training).fit()
    assert run.metrics["loss"] < run.evaluations[0]["loss"] - 1

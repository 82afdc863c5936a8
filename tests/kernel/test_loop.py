"""The loop: steps, schedules, accumulation, evaluation, stopping, and what it says when it cannot go on."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
import time

import pytest
import torch

from llmlab import Run, Training
from llmlab.batch import Batch
from llmlab.progress import Lines, Progress
from llmlab.surgery import named_parameters
from llmlab.technique import hookimpl, technique
from llmlab.training import SCHEDULES, recommended_rate
from llmlab_plugins.clm import CLM
from llmlab_plugins.lora import LoRA
from llmlab_plugins.sft import SFT


def clm(texts, tiny, *more, **training):
    training = {"steps": 6, "batch_size": 4} | training
    return Run([CLM(window=16), *more], texts, config=tiny, training=Training(**training))


def weights(run):
    return {n: p.detach().clone() for n, p in named_parameters(run.model)}


def test_it_learns(texts, tiny):
    run = clm(texts, tiny, steps=60, learning_rate=1e-2).fit()
    first, last = run.evaluations[0]["loss"], run.metrics["loss"]
    assert first == pytest.approx(math.log(run.tokenizer.vocab_size), rel=0.05)
    assert last < 0.4 * first
    assert run.metrics["perplexity"] == pytest.approx(math.exp(last))


def test_accumulation_counts_tokens(texts, tiny):
    """Two uneven batches added up move the weights as one batch of all their tokens does."""
    rows = [[1, 7, 8, 9, 10, 11, 12, 13], [1, 7, 8]]

    class Rows(CLM):
        joined = False

        @hookimpl
        def batches(self, run, examples):
            from llmlab.batch import pad
            from llmlab.losses import IGNORE

            for part in [rows] if self.joined else [rows[:1], rows[1:]]:
                tokens, labels = pad(part), pad(part, IGNORE)
                yield Batch({"tokens": tokens[:, :-1]}, {"labels": labels[:, 1:]})

    def train(joined):
        technique = Rows()
        technique.joined = joined
        training = Training(steps=2, batch_size=4, accumulate=1 if joined else 2, learning_rate=1e-3)
        return Run([technique], {"train": texts["train"]}, config=tiny, training=training).fit()

    one, two = train(True), train(False)
    assert one.history[0]["loss"] == pytest.approx(two.history[0]["loss"], rel=1e-5)
    assert one.history[0]["gradient_norm"] == pytest.approx(two.history[0]["gradient_norm"], rel=1e-4)
    for name, p in weights(one).items():
        assert torch.allclose(p, weights(two)[name], atol=2e-5), name


def test_schedules():
    for name in SCHEDULES:
        t = Training(schedule=name, warmup=0.1)
        rates = [t.rate(s, 100, 1.0) for s in range(100)]
        assert rates[:10] == sorted(rates[:10]) and rates[0] > 0 and rates[10] == pytest.approx(1.0)
        assert rates[10:] == sorted(rates[10:], reverse=True)
    end = {name: Training(schedule=name, warmup=0.1).rate(99, 100, 1.0) for name in SCHEDULES}
    assert end["constant"] == 1 and end["linear"] < 0.02 and end["cosine"] == pytest.approx(0.1, abs=0.01)
    assert end["inverse-sqrt"] == pytest.approx(math.sqrt(10 / 99), rel=0.02)


def test_a_short_run_warms_up_for_ten_steps_or_a_quarter():
    assert [Training().climb(steps) for steps in (8, 40, 100, 1000)] == [2, 10, 10, 100]
    assert Training(warmup=0.0).climb(1000) == 0


def test_the_learning_rate_is_the_schedules(texts, tiny):
    run = clm(texts, tiny, steps=5, schedule="linear", warmup=0.0, learning_rate=0.01).fit()
    assert [h["learning_rate"] for h in run.history] == pytest.approx([0.01, 0.008, 0.006, 0.004, 0.002])


def test_recommended_rates_an_adaptation_wins():
    assert recommended_rate([CLM()]) == 3e-3
    assert recommended_rate([SFT(), LoRA()]) == recommended_rate([LoRA(), SFT()]) == LoRA.llmlab.learning_rate
    assert recommended_rate([object()]) == 1e-3


def test_clipping(texts, tiny):
    loose = clm(texts, tiny, steps=1, clip=0).fit()
    tight = clm(texts, tiny, steps=1, clip=1e-3).fit()
    assert loose.history[0]["gradient_norm"] == pytest.approx(tight.history[0]["gradient_norm"])
    norm = math.sqrt(sum(float(p.grad.pow(2).sum()) for p in tight.model.parameters() if p.grad is not None))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_biases_and_norms_do_not_decay(texts, tiny):
    run = clm(texts, tiny, weight_decay=0.5).fit(1)
    for group in run.optimizer.param_groups:
        assert all((p.dim() > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_when_evaluations_happen(texts, tiny):
    run = clm(texts, tiny, steps=7, evaluate_every=3).fit()
    assert [e["step"] for e in run.evaluations] == [0, 3, 6, 7]
    assert [e["step"] for e in clm({"train": texts["train"]}, tiny).fit().evaluations] == []


def test_evaluation_is_repeatable_and_changes_nothing(texts, tiny):
    run = clm(texts, type(tiny).from_dict(tiny.to_dict() | {"dropout": 0.3})).fit(2)
    before = weights(run)
    assert run.evaluate("test") == run.evaluate("test") != run.evaluate("validation")
    assert all(torch.equal(p, before[n]) for n, p in weights(run).items())


def test_losses_are_weighted_by_labels(texts, tiny):
    """The mean over a split is the mean over all its tokens, however they fall into batches."""
    run = clm(texts, tiny)
    tokens = run.rows("validation").tokens
    total = count = 0.0
    for row in run.rows("validation"):
        t = row["tokens"][None]
        if t.size(1) > 1:
            with torch.no_grad():
                loss = run.model.loss(run.model(t[:, :-1]), t[:, 1:])
            total += float(loss) * (t.size(1) - 1)
            count += t.size(1) - 1
    assert count == len(tokens) - 1
    for size in (1, 4, 5, 100):
        again = clm(texts, tiny, batch_size=size)
        assert again.losses("validation")["loss"] == pytest.approx(total / count, rel=1e-5)


def test_early_stopping_and_the_best_weights(texts, tiny):
    class Worsens(CLM):
        """Learns for four steps, then has its loss turned round."""

        seen = 0

        @hookimpl
        def compute_loss(self, model, batch, output):
            loss = model.loss(output, batch["labels"])
            if model.training:
                Worsens.seen += 1
                loss = loss if Worsens.seen <= 4 else -loss
            return {"loss": loss}

    training = Training(steps=40, batch_size=4, evaluate_every=2, patience=3, learning_rate=5e-3)
    run = Run([Worsens(window=16)], texts, config=tiny, training=training).fit()
    best = min(run.evaluations, key=lambda e: e["loss"])
    assert run.steps == best["step"] + 6 and run.stopped == "no better validation loss in 3 evaluations"
    Worsens.seen = 0
    keep = Training(steps=12, batch_size=4, evaluate_every=2, keep_best=True, learning_rate=5e-3, schedule="constant")
    kept = Run([Worsens(window=16)], texts, config=tiny, training=keep).fit()
    best = min(kept.evaluations, key=lambda e: e["loss"])
    assert best["step"] < 12 and kept.evaluate(batches=8)["loss"] == pytest.approx(best["loss"])
    Worsens.seen = 0
    both = dataclasses.replace(training, keep_best=True)
    early = Run([Worsens(window=16)], texts, config=tiny, training=both).fit()
    best = min(early.evaluations, key=lambda e: e["loss"])
    assert early.steps < 40 and early.evaluate(batches=8)["loss"] == pytest.approx(best["loss"])


def test_stop_from_a_hook_and_going_on(texts, tiny):
    class Stopper:
        @hookimpl
        def after_step(self, run, step):
            if step == 2:
                run.stop("enough")

    run = clm(texts, tiny, Stopper()).fit()
    assert run.steps == 2 and run.stopped == "enough" and run.metrics["step"] == 2
    run.fit()
    assert run.steps == 6 and run.stopped == ""


def test_ctrl_c_leaves_a_usable_model(texts, tiny):
    class Interrupt:
        @hookimpl
        def after_step(self, step):
            if step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    run = clm(texts, tiny, Interrupt(), steps=50).fit()
    assert 3 <= run.steps <= 4 and run.stopped == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before
    assert isinstance(run.generate("Ada", max_new_tokens=3), str)
    run.fit(2)
    assert run.steps >= 5


def test_one_fit_at_a_time(texts, tiny):
    slow, other = clm(texts, tiny, steps=10_000), clm(texts, tiny)
    thread = threading.Thread(target=slow.fit)
    thread.start()
    try:
        while slow.steps < 1:
            time.sleep(0.01)
        with pytest.raises(RuntimeError, match="another run is training in this process: stop it first"):
            other.fit()
    finally:
        slow.stop()
        thread.join(20)
    assert not thread.is_alive() and slow.stopped == "stopped"
    other.fit(1)


def test_a_stop_acts_within_one_step(texts, tiny):
    run = clm(texts, tiny, steps=100_000, evaluate_every=100_000)
    thread = threading.Thread(target=run.fit)
    thread.start()
    while run.steps < 3:
        time.sleep(0.005)
    at = run.steps
    run.stop()
    thread.join(20)
    assert run.steps <= at + 2


def test_nonsense_stops_with_step_technique_and_cause(texts, tiny):
    class Breaks(CLM):
        @hookimpl
        def compute_loss(self, model, batch, output):
            loss = model.loss(output, batch["labels"])
            return {"loss": loss * float("nan") if len(self.run.history) == 2 and model.training else loss}

    technique = Breaks(window=16)
    run = Run([technique], texts, config=tiny, training=Training(steps=5, batch_size=4, learning_rate=0.1))
    technique.run = run
    with pytest.raises(
        FloatingPointError, match=r"the loss is nan at step 3 of Breaks: probably the learning rate 0.1"
    ):
        run.fit()
    assert run.steps == 2 and all(p.isfinite().all() for p in run.model.parameters())
    assert isinstance(run.generate("Ada", max_new_tokens=2), str)


def test_a_batch_with_nothing_to_learn_is_an_error(pairs, tiny):
    rows = [{"prompt": row["prompt"], "response": row["response"]} for row in pairs["train"]]

    class Masked(SFT):
        @hookimpl
        def batches(self, run, examples):
            batch = next(super().batches(run, examples))
            batch.targets["labels"].fill_(-100)
            yield batch

    with pytest.raises(ValueError, match="every label of this batch is masked") as caught:
        Run([Masked()], {"train": rows}, config=tiny, training=Training(steps=1)).fit()
    assert "Masked" in caught.value.__notes__[0] or "SFT" in caught.value.__notes__[0]


def test_progress_tells(texts, tiny, capsys):
    seen = []

    class Watch(Progress):
        def start(self, run, step, target):
            seen.append(("start", step, target))

        def step(self, run, metrics):
            seen.append(("step", metrics["step"]))

        def evaluated(self, run, metrics):
            seen.append(("evaluated", metrics["step"]))

        def finish(self, run):
            seen.append(("finish", run.steps))

    clm(texts, tiny, steps=2, evaluate_every=2).fit(progress=Watch())
    assert seen == [("start", 0, 2), ("evaluated", 0), ("step", 1), ("step", 2), ("evaluated", 2), ("finish", 2)]
    clm(texts, tiny, steps=2).fit(progress=Lines())
    shown = capsys.readouterr().out
    assert "CLM on in memory: " in shown and "(100.0%), learning rate 0.003" in shown and "step     2: loss" in shown
    clm(texts, tiny, steps=2).fit()
    assert capsys.readouterr().out == ""


def test_what_was_given_is_checked_before_work(texts, tiny):
    with pytest.raises(ValueError, match="this run has no data: give it some"):
        Run([CLM()], model=clm(texts, tiny).model).fit(1)
    with pytest.raises(ValueError, match="needs data to learn a tokenizer from"):
        Run([CLM()])
    with pytest.raises(ValueError, match="give a run a model or a config, not both"):
        Run([CLM()], texts, model=clm(texts, tiny).model, config=tiny)
    with pytest.raises(ValueError, match="unknown split 'valid': the splits are train, validation, test"):
        Run([CLM()], {"train": texts["train"], "valid": texts["test"]})
    with pytest.raises(ValueError, match="row 0 of the train split is a str: give dicts"):
        Run([CLM()], ["one", "two"])
    with pytest.raises(ValueError, match="there is no training example"):
        Run([CLM()], [])


def test_rows_may_be_any_indexed_thing(texts, tiny):
    class Mapped:
        """As a memory-mapped dataset: a length, rows by number, made when they are asked for."""

        def __len__(self):
            return 30

        def __getitem__(self, i):
            if not 0 <= i < 30:
                raise IndexError(i)
            return {"text": f"row {i} of thirty"}

    for data in (Mapped(), {"train": Mapped(), "validation": Mapped()}):
        run = Run([CLM(window=16)], data, config=tiny, training=Training(steps=2, batch_size=4)).fit()
        assert run.metrics["step"] == 2


def test_a_list_of_rows_is_split(texts, tiny):
    run = Run([CLM(window=16)], texts["train"], config=tiny)
    assert {s: len(run.data[s]) for s in run.data.splits} == {"train": 64, "validation": 8, "test": 8}


@pytest.mark.parametrize("more", [(), (LoRA(rank=2),)])
def test_bfloat16_follows_the_same_curve_on_float32_weights(more, texts, tiny):
    full = clm(texts, tiny, *more, steps=30, learning_rate=1e-2).fit()
    half = clm(texts, tiny, *more, steps=30, learning_rate=1e-2, precision="bf16").fit()
    assert full.history != half.history  # it did compute otherwise
    assert half.metrics["loss"] == pytest.approx(full.metrics["loss"], rel=0.03)
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}


def test_a_chunk_says_whether_it_is_trained_on(texts, tiny):
    seen = []

    class Look:
        @hookimpl(wrapper=True)
        def batches(self, examples):
            seen.append(examples.training)
            return (yield)

    run = Run([CLM(window=16), Look()], texts, config=tiny, training=Training(steps=3, batch_size=4))
    run.evaluate()
    assert seen and not any(seen)
    seen.clear()
    run.fit()
    assert sum(seen) == 3 and not all(seen)


def test_a_stop_of_a_run_that_measures_nothing(texts, tiny):
    class Stopper:
        @hookimpl
        def after_step(self, run, step):
            run.stop()

    run = clm({"train": texts["train"]}, tiny, Stopper()).fit()
    assert run.steps == 1 and not run.evaluations


def test_the_last_after_step_sees_the_weights_that_are_kept(texts, tiny):
    seen = {}

    class Looks:
        @hookimpl
        def after_step(self, run, step):
            seen[step] = run.model.head.output.weight.detach().clone()

    training = Training(steps=4, batch_size=4, evaluate_every=1, keep_best=True, learning_rate=1.0, clip=0)
    run = Run([CLM(window=16), Looks()], texts, config=tiny, training=training).fit()
    assert run.best["step"] < 4, "the last was the best, so this tests nothing"
    assert torch.equal(seen[4], run.model.head.output.weight) and not torch.equal(seen[3], seen[4])


@pytest.mark.parametrize(("given", "trains"), [({}, True), ({"dropout": False}, False), ({"on_policy": True}, False)])
def test_a_technique_may_ask_for_steps_without_dropout(texts, tiny, given, trains):
    modes = []

    @technique(**given)
    class Watch:
        @hookimpl(wrapper=True)
        def compute_loss(self, model):
            modes.append(model.training)
            return (yield)

    clm(texts, tiny, Watch(), steps=2, evaluate_every=10).fit()
    assert modes.count(True) == 2 * trains and modes.count(False) > 0

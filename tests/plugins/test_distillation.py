"""Distillation: the published loss, whose opinion it is, where it counts, and what it leaves as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from llmlab import Run, Training, corpus, load
from llmlab.batch import Chunk
from llmlab.losses import IGNORE
from llmlab.model import ModelConfig, Transformer
from llmlab.surgery import named_parameters
from llmlab_plugins.augment import Augment
from llmlab_plugins.clm import CLM
from llmlab_plugins.distillation import TEACHER, Distillation, divergence
from llmlab_plugins.lora import LoRA
from llmlab_plugins.mlm import MLM
from llmlab_plugins.ppo import PPO
from llmlab_plugins.reward import Reward
from llmlab_plugins.scorer import Scorer
from llmlab_plugins.seq2seq import Seq2Seq
from llmlab_plugins.sft import SFT

PAIRS = [{"prompt": f"What comes after {i}?", "response": f" {i + 1}, of course."} for i in range(24)]
SMALL = dict(layers=1, heads=2, width=32, mlp_width=64, context=256)
BASES = {"decoder": "tiny-gpt", "encoder": "tiny-bert", "encoder-decoder": "tiny-t5"}


def student(family="decoder", seed=1, **more):
    """A small new model with the bundled base's tokenizer."""
    tok = load(BASES[family]).tokenizer
    torch.manual_seed(seed)
    model = Transformer(replace(ModelConfig.usual(family), **{**SMALL, "vocab_size": tok.vocab_size, **more}))
    model.tokenizer = tok
    return model.eval()


def make(*techniques, model=None, rows=PAIRS, steps=3, **more):
    training = Training(steps=steps, batch_size=4, learning_rate=1e-3, **more)
    data = {"train": rows[:16], "validation": rows[16:]}
    return Run([*techniques], data, model=student() if model is None else model, training=training)


def weights(model):
    return {n: p.detach().clone() for n, p in named_parameters(model)}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


def first_batch(run, split="train"):
    rows = run.rows(split)
    ids = [i % len(rows) for i in range(4)]  # packed, there are fewer
    return run.make_batches(Chunk([rows[i] for i in ids], ids, 0, 0, training=True))[0]


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# -- the loss ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [0.5, 1.0, 4.0])
def test_divergence_and_its_gradient_are_the_formula_s(T):
    rng = np.random.default_rng(0)
    z, teacher = rng.normal(0, 3, (5, 11)), rng.normal(0, 3, (5, 11))
    q, p = softmax(teacher / T), softmax(z / T)
    given = torch.tensor(z, requires_grad=True)
    found = divergence(given, (torch.tensor(teacher) / T).log_softmax(-1), T)
    assert float(found.detach()) == pytest.approx((q * (np.log(q) - np.log(p))).sum(-1).mean(), rel=1e-9)
    found.backward()
    np.testing.assert_allclose(given.grad.numpy(), (p - q) / T / len(z), atol=1e-12)


def test_at_a_high_temperature_it_matches_logits():
    """T² times the gradient tends to (z - z_teacher) / V of centred logits: Hinton et al. 2015, section 2.1."""
    rng = np.random.default_rng(1)
    z, teacher = rng.normal(0, 1, (4, 9)), rng.normal(0, 1, (4, 9))
    given, T = torch.tensor(z, requires_grad=True), 1e4
    (T**2 * divergence(given, (torch.tensor(teacher) / T).log_softmax(-1), T)).backward()
    wanted = ((z - z.mean(-1, keepdims=True)) - (teacher - teacher.mean(-1, keepdims=True))) / 9 / 4
    np.testing.assert_allclose(given.grad.numpy(), wanted, atol=1e-3)


@pytest.mark.parametrize(("T", "alpha"), [(2.0, 0.5), (1.0, 0.3), (5.0, 1.0)])
def test_the_whole_loss_from_logits(T, alpha):
    teacher = load("tiny-gpt")
    run = make(SFT(), Distillation(teacher, temperature=T, weight=alpha))
    batch = first_batch(run)
    where = (batch["labels"] != IGNORE).numpy()
    found = {name: float(value.detach()) for name, value in run.step(batch).items()}
    with torch.no_grad():
        z, theirs = (m.head(m(**batch.inputs).hidden).double().numpy()[where] for m in (run.model, teacher))
    q, p, y = softmax(theirs / T), softmax(z / T), batch["labels"].numpy()[where]
    kl = (q * (np.log(q) - np.log(p))).sum(-1).mean()
    hard = -np.log(softmax(z)[np.arange(len(y)), y]).mean()
    assert found["divergence"] == pytest.approx(kl, rel=1e-4)
    assert found["hard_loss"] == pytest.approx(hard, rel=1e-4)
    assert found["loss"] == pytest.approx((1 - alpha) * hard + alpha * T**2 * kl, rel=1e-4)


def test_with_all_the_weight_on_the_teacher_the_right_token_does_not_count():
    run = make(SFT(), Distillation(load("tiny-gpt"), weight=1.0))
    batch = first_batch(run)
    before = run.step(batch)
    batch.targets["labels"] = torch.where(batch["labels"] == IGNORE, IGNORE, 7)
    after = run.step(batch)
    assert torch.equal(after["loss"], before["loss"]) and not torch.equal(after["hard_loss"], before["hard_loss"])


# -- the teacher -------------------------------------------------------------------------------------------------

OBJECTIVES = {
    "clm": (CLM(window=24), "decoder"),
    "sft": (SFT(), "decoder"),
    "sft packed": (SFT(packing=True), "decoder"),
    "mlm": (MLM(window=24), "encoder"),
    "seq2seq": (Seq2Seq(), "encoder-decoder"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_teacher_is_asked_at_the_labels_about_what_the_student_reads(name):
    objective, family = OBJECTIVES[name]
    teacher = load(BASES[family])
    run = make(objective, Distillation(BASES[family], temperature=3.0), model=student(family))
    batch = first_batch(run)
    where = batch["labels"] != IGNORE
    with torch.no_grad():
        wanted = (teacher.head(teacher(**batch.inputs).hidden)[where] / 3).log_softmax(-1)
    assert len(batch[TEACHER]) == batch.weight < where.numel() or name == "clm"
    torch.testing.assert_close(batch[TEACHER], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [True, False])
def test_the_teacher_reads_the_noise_of_an_augmentation_wherever_that_stands_in_the_list(first):
    teacher, noise = load("tiny-gpt"), Augment(rate=0.9)
    distil = Distillation(teacher)
    run = make(SFT(), *([noise, distil] if first else [distil, noise]))
    batch, clean = first_batch(run), first_batch(make(SFT()))
    assert not torch.equal(batch.inputs["tokens"], clean.inputs["tokens"])
    with torch.no_grad():
        wanted = (teacher.logits(teacher(**batch.inputs), batch["labels"] != IGNORE) / 2).log_softmax(-1)
    torch.testing.assert_close(batch[TEACHER], wanted, rtol=1e-4, atol=1e-4)


def test_every_form_of_the_same_teacher_says_the_same(tmp_path):
    from llmlab import save_patch

    taught = make(SFT(), LoRA(rank=2), model=load("tiny-gpt")).fit(progress=False)
    save_patch(taught.model, load("tiny-gpt"), tmp_path / "lora.safetensors")
    taught.save(tmp_path / "run")
    forms = [taught, taught.model, tmp_path / "run", str(tmp_path / "run"), tmp_path / "lora.safetensors"]
    said = [first_batch(make(SFT(), Distillation(teacher)))[TEACHER] for teacher in forms]
    assert not torch.allclose(said[0], first_batch(make(SFT(), Distillation("tiny-gpt")))[TEACHER], atol=1e-3)
    for other in said[1:]:
        torch.testing.assert_close(other, said[0], rtol=1e-4, atol=1e-4)


def test_the_teacher_that_is_given_stays_as_it_is():
    teacher = load("tiny-gpt").train()
    before, trains = weights(teacher), [p.requires_grad for p in teacher.parameters()]
    run = make(SFT(), Distillation(teacher)).fit(progress=False)
    assert same(weights(teacher), before) and teacher.training
    assert [p.requires_grad for p in teacher.parameters()] == trains and True in trains
    assert all(p.grad is None for p in teacher.parameters())
    assert run.parameters().total == sum(p.numel() for p in student().parameters())


def test_a_teacher_in_training_mode_still_says_one_thing():
    teacher = student(seed=2, dropout=0.5).train()
    run = make(SFT(), Distillation(teacher))
    assert torch.equal(first_batch(run)[TEACHER], first_batch(run)[TEACHER])


def test_a_teacher_that_goes_on_learning_does_not_take_what_it_taught_with_it():
    teacher = make(SFT(), model=load("tiny-gpt")).fit(1, progress=False)
    run = make(SFT(), Distillation(teacher))
    before = first_batch(run)[TEACHER]
    teacher.fit(2, progress=False)
    assert torch.equal(first_batch(run)[TEACHER], before)


# -- without a teacher -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [[], [LoRA(rank=2)]], ids=["all", "lora"])
def test_without_a_teacher_it_is_the_model_before_the_first_step(others):
    base = load("tiny-gpt")
    run = make(SFT(), *others, Distillation(), model=base, steps=4).fit(progress=False)
    assert run.history[0]["divergence"] == pytest.approx(0, abs=1e-5)
    assert run.history[-1]["divergence"] > 1e-4
    batch = first_batch(run)
    with torch.no_grad():
        wanted = (base.logits(base(**batch.inputs), batch["labels"] != IGNORE) / 2).log_softmax(-1)
    torch.testing.assert_close(batch[TEACHER], wanted, rtol=1e-4, atol=1e-4)
    named = make(SFT(), *others, Distillation(base), model=base, steps=4).fit(progress=False)
    assert same(weights(named.model), weights(run.model))


@pytest.mark.slow
def test_it_keeps_the_model_nearer_to_what_it_was():
    base = load("tiny-gpt")

    def distance(*more):
        run = make(SFT(), *more, model=base, steps=12).fit(progress=False)
        batch = first_batch(make(SFT(), model=base))
        with torch.no_grad():
            one, other = (m.logits(m(**batch.inputs), batch["labels"] != IGNORE) for m in (run.model, base))
            return float(divergence(one, other.log_softmax(-1), 1.0))

    free, held, tight = distance(), distance(Distillation(weight=0.5)), distance(Distillation(weight=0.9))
    assert tight < 0.8 * held < 0.8 * 0.8 * free, (tight, held, free)


# -- what stays as without a teacher -----------------------------------------------------------------------------


def test_without_weight_nothing_changes_but_what_is_told():
    """The same batches in the same order, over several passes: the same weights and losses, digit for digit."""
    plain = make(SFT(), steps=10).fit(progress=False)
    told = make(SFT(), Distillation("tiny-gpt", weight=0.0), steps=10).fit(progress=False)
    assert [row["hard_loss"] for row in told.history] == [row["loss"] for row in plain.history]
    assert [row["loss"] for row in told.evaluations] == [row["loss"] for row in plain.evaluations]
    assert [row["perplexity"] for row in told.evaluations] == [row["perplexity"] for row in plain.evaluations]
    assert same(weights(told.model), weights(plain.model))


def test_what_is_measured_is_the_objective_s_own_loss_and_the_divergence():
    run = make(SFT(smoothing=0.1), Distillation("tiny-gpt", weight=0.9))
    found = run.evaluate()
    assert found["loss"] == make(SFT()).evaluate()["loss"]
    assert found["divergence"] > 0 and "hard_loss" not in found
    step = run.fit(1, progress=False).history[0]
    assert step["loss"] == pytest.approx(0.1 * step["hard_loss"] + 0.9 * 4 * step["divergence"], rel=1e-5)


@pytest.mark.parametrize("teacher", [None, "tiny-gpt"])
def test_it_goes_on_where_it_stopped(teacher, tmp_path):
    model = load("tiny-gpt") if teacher is None else student()
    whole = make(SFT(), Distillation(teacher), model=model, steps=6).fit(progress=False)
    make(SFT(), Distillation(teacher), model=model, steps=6).fit(3, progress=False).save(tmp_path)
    data = {"train": PAIRS[:16], "validation": PAIRS[16:]}
    again = Run.load(tmp_path, data).fit(progress=False)
    assert again.history == whole.history and same(weights(again.model), weights(whole.model))


def test_a_run_file_names_a_teacher_that_was_in_memory(tmp_path):
    make(SFT(), Distillation(load("tiny-gpt"))).fit(1, progress=False).save(tmp_path)
    data = {"train": PAIRS[:16], "validation": PAIRS[16:]}
    with pytest.raises(ValueError, match="Transformer, which was in memory"):
        Run.load(tmp_path, data)
    assert Run.load(tmp_path, data, [Distillation(load("tiny-gpt"))]).fit(1, progress=False).steps == 2


def test_batches_that_are_added_up_are_one_batch():
    """The mean is over labels: two batches of 4 weigh as one of 8 would."""
    rows = [row | {"response": row["response"] * (1 + i % 3)} for i, row in enumerate(PAIRS)]
    several = make(SFT(), Distillation("tiny-gpt"), rows=rows, accumulate=4, steps=1).fit(progress=False)
    training = Training(steps=1, batch_size=16, learning_rate=1e-3)
    data = {"train": rows[:16], "validation": rows[16:]}
    one = Run([SFT(), Distillation("tiny-gpt")], data, model=student(), training=training).fit(progress=False)
    for name in ("loss", "hard_loss", "divergence", "gradient_norm"):
        assert several.history[0][name] == pytest.approx(one.history[0][name], rel=1e-4)


# -- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_student_comes_to_think_as_its_teacher_does():
    data = corpus("tinytown", task="mix", size=600)
    training = Training(steps=60, batch_size=8, learning_rate=3e-3, evaluate_every=60, evaluate_batches=4)
    distil = Distillation("tiny-gpt", temperature=1.0, weight=1.0)
    run = Run([CLM(window=64), distil], data, model=student(width=64), training=training)
    first, last = run.fit(progress=False).evaluations
    assert last["divergence"] < 0.7 * first["divergence"] and last["loss"] < 0.7 * first["loss"]


@pytest.mark.slow
def test_on_what_the_student_writes_itself():
    """Beside PPO it is on-policy distillation (Agarwal et al. 2023): α = 1 leaves the teacher alone to learn from."""
    rows = [{"prompt": row["prompt"]} for row in PAIRS]
    scorer = Scorer(lambda prompts, responses: [0.0] * len(prompts))
    astray = make(SFT(), model=load("tiny-gpt"), steps=20).fit(progress=False).model
    distil = Distillation("tiny-gpt", weight=1.0, temperature=1.0)
    run = make(PPO(longest=8, answers=4), scorer, distil, rows=rows, model=astray, steps=40).fit(progress=False)
    told = [row["divergence"] for row in run.history]
    assert sum(told[-8:]) < 0.6 * sum(told[:8]), told


# -- what cannot work --------------------------------------------------------------------------------------------


def other_words():
    rows = [{"text": f"{a} {b}"} for a in "abcdefgh" for b in "stuvw"]
    return Run([CLM(window=8)], rows, config=ModelConfig(**{**SMALL, "vocab_size": 340})).model


def renamed():
    """A model of the right size, whose ids stand for other tokens."""
    model = student()
    model.tokenizer = other_words().tokenizer
    return model


WRONG = {
    "nowhere": (lambda: "runs/nowhere", "no model is called 'runs/nowhere'"),
    "a number": (lambda: 3, "not 3"),
    "another family by name": (lambda: "tiny-bert", "takes no encoder as teacher of this decoder"),
    "other tokens, as many": (renamed, "the teacher's tokens are not the student's"),
    "another tokenizer": (other_words, "the teacher's tokens are not the student's"),
}


@pytest.mark.parametrize("case", WRONG)
def test_who_cannot_teach_is_said_before_any_step(case):
    teacher, complaint = WRONG[case]
    run = make(SFT(), Distillation(teacher()))
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as caught:
        run.fit(progress=False)
    said = str(caught.value)
    assert said.startswith("Distillation.teacher: ") and complaint in said and "\n" not in said
    assert run.steps == 0 and not getattr(caught.value, "__notes__", None)


def test_a_teacher_in_memory_of_another_family_is_refused_at_once():
    with pytest.raises(ValueError, match="Distillation takes no encoder as teacher of this decoder"):
        make(SFT(), Distillation(load("tiny-bert")))


def test_a_new_model_cannot_teach_itself():
    data = {"train": PAIRS[:16], "validation": PAIRS[16:]}
    run = Run([SFT(), Distillation()], data, config=ModelConfig(**SMALL), tokenizer=load("tiny-gpt").tokenizer)
    with pytest.raises(ValueError, match=r"Distillation\.teacher: nothing is given") as caught:
        run.fit(progress=False)
    assert "\n" not in str(caught.value) and not getattr(caught.value, "__notes__", None)


def test_an_objective_without_tokens_is_refused_before_any_work():
    rows = [{"prompt": row["prompt"], "chosen": row["response"], "rejected": " No."} for row in PAIRS]
    with pytest.raises(ValueError, match="works on tokens, and Reward predicts none: leave Distillation out"):
        make(Reward(), Distillation("tiny-gpt"), rows=rows)

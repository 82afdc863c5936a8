"""DPO: the published losses by independent code, a first step that knows nothing, a reference that stays."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from llmlab import Run, Training, merge
from llmlab.batch import Chunk
from llmlab.generate import as_prompt, evaluating
from llmlab.losses import IGNORE
from llmlab.model import ModelConfig
from llmlab.surgery import named_parameters
from llmlab_plugins.augment import Augment
from llmlab_plugins.dpo import DPO
from llmlab_plugins.dropout import Dropout
from llmlab_plugins.lora import LoRA
from llmlab_plugins.scorer import Scorer
from llmlab_plugins.seq2seq import Seq2Seq
from llmlab_plugins.sft import SFT

WORDS = ["red", "blue", "green", "old", "new", "small", "big", "odd"]
SAID = [{"prompt": f"{a} {b}:", "response": f" {c}"} for a in WORDS for b in WORDS for c in (a, b)]
ROWS = [
    {"prompt": f"{a} {b}:", "chosen": f" {a}", "rejected": f" {b} and {a}" if i % 3 else f" {b}"}
    for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS if a != b)
]
SOFT = [row | {"preference": (0.9, 0.2, 0.5)[i % 3]} for i, row in enumerate(ROWS)]
SIZES = dict(vocab_size=300, context=32, layers=2, heads=2, width=32, dropout=0.1)
LN2 = float(torch.tensor(2.0).log())


@pytest.fixture(scope="module", params=["decoder", "encoder-decoder"])
def base(request):
    torch.set_num_threads(1)
    objective = SFT(answers=0) if request.param == "decoder" else Seq2Seq(answers=0)
    training = Training(steps=80, batch_size=16, learning_rate=5e-3)
    config = ModelConfig(family=request.param, **SIZES)
    return Run([objective], SAID, config=config, training=training).fit(progress=False).model


def make(model, *more, rows=ROWS, steps=4, rate=1e-3, seed=0, precision="fp32", batch_size=8, **knobs):
    training = Training(
        steps=steps, batch_size=batch_size, learning_rate=rate, evaluate_every=10_000, precision=precision
    )
    knobs = dict(answers=0, longest=8) | knobs
    rows = rows if isinstance(rows, dict) else {"train": rows}  # in the order given
    return Run([DPO(**knobs), *more], rows, model=model, training=training, seed=seed)


def batch_of(run, rows=None, training=False):
    rows = run.rows("train")[:12] if rows is None else rows
    (batch,) = run.make_batches(Chunk(rows, range(len(rows)), 0, 0, training=training))
    return batch


@torch.no_grad()
def by_hand(model, prompt, answer):
    """log π(y|x), a token after the other, each from a pass of its own; of a text with its end mark, or of ids."""
    tok, total = model.tokenizer, 0.0
    y = [*tok.encode(answer), tok.eos] if isinstance(answer, str) else answer
    with evaluating(model):
        for t, i in enumerate(y):
            if model.encoder is None:
                output = model(torch.tensor([[*as_prompt(model, prompt), *y[:t]]]))
            else:
                output = model(torch.tensor([[tok.bos, *y[:t]]]), source=torch.tensor([as_prompt(model, prompt)]))
            total += float(model.logits(output)[0, -1].double().log_softmax(-1)[i])
    return total


def moved(run, by=0.03):
    """The run after its reference was taken, with noise on what trains."""
    run.hooks.call("before_fit", run=run)
    draw = torch.Generator().manual_seed(1)
    for _, p in named_parameters(run.model):
        if p.requires_grad:
            p.data = p.data + by * torch.randn(p.shape, generator=draw)
    return run


# -- the loss ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [ROWS, SOFT], ids=["sure", "soft"])
@pytest.mark.parametrize("knobs", [{}, {"beta": 0.5}, {"loss": "ipo"}, {"smoothing": 0.1}], ids=str)
def test_the_loss_is_the_papers(base, rows, knobs):
    """Equation 7 of Rafailov et al., 17 of Azar et al., by sums of each answer read alone and by a second model."""
    run = moved(make(base, rows=rows, **knobs))
    beta, epsilon = knobs.get("beta", 0.1), knobs.get("smoothing", 0.0)
    found = run.step(batch_of(run, training=True))
    losses, margins, chosen, right = [], [], [], []
    for row in rows[:12]:
        p, pair = row.get("preference", 1.0), [row["chosen"], row["rejected"]]
        pair, p = (pair, p) if p >= 0.5 else (pair[::-1], 1 - p)
        better, worse = (by_hand(run.model, row["prompt"], y) - by_hand(base, row["prompt"], y) for y in pair)
        h, p = better - worse, p * (1 - epsilon) + (1 - p) * epsilon
        sigmoid = 1 / (1 + np.exp(-beta * h))
        loss = -p * np.log(sigmoid) - (1 - p) * np.log(1 - sigmoid)
        ipo = p * (h - 1 / (2 * beta)) ** 2 + (1 - p) * (h + 1 / (2 * beta)) ** 2
        losses.append(ipo if knobs.get("loss") == "ipo" else loss)
        margins.append(beta * h), chosen.append(beta * better)
        right += [h > 0] if p != 0.5 else []
    assert np.std(margins) > 0.02, "the model has moved"
    assert found["loss"].item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert float(found["margin"]) == pytest.approx(np.mean(margins), abs=1e-4)
    assert float(found["chosen_reward"]) == pytest.approx(np.mean(chosen), abs=1e-4)
    assert float(found["chosen_reward"] - found["rejected_reward"]) == pytest.approx(np.mean(margins), abs=1e-4)
    assert float(found["accuracy"]) == pytest.approx(np.mean(right))


def test_a_pair_pulls_as_hard_as_it_is_wrong(base):
    """The gradient: -β σ(-β h) on log π(y_w), the opposite on log π(y_l) (Rafailov et al., section 4)."""
    run = moved(make(base, beta=0.5), by=0.1)
    batch, heard = batch_of(run), []
    logprobs = run.model.logprobs

    def hear(*given):
        heard.append(logprobs(*given).detach().requires_grad_())
        return heard[-1]

    run.model.logprobs = hear
    run.step(batch)["loss"].backward()
    (logp,) = heard
    h = logp.detach().sum(-1) - batch["reference"]
    h = h[:12] - h[12:]
    pull = 0.5 * torch.sigmoid(-0.5 * h) / 12
    where = batch["labels"] != IGNORE
    wanted = torch.cat([-pull, pull])[:, None].expand_as(where)
    torch.testing.assert_close(logp.grad[where], wanted[where])
    assert pull.max() > 1.2 * pull.min()


def test_smoothing_is_for_training_alone(base):
    run = moved(make(base, smoothing=0.3))
    assert batch_of(run)["preference"].tolist() == [1.0] * 12
    assert batch_of(run, training=True)["preference"].tolist() == pytest.approx([0.7] * 12)


def test_chosen_and_rejected_are_one_forward_pass(base):
    run, seen = make(base), []
    batch = batch_of(run)
    run.model.register_forward_pre_hook(lambda model, args, given: seen.append(given["tokens"]), with_kwargs=True)
    run.step(batch)
    assert [len(tokens) for tokens in seen] == [24]
    said = [run.tokenizer.decode(row[row != IGNORE].tolist()) for row in batch["labels"]]
    assert said == [row[name] for name in ("chosen", "rejected") for row in ROWS[:12]]
    assert all((row[row != IGNORE][-1] == run.tokenizer.eos) for row in batch["labels"])


def test_pairs_count_alike_in_batches_of_any_size(base):
    """Over a split, however its last batch comes out, and in gradients that are accumulated."""
    rows = {"train": ROWS[:24], "validation": ROWS[24:38]}
    run = moved(make(base, rows=rows))
    each = [float(run.step(batch_of(run, [row]))["loss"].detach()) for row in run.rows("validation")]
    assert run.losses("validation")["loss"] == pytest.approx(np.mean(each), rel=1e-4)
    found = []
    for size, parts in ((24, 1), (8, 3)):
        training = Training(steps=1, batch_size=size, accumulate=parts, clip=0, evaluate_every=99)
        run = Run([DPO(answers=0)], rows, model=base, training=training).fit(progress=False)
        found.append(run.history[0]["gradient_norm"])
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_which_is_called_chosen_means_nothing_once_the_label_says_so(base):
    turned = [
        row | {"chosen": row["rejected"], "rejected": row["chosen"], "preference": 1 - row["preference"]}
        for row in SOFT
        if row["preference"] != 0.5
    ]
    same = [row for row in SOFT if row["preference"] != 0.5]
    one, other = (make(base, rows=rows).fit(progress=False) for rows in (same, turned))
    for row, wanted in zip(other.history, one.history, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4, abs=1e-6)


# -- the first step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("added", [(), (LoRA(dropout=0.3),), (Dropout(),)], ids=str)
def test_the_first_loss_is_exactly_ln_2(base, added, precision):
    """With dropout in the model, in an adaptation and beside it; for any label; and half of the pairs are right."""
    first, second = make(base, *added, rows=SOFT, steps=2, precision=precision).fit(progress=False).history
    assert first["loss"] == pytest.approx(LN2, abs=1e-7)
    assert (first["margin"], first["chosen_reward"], first["accuracy"]) == (0, 0, 0.5)
    assert first["gradient_norm"] > 0 and second["margin"] != 0
    ipo = make(base, *added, steps=1, loss="ipo", beta=0.5).fit(progress=False).history[0]
    assert ipo["loss"] == 1.0  # (0 - 1 / 2β)²


def test_the_first_loss_from_a_model_fine_tuned_with_lora(base):
    """The reference is that model, not the one below it, whether LoRA goes on, stays frozen, or is merged."""
    tuned = make(base, LoRA(rank=2), steps=6, rate=1e-2).fit(progress=False).model
    cases = ((tuned, (LoRA(rank=2),)), (tuned, ()), (merge(tuned), (LoRA(rank=3),)))
    for model, added in cases:
        run = make(model, *added, steps=3).fit(progress=False)
        assert run.history[0]["margin"] == 0 != run.history[1]["margin"]
        wanted = [by_hand(model, ROWS[0]["prompt"], ROWS[0]["chosen"]), by_hand(run.model, *list(ROWS[0].values())[:2])]
        found = run.hooks.only(run.techniques[0], "score", run=run, prompts=[ROWS[0]["prompt"]], responses=[" red"])[0]
        assert float(found) == pytest.approx(0.1 * (wanted[1] - wanted[0]), abs=1e-4)


# -- the reference -----------------------------------------------------------------------------------------------


def test_the_reference_stays_and_is_only_what_trains(base):
    given = {n: p.detach().clone() for n, p in named_parameters(base)}
    run = make(base, LoRA(rank=2), steps=5, rate=1e-2).fit(progress=False)
    kept = run.state["dpo"]["reference"]
    assert set(kept) == {n for n, p in named_parameters(run.model) if p.requires_grad} and len(kept) < len(given)
    assert all(torch.equal(p, given[n]) for n, p in named_parameters(base))
    rows = run.rows("train")[:4]
    wanted = [by_hand(base, row["prompt"], row[name]) for name in ("chosen", "rejected") for row in ROWS[:4]]
    assert batch_of(run, rows)["reference"].tolist() == pytest.approx(wanted, abs=1e-3)


def test_resume_is_bit_for_bit(base, tmp_path):
    rows = {"train": ROWS, "validation": ROWS[:8]}
    settings = dict(steps=6, smoothing=0.1, gold="gold", answers=2, rows=rows)
    whole = make(base, LoRA(rank=2), **settings).fit(progress=False)
    make(base, LoRA(rank=2), **settings).fit(3, progress=False).save(tmp_path)
    again = Run.load(tmp_path, rows).fit(progress=False)
    assert again.history == whole.history and again.metrics == whole.metrics


# -- the implicit reward -----------------------------------------------------------------------------------------


def test_the_implicit_reward(base):
    """β (log π - log π_ref) of any answer, the end mark counted, alone as among others; nothing before training."""
    run = make(base, beta=0.3)
    prompts, texts = [row["prompt"] for row in ROWS[:5]], [" red", " big and old and new", " ", " odd", " green red"]
    responses = run.respond(prompts, max_new_tokens=4)
    assert run.score(prompts, responses).tolist() == [0.0] * 5
    moved(run)
    found = run.hooks.only(run.techniques[0], "score", run=run, prompts=prompts, responses=texts)[0]
    wanted = [0.3 * (by_hand(run.model, x, y) - by_hand(base, x, y)) for x, y in zip(prompts, texts, strict=True)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-4) and max(map(abs, wanted)) > 0.02
    responses.text = texts
    assert torch.equal(run.score(prompts, responses), found)


def test_its_margin_is_that_of_the_training_loss(base):
    run = moved(make(base))
    prompts = [row["prompt"] for row in ROWS[:12]]
    better, worse = (
        run.hooks.only(run.techniques[0], "score", run=run, prompts=prompts, responses=[row[name] for row in ROWS[:12]])
        for name in ("chosen", "rejected")
    )
    told = run.step(batch_of(run))
    assert float((better[0] - worse[0]).mean()) == pytest.approx(float(told["margin"]), abs=1e-5)


# -- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("added", "rate"), [((), 3e-3), ((LoRA(),), 1e-2)], ids=["all", "lora"])
def test_it_learns_what_was_chosen_and_beta_holds_it_back(base, added, rate):
    """At a small β both answers become less likely, the chosen one too: nothing but the difference is learnt."""
    found, rows = {}, {"train": ROWS, "validation": ROWS[:32]}
    for beta in (0.05, 2.0):
        run = make(base, *added, rows=rows, steps=60, beta=beta, rate=rate, answers=32).fit(progress=False)
        before, found[beta] = run.evaluations[0], run.metrics
        assert before["loss"] == pytest.approx(LN2, abs=1e-6) and before["kl"] == 0
        assert run.metrics["accuracy"] > 0.75 and run.metrics["loss"] < 0.4
        assert run.metrics["rejected_logp"] < before["rejected_logp"] - 2
    assert found[0.05]["k3"] > 2 * found[2.0]["k3"]
    assert found[0.05]["chosen_logp"] < before["chosen_logp"] - 5


def test_a_margin_without_end_and_one_that_ipo_ends(base):
    """Of one pair whose label is sure DPO never has enough; IPO wants β h = ½, and conservative DPO log (1 - ε) / ε."""
    one = {"train": ROWS[:1], "validation": ROWS[:1]}
    found = {}
    for knobs in ({}, {"loss": "ipo"}, {"smoothing": 0.2}):
        run = make(base, rows=one, batch_size=1, steps=60, rate=1e-3, **knobs).fit(progress=False)
        found[str(knobs)] = run.metrics["margin"]
    plain, ipo, conservative = found.values()
    assert plain > 2.0
    assert ipo == pytest.approx(0.5, abs=0.05)
    assert conservative == pytest.approx(math.log(4), abs=0.1)


# -- what is measured --------------------------------------------------------------------------------------------


def test_an_evaluation_writes_to_different_prompts(base):
    rows, asked = [row | {"rejected": f" {i}"} for row in ROWS[:10] for i in range(6)], []

    def judge(prompts, responses):
        asked.append(list(prompts))
        return [float("red" in text) for text in responses]

    run = make(base, rows={"train": rows, "validation": rows}, steps=2, gold=judge, answers=12).fit(progress=False)
    assert asked == [[row["prompt"] for row in (*ROWS[:10], *ROWS[:2])]] * 2
    assert {"gold", "kl", "k3", "length", "ended", "loss", "accuracy", "margin"} <= set(run.metrics)
    asked.clear()
    run = make(base, rows={"train": rows, "validation": rows}, steps=1, gold=judge, answers=0).fit(progress=False)
    assert not asked and "kl" not in run.metrics and "loss" in run.metrics


def test_the_kl_is_that_of_the_tokens_it_drew(base):
    run = moved(make(base, answers=8, rows={"train": ROWS, "validation": ROWS}), by=0.02)
    prompts = list(dict.fromkeys(row["prompt"] for row in ROWS))[:8]
    draws = [run.generator("answers", "validation", i) for i in range(8)]
    said = run.respond(prompts, temperature=1.0, max_new_tokens=8, draws=draws)
    answers = [tokens[mask].tolist() for tokens, mask in zip(said.tokens, said.mask, strict=True)]
    kl = [by_hand(run.model, *pair) - by_hand(base, *pair) for pair in zip(prompts, answers, strict=True)]
    assert run.evaluate("validation")["kl"] == pytest.approx(np.mean(kl), abs=1e-4) and max(map(abs, kl)) > 0.02


# -- texts that do not fit ---------------------------------------------------------------------------------------


def test_long_pairs_are_cut_and_share_their_prompt(base):
    long = [{"prompt": "old " * 40 + "red:", "chosen": " new" * 60, "rejected": " odd" * 6}] * 12
    run = make(base, rows=long, steps=2).fit(progress=False)
    row = run.rows("train")[0]
    decoder, tok = base.encoder is None, run.tokenizer
    assert len(row["told"][0]) == (16 if decoder else 32) and row["told"][1] == [*tok.encode(" odd" * 6), tok.eos][:16]
    assert len(row["asked"]) == (16 if decoder else 32)
    assert tok.decode(row["asked"]).endswith("red:") and tok.decode(row["told"][0]).startswith(" new new")
    assert run.history[-1]["margin"] != 0


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"rejected": " a"}, "two equal answers"),
        ({"chosen": None}, "is no pair"),
        ({"preference": 1.5}, "preference 1.5"),
        ({"preference": "yes"}, "preference 'yes'"),
    ],
    ids=str,
)
def test_a_row_that_is_no_pair_is_named(base, row, told):
    rows = [{"prompt": "a", "chosen": " a", "rejected": " b", "preference": 1.0}] * 2
    with pytest.raises(ValueError, match=rf"DPO\.examples: row 2 of the train split .*{told}"):
        make(base, rows={"train": [*rows, rows[0] | row]}).fit(progress=False)


@pytest.mark.parametrize("knobs", [{"beta": 0.0}, {"loss": "hinge"}, {"smoothing": 0.6}, {"answers": -1}], ids=str)
def test_wrong_knobs(knobs):
    (name,) = knobs
    with pytest.raises(ValueError, match=rf"DPO\.{name} = .*: must be"):
        DPO(**knobs)


def test_what_it_does_not_work_with(base):
    with pytest.raises(ValueError, match="DPO needs the columns prompt/chosen/rejected; this data has"):
        Run([DPO()], SAID, model=base)
    with pytest.raises(ValueError, match="DPO works on"):
        Run([DPO()], ROWS, config=ModelConfig(family="encoder", **SIZES))
    with pytest.raises(ValueError, match="leave Augment out"):
        make(base, Augment()).fit(progress=False)
    with pytest.raises((ValueError, FileNotFoundError), match=r"^.{0,3}DPO\.gold: .*nowhere"):
        make(base, gold="nowhere").fit(progress=False)


def test_a_scorer_beside_it_adds_to_its_reward(base):
    run = make(base, Scorer(lambda prompts, responses: [2.0] * len(responses)))
    prompts = [row["prompt"] for row in ROWS[:3]]
    assert run.score(prompts, run.respond(prompts)).tolist() == [2.0] * 3

"""The reward model: the loss of Bradley and Terry by hand, each answer read once, scores on a scale, soft labels."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from llmlab import Run, Training, corpus, load, load_patch, save_patch
from llmlab.batch import Chunk, pad
from llmlab.heads import at_end
from llmlab.losses import preference_accuracy
from llmlab.model import ModelConfig
from llmlab.rewards import answered, reward_function, score_answers
from llmlab.technique import hookimpl
from llmlab_plugins.lora import LoRA
from llmlab_plugins.reward import Reward, calibration_error

FAMILIES = ("decoder", "encoder", "encoder-decoder")
DATA = {"tiny-gpt": "decoder", "tiny-bert": "encoder", "tiny-t5": "encoder-decoder"}
every = pytest.mark.parametrize("family", FAMILIES)


def config(family="decoder"):
    return replace(ModelConfig.usual(family), vocab_size=340, context=64, layers=2, heads=2, width=32, mlp_width=64)


def pairs(answers=(2, 3, 4, 3, 2, 5), prefer=None):
    """All pairs of some answers to each of several prompts: the more "fine", the better."""
    rows = []
    for i, K in enumerate(answers):
        texts = [f" It is {'fine ' * k}for number {i}." for k in range(K, 0, -1)]
        for one, other in itertools.combinations(texts, 2):
            rows.append({"prompt": f"How is {i}? " + "Hm. " * (i % 3), "chosen": one, "rejected": other})
            if prefer is not None:
                rows[-1]["preference"] = prefer
    return rows


def make(rows=None, family="decoder", techniques=(), model=None, seed=0, **training):
    rows = pairs() if rows is None else rows
    rows = rows if isinstance(rows, dict) else {"train": rows, "validation": rows}
    training = {"steps": 3, "batch_size": 4, "learning_rate": 3e-3} | training
    shape = {} if model else {"config": config(family)}
    return Run([Reward(), *techniques], rows, model=model, training=Training(**training), seed=seed, **shape)


def batch_of(run):
    rows = run.rows("train")
    return run.make_batches(Chunk(list(rows), range(len(rows)), 0, 0))[0]


def loss_of(run, batch):
    with torch.no_grad():
        return run.step(batch)


def one_at_a_time(run, rows):
    """The mean over prompts of the mean over their pairs, each answer read alone, in NumPy: loss, margins."""
    losses, margins = {}, []
    for row in rows:
        r = [float(score_answers(run.model, [row["prompt"]], [row[name]])[0]) for name in ("chosen", "rejected")]
        p, margin = row.get("preference", 1.0), r[0] - r[1]
        loss = -p * math.log(1 / (1 + math.exp(-margin))) - (1 - p) * math.log(1 / (1 + math.exp(margin)))
        losses.setdefault(row["prompt"], []).append(loss)
        margins.append(margin)
    return np.mean([np.mean(of) for of in losses.values()]), np.array(margins)


# -- the loss ----------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("prefer", [None, 0.8])
def test_the_loss_is_that_of_one_pair_at_a_time(family, prefer):
    rows = pairs(prefer=prefer)
    run = make(rows, family)
    run.model.heads["reward"].linear.weight.data *= 5
    run.model.eval()
    wanted, margins = one_at_a_time(run, rows)
    found = loss_of(run, batch_of(run))
    assert float(found["loss"]) == pytest.approx(wanted, rel=1e-5)
    by_prompt = {}
    for row, margin in zip(rows, margins, strict=True):
        by_prompt.setdefault(row["prompt"], []).append(margin > 0)
    assert float(found["accuracy"]) == pytest.approx(np.mean([np.mean(of) for of in by_prompt.values()]))
    assert run.evaluate("validation")["accuracy"] == pytest.approx((margins > 0).mean())


def test_each_answer_is_read_once():
    rows, seen = pairs((4, 3, 5)), []
    run = make(rows)
    run.model.register_forward_pre_hook(lambda model, args, given: seen.append(given["tokens"]), with_kwargs=True)
    batch = batch_of(run)
    loss_of(run, batch)
    assert [len(tokens) for tokens in seen] == [4 + 3 + 5]
    assert len({tuple(row) for row in seen[0].tolist()}) == 12
    assert len(batch["better"]) == 6 + 3 + 10  # C(K, 2) of each
    assert batch["weight"].tolist() == pytest.approx([1 / 18] * 6 + [1 / 9] * 3 + [1 / 30] * 10)


def test_over_several_batches_each_prompt_counts_the_same():
    """Whatever the number of its answers: the mean loss of a split, and gradients that are accumulated."""
    run = make(batch_size=2)
    run.model.eval()
    assert run.losses("train")["loss"] == pytest.approx(float(loss_of(run, batch_of(run))["loss"]), rel=1e-5)
    found = []
    for size, parts in ((6, 1), (2, 3)):
        run = make(batch_size=size, accumulate=parts, steps=1, clip=0, learning_rate=1e-3)
        found.append(run.fit(progress=False).history[0])
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-5)
    assert found[0]["gradient_norm"] == pytest.approx(found[1]["gradient_norm"], rel=1e-4)


def test_equal_rewards_cost_ln_2_and_a_constant_costs_nothing():
    run, other = make(), make()
    head = run.model.heads["reward"].linear
    before = loss_of(run, batch_of(run))["loss"]
    head.bias.data += 7.0
    assert float(loss_of(run, batch_of(run))["loss"]) == pytest.approx(float(before), rel=1e-5)
    head.weight.data.zero_()
    assert float(loss_of(run, batch_of(run))["loss"]) == pytest.approx(math.log(2), rel=1e-6)
    loss_of_batch = other.step(batch_of(other))["loss"]
    loss_of_batch.backward()
    assert abs(float(other.model.heads["reward"].linear.bias.grad)) < 1e-7


def test_a_soft_label_has_its_least_loss_at_its_own_odds():
    rows = [{"prompt": "Well?", "chosen": " Yes.", "rejected": " No.", "preference": 0.8}]
    run = make(rows * 3, steps=150, learning_rate=1e-2, batch_size=1).fit(progress=False)
    assert run.metrics["margin"] == pytest.approx(0.6 * math.log(4), abs=0.05)  # (2p - 1) of log p / (1 - p)
    entropy = -0.8 * math.log(0.8) - 0.2 * math.log(0.2)
    assert run.metrics["loss"] == pytest.approx(entropy, abs=0.01)


def test_which_is_called_chosen_means_nothing_once_the_label_says_so():
    rows = pairs(prefer=0.9)
    turned = [row | {"chosen": row["rejected"], "rejected": row["chosen"], "preference": 0.1} for row in rows]
    one, other = make(rows), make(turned)
    found, wanted = other.evaluate("validation"), one.evaluate("validation")
    assert found == pytest.approx(wanted, rel=1e-4)
    one.fit(progress=False), other.fit(progress=False)
    prompts, responses = [row["prompt"] for row in rows], [row["chosen"] for row in rows]
    torch.testing.assert_close(one.score(prompts, responses), other.score(prompts, responses), rtol=0.01, atol=0.01)


# -- where the score is read -------------------------------------------------------------------------------------


@every
def test_the_score_is_read_at_the_end_mark_whichever_side_is_padded(family):
    run = make(family=family)
    model, tok = run.model.eval(), run.tokenizer
    prompts, responses = ["How is 1? Hm. ", "How is 2? Hm. Hm. "], [" Fine.", " It is fine fine fine for number 2."]
    inputs = answered(model, prompts, responses)
    ids = [row[kept].tolist() for row, kept in zip(inputs["tokens"], inputs["keep"], strict=True)]
    assert all(row[-1] == tok.eos for row in ids) and len(ids[0]) != len(ids[1])
    found = {}
    for left in (False, True):
        for more in (0, 5):
            wide = [[*[tok.pad] * more, *row] if left else [*row, *[tok.pad] * more] for row in ids]
            real = [[*[0] * more, *[1] * len(r)] if left else [*[1] * len(r), *[0] * more] for r in ids]
            given = {**inputs, "tokens": pad(wide, tok.pad, left=left), "keep": pad(real, left=left).bool()}
            with torch.no_grad():
                scores = model.heads["reward"](model(**given).hidden)
            found[left, more] = at_end(scores, given["keep"])
    for scores in found.values():
        torch.testing.assert_close(scores, score_answers(model, prompts, responses), rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # and not at a pad
        scores = model.heads["reward"](model(**inputs).hidden)
    assert abs(float(scores[0, -1] - found[False, 0][0])) > 1e-3


@every
def test_neighbours_and_length_do_not_change_a_score(family):
    model = make(family=family).model
    rows = pairs((5, 5, 5))
    prompts, responses = [r["prompt"] for r in rows], [r["chosen"] for r in rows]
    alone = torch.cat([score_answers(model, [p], [r]) for p, r in zip(prompts, responses, strict=True)])
    torch.testing.assert_close(score_answers(model, prompts, responses), alone, rtol=1e-4, atol=1e-5)
    turned = score_answers(model, prompts[::-1], responses[::-1]).flip(0)
    torch.testing.assert_close(turned, alone, rtol=1e-4, atol=1e-5)


# -- the head and its scale --------------------------------------------------------------------------------------


def test_the_head_s_start():
    width = 256
    shape = replace(config(), width=width, mlp_width=256)
    heads = [Run(Reward(), pairs(), config=shape, seed=seed).model.heads["reward"].linear for seed in range(20)]
    weights = torch.cat([head.weight.detach().flatten() for head in heads])
    assert float(weights.std()) == pytest.approx((width + 1) ** -0.5, rel=0.05)
    assert abs(float(weights.mean())) < 0.1 * (width + 1) ** -0.5
    assert not any(head.bias.any() for head in heads)


def references(run):
    best = {row["prompt"]: row["chosen"] for row in reversed(run.data["train"])}
    return reward_function(run)(list(best), list(best.values()))


class Impatient:
    """Ends the run from a hook that comes after the others."""

    @hookimpl
    def after_step(self, run, step):
        if step == 2:
            run.stop()


TURNED = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs()]
ENDS = {
    "at its end": {},
    "stopped": {"techniques": [Impatient()]},
    "at its best": {"rows": {"train": pairs(), "validation": TURNED}, "keep_best": True, "evaluate_every": 1},
}


@pytest.mark.parametrize("how", ENDS)
def test_scores_have_mean_0_and_variance_1_on_the_references(how, tmp_path):
    run = make(**ENDS[how]).fit(progress=False)
    if how == "at its best":
        assert run.best["step"] < run.steps, "the best was the last, so this tests nothing"
    scores = references(run)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scores.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_the_scale_is_kept_in_files(tmp_path):
    base = load("tiny-gpt")
    rows = pairs()
    run = make(rows, model=base, techniques=[LoRA(rank=2)]).fit(progress=False)
    prompts, responses = [row["prompt"] for row in rows], [row["rejected"] for row in rows]
    wanted = reward_function(run)(prompts, responses)
    assert not torch.allclose(
        wanted, score_answers(run.model, prompts, responses), atol=0.05
    )  # it is not what was read
    save_patch(run.model, base, tmp_path / "reward.safetensors")
    run.save(tmp_path / "run")
    for by in (
        str(tmp_path / "run"),
        tmp_path / "run",
        str(tmp_path / "reward.safetensors"),
        load_patch(base, tmp_path / "reward.safetensors"),
        Run.load(tmp_path / "run", {"train": rows, "validation": rows}),
    ):
        torch.testing.assert_close(reward_function(by)(prompts, responses), wanted, rtol=1e-5, atol=1e-5)
    assert (tmp_path / "reward.safetensors").stat().st_size < 200_000


def test_the_run_serves_its_scores():
    run = make().fit(progress=False)
    asked = ["How is 1?", "How is 2?"]
    answers = run.respond(asked, max_new_tokens=5)
    torch.testing.assert_close(run.score(asked, answers), reward_function(run)(asked, answers.text))
    assert run.score(asked, [" Fine.", " Bad."]).shape == (2,)


def test_the_given_model_is_not_normalised_with_it():
    first = make().fit(progress=False)
    kept = float(first.model.heads["reward"].mean)
    second = make(model=first.model, seed=1, steps=5).fit(progress=False)
    assert float(first.model.heads["reward"].mean) == kept != float(second.model.heads["reward"].mean)


# -- what is measured --------------------------------------------------------------------------------------------


def test_ties_do_not_count():
    margin, weight = torch.tensor([2.0, -1.0, 0.5, 3.0]), torch.tensor([0.25, 0.25, 0.25, 0.25])
    assert float(preference_accuracy(margin, torch.tensor([1.0, 1.0, 0.5, 0.2]), weight)) == pytest.approx(1 / 3)
    assert float(preference_accuracy(margin, torch.tensor([0.5] * 4), weight)) == 0.5
    assert float(preference_accuracy(torch.zeros(2), torch.tensor([1.0, 0.0]))) == 0.5  # a tie of its own is half a hit
    weighted = preference_accuracy(margin[:2], torch.ones(2), torch.tensor([0.9, 0.1]))
    assert float(weighted) == pytest.approx(0.9)


def ece_by_hand(p, wanted, bins=10):
    """Naeini et al.: Σ_b n_b / n |confidence_b - share_b|, both ways round, in plain Python."""
    both = [(float(x), float(y)) for x, y in zip(p, wanted, strict=True)]
    both += [(1 - x, 1 - y) for x, y in both]
    total = 0.0
    for b in range(bins):
        inside = [(x, y) for x, y in both if b / bins <= x < (b + 1) / bins or (b == bins - 1 and x >= 1)]
        if inside:
            gap = abs(sum(x for x, _ in inside) / len(inside) - sum(y for _, y in inside) / len(inside))
            total += len(inside) / len(both) * gap
    return total


def test_the_calibration_error_against_another_computation():
    draw = torch.Generator().manual_seed(0)
    for n in (1, 7, 500):
        p = torch.rand(n, generator=draw, dtype=torch.float64)
        wanted = (torch.rand(n, generator=draw) < 0.7).double()
        assert calibration_error(p, wanted) == pytest.approx(ece_by_hand(p, wanted), abs=1e-9)


def test_who_is_as_sure_as_right_is_calibrated():
    draw = torch.Generator().manual_seed(1)
    p = torch.rand(40_000, generator=draw)
    honest = (torch.rand(40_000, generator=draw) < p).float()
    assert calibration_error(p, honest) < 0.01
    assert calibration_error((p > 0.5).float(), honest) == pytest.approx(0.25, abs=0.02)  # sure, and right in 3 of 4
    assert calibration_error(torch.full((100,), 0.5), torch.ones(100)) == pytest.approx(0, abs=1e-9)


def test_an_evaluation_measures_no_more_prompts_than_it_is_told():
    run = Run(Reward(measured=2), {"train": pairs(), "validation": pairs()}, config=config())
    seen = []
    run.model.register_forward_pre_hook(lambda model, args, given: seen.append(len(given["tokens"])), with_kwargs=True)
    with_losses = run.evaluate("validation")
    assert seen[-1] == 2 + 3 and {"loss", "accuracy", "margin", "calibration_error"} <= set(with_losses)


# -- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_it_learns_from_the_bundled_models(name):
    data = {"train": pairs((4,) * 12), "validation": pairs((4,) * 6)}
    data["validation"] = [row | {"prompt": f"And then? {row['prompt']}"} for row in data["validation"]]
    run = make(data, model=load(name), steps=12, learning_rate=1e-3).fit(progress=False)
    assert run.model.config.family == DATA[name]
    first, last = run.evaluations[0], run.evaluations[-1]
    assert first["loss"] > 0.5 and last["loss"] < 0.3 and last["accuracy"] > 0.9


@pytest.mark.slow
def test_tinytown_s_preferences_are_learnt():
    data = corpus("tinytown", task="preferences", size=1000)
    training = Training(steps=20, batch_size=6, evaluate_batches=6)
    run = Run(Reward(measured=20), data, model=load("tiny-gpt"), training=training)
    run.fit(progress=False)
    assert len(run.rows("train")[0]["answers"]) == 4 and len(run.rows("train")[0]["pairs"]) == 6
    first, last = run.evaluations[0], run.evaluations[-1]
    assert first["accuracy"] < 0.68 and last["accuracy"] > 0.7 and last["loss"] < first["loss"] - 0.1


# -- bad data ----------------------------------------------------------------------------------------------------


def test_data_without_pairs_is_refused_before_any_work():
    with pytest.raises(ValueError, match="chosen") as error:
        Run(Reward(), [{"prompt": "a", "response": "b"}] * 3, config=config())
    assert "\n" not in str(error.value)


BAD = {
    "has two equal answers": {"chosen": " Yes.", "rejected": " Yes."},
    "is no pair": {"chosen": " Yes.", "rejected": None},
    "has preference 1.5": {"preference": 1.5},
    "has preference nan": {"preference": math.nan},
    "has preference 'high'": {"preference": "high"},
}


@pytest.mark.parametrize("complaint", BAD)
def test_a_bad_row_is_named(complaint):
    rows = pairs(prefer=1.0)
    rows[4] = rows[4] | BAD[complaint]
    with pytest.raises(ValueError, match="row 4 of the train split") as error:
        make({"train": rows}).fit(progress=False)
    assert complaint in str(error.value) and "\n" not in str(error.value)


def test_an_empty_split_is_named():
    with pytest.raises(ValueError, match=r"train|validation") as error:
        make({"train": pairs(), "validation": []}).fit(progress=False)
    assert "\n" not in str(error.value)


def test_rows_without_a_label_beside_rows_with_one():
    rows = pairs(prefer=0.7)
    rows[0]["preference"] = None
    del rows[1]["preference"]
    batch = batch_of(make(rows))
    assert batch["preference"].tolist()[:3] == pytest.approx([1.0, 1.0, 0.7])

"""GRPO: what its paper fixes, what goes wrong with groups, and that it learns what is rewarded."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from llmlab import Run, Training
from llmlab.batch import Chunk
from llmlab.model import ModelConfig
from llmlab.surgery import named_parameters
from llmlab_plugins.dropout import Dropout
from llmlab_plugins.grpo import GRPO, group_advantages
from llmlab_plugins.lora import LoRA
from llmlab_plugins.scorer import Scorer
from llmlab_plugins.seq2seq import Seq2Seq
from llmlab_plugins.sft import SFT

WORDS = ["red", "blue", "green", "old", "new", "small", "big", "odd"]
ROWS = [{"prompt": f"{a} {b}:", "response": f" {c}"} for a in WORDS for b in WORDS for c in (a, b)]
SIZES = dict(vocab_size=300, context=32, layers=2, heads=2, width=32)


def red(prompts, responses):
    return [float("red" in text) for text in responses]


def short(prompts, responses):
    return [-float(len(text)) for text in responses]


@pytest.fixture(scope="module", params=["decoder", "encoder-decoder"])
def base(request):
    torch.set_num_threads(1)
    objective = SFT(answers=0) if request.param == "decoder" else Seq2Seq(answers=0)
    training = Training(steps=80, batch_size=16, learning_rate=5e-3)
    return Run([objective], ROWS, config=ModelConfig(family=request.param, **SIZES), training=training).fit(
        progress=False
    )


def make(base, *more, steps=4, by=short, batch_size=4, precision="fp32", rate=3e-3, accumulate=1, rows=ROWS, **knobs):
    knobs = dict(longest=8, answers=16, group=4) | knobs
    training = Training(
        steps=steps,
        batch_size=batch_size,
        learning_rate=rate,
        evaluate_every=10_000,
        precision=precision,
        accumulate=accumulate,
    )
    return Run([GRPO(**knobs), Scorer(by), *more], rows, model=base.model, training=training, seed=0)


def batches(run, count=4):
    rows = run.rows("train")[:count]
    if not run.state[run.techniques[0]]:
        run.hooks.call("before_fit", run=run)
    return run.make_batches(Chunk(rows, range(count), 0, run.seed, training=True))


def answers_of(run, batch):
    """The prompt and the answer of each row of a batch, as text, and whether it has its end mark."""
    tok, found = run.tokenizer, []
    for i, labels in enumerate(batch["labels"]):
        told = labels[labels != -100].tolist()
        if run.model.encoder is None:
            start = int((labels != -100).int().argmax())
            asked = batch.inputs["tokens"][i, 1 : start + 1].tolist()
        else:
            asked = [t for t in batch.inputs["source"][i].tolist() if t not in (tok.pad, tok.eos)]
        found.append((tok.decode(asked), tok.decode(told), tok.eos in told))
    return found


# -- advantages --------------------------------------------------------------------------------------------------


def test_advantages_are_those_of_the_paper():
    """Against NumPy, a group at a time; std is that of the G rewards, so that a group's variance is 1."""
    score = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 3 + 2
    for scale in (True, False):
        found = group_advantages(score, scale).numpy()
        for r, a in zip(score.double().numpy(), found, strict=True):
            np.testing.assert_allclose(a, (r - np.mean(r)) / (np.std(r) if scale else 1), atol=1e-5)
    found = group_advantages(score)
    torch.testing.assert_close(found.mean(1), torch.zeros(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.square().mean(1), torch.ones(6))
    torch.testing.assert_close(group_advantages(torch.tensor([[0.0, 1.0]])), torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -0.7, 1e4 / 3])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_equal_rewards_have_no_advantage(value, size):
    """Exactly 0, where the mean of equal numbers is rounded, too, and where a reward model's last digits differ."""
    equal = torch.full((2, size), value)
    for scale in (True, False):
        assert (group_advantages(equal, scale) == 0).all()
        close = equal.clone()
        close[0, 0] = torch.nextafter(close[0, 0], torch.tensor(math.inf))
        assert (group_advantages(close, scale) == 0).all()
    told = group_advantages(torch.cat([equal, equal + torch.arange(size)]))
    assert (told[:2] == 0).all() and (told[2:] != 0).any(1).all(), "a silent group beside others"


def test_rewards_of_any_size_have_the_same_advantages():
    score = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    for a, b in ((100.0, 0.0), (0.01, 0.0), (1.0, 50.0)):
        torch.testing.assert_close(group_advantages(a * score + b), group_advantages(score), rtol=1e-3, atol=1e-3)


def test_advantages_stay_with_their_answers_through_shuffling(base):
    """Each answer's advantage, made again from the text it stands beside and all answers to the same prompt."""
    prompts = [{"prompt": f"{a} {b}:"} for a, b in pairwise(WORDS)] * 3
    run = make(base, rows=prompts[:7] * 3, group=5, epochs=2, minibatches=3, by=short, no_end=-30.0)
    made = batches(run, 4)
    assert len(made) == 6 and sum(len(b["score"]) for b in made[:3]) == 4 * 5
    for one_pass in (made[:3], made[3:]):
        told = [(*a, float(b["advantages"][i]), float(b["score"][i])) for b in one_pass for i, a in told_of(run, b)]
        asked = [row["prompt"] for row in run.rows("train")[:4]]
        assert sorted(prompt for prompt, *_ in told) == sorted(p for p in asked for _ in range(5))
        for prompt in asked:
            group = [row for row in told if row[0] == prompt]
            rewards = np.array([-float(len(text)) if ended else -30.0 for _, text, ended, _, _ in group])
            np.testing.assert_allclose([row[4] for row in group], rewards)
            wanted = (rewards - rewards.mean()) / (rewards.std() or 1)
            np.testing.assert_allclose([row[3] for row in group], wanted, atol=1e-5)
    order = [[a for b in one for _, a in told_of(run, b)] for one in (made[:3], made[3:])]
    assert order[0] != order[1] and sorted(order[0]) == sorted(order[1]), "each pass in another order"
    groups = [prompt for b in made[:3] for _, (prompt, *_) in told_of(run, b)]
    assert any(groups[i : i + 5] != groups[i : i + 1] * 5 for i in range(0, 20, 5)), "groups were taken apart"


def told_of(run, batch):
    return list(enumerate(answers_of(run, batch)))


def test_the_answers_to_a_prompt_differ_and_depend_on_no_neighbour(base):
    prompts = [{"prompt": f"{a} {b}:"} for a in WORDS for b in WORDS]  # each once
    run = make(base, rows=prompts, epochs=1, minibatches=1, group=4)
    few, many = (Counter(answers_of(run, batch)) for n in (2, 6) for batch in batches(run, n))
    assert few.total() == 8 and many.total() == 24 and not few - many, "the same, whatever else is in the chunk"
    assert len(many) > len({prompt for prompt, *_ in many}), "not one answer, four times"


# -- the loss ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["answer", "token", "longest"])
def test_the_loss_is_that_of_the_paper(base, average):
    """Against NumPy, token by token, at a policy that is neither the one that wrote nor the reference."""
    run = make(base, average=average, beta=0.3, clip=0.05, epochs=1, minibatches=1, group=6, longest=9, no_end=-9.0)
    (batch,) = batches(run)
    draw = torch.Generator().manual_seed(0)
    stir = lambda t: t + 0.2 * torch.randn(t.shape, generator=draw)  # noqa: E731
    mask = (batch["labels"] != -100).numpy()
    targets = batch.targets | {name: stir(batch[name]) for name in ("logp", "reference")}
    with torch.no_grad():
        output = run.model(**batch.inputs)
        found = run.techniques[0].compute_loss(run.model, replace(batch, targets=targets), output)
        logp = run.model.logprobs(output, batch["labels"]).double().numpy()
    old, reference = (targets[name].double().numpy() for name in ("logp", "reference"))
    terms, clipped = [], 0
    for i, here in enumerate(mask):
        A, answer = float(batch["advantages"][i]), []
        for t in np.flatnonzero(here):
            ratio, r = np.exp(logp[i, t] - old[i, t]), np.exp(reference[i, t] - logp[i, t])
            gain = min(ratio * A, np.clip(ratio, 0.95, 1.05) * A)
            answer.append(gain - 0.3 * (r - np.log(r) - 1))
            clipped += abs(ratio - 1) > 0.05
        terms.append(answer)
    lengths = {len(answer) for answer in terms}
    assert len(lengths) > 1, "answers of one length would hide how the mean is taken"
    total = sum(map(sum, terms))
    wanted = {
        "answer": np.mean([np.mean(answer) for answer in terms]),
        "token": total / mask.sum(),
        "longest": total / (len(terms) * 9),
    }[average]
    assert float(found["loss"]) == pytest.approx(-wanted, rel=1e-4)
    assert float(found["clipped"]) == pytest.approx(clipped / mask.sum(), abs=1e-6) and 0 < clipped < mask.sum()


@pytest.mark.parametrize("average", ["answer", "token", "longest"])
def test_parts_of_a_batch_count_by_what_the_loss_is_the_mean_of(base, average):
    """The gradient of all answers at once is the mean of the parts', each with its weight."""
    whole, parts = (batches(make(base, average=average, minibatches=n, group=6, by=short, no_end=-9.0)) for n in (1, 3))
    run = make(base, average=average)
    loss = [run.step(b)["loss"].item() * b.weight for b in (*whole, *parts)]
    assert sum(loss[1:]) == pytest.approx(loss[0], abs=1e-3) and whole[0].weight == sum(b.weight for b in parts)
    assert len({b.weight for b in parts}) > (1 if average == "token" else 0)


def test_the_kl_is_in_the_loss_and_not_in_the_reward(base):
    run = make(base, beta=5.0, epochs=1, minibatches=1)
    run.hooks.call("before_fit", run=run)
    for _, p in named_parameters(run.model):
        p.data += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    (batch,) = batches(run)
    told = answers_of(run, batch)
    wanted = [-float(len(text)) if ended else -1.0 for _, text, ended in told]
    assert batch["score"].tolist() == wanted, "what is compared within a group is the score alone"
    losses = run.step(batch)
    assert losses["kl_loss"].item() > 1e-3
    assert losses["loss"].item() == pytest.approx((losses["policy_loss"] + 5 * losses["kl_loss"]).item(), rel=1e-5)
    gradient = torch.autograd.grad(losses["kl_loss"], [p for p in run.model.parameters() if p.requires_grad][:1])
    assert gradient[0].abs().max() > 0, "k3 is differentiated"


def test_where_all_agree_only_the_kl_is_left(base):
    run = make(base, by=lambda p, r: [0.1] * len(r), no_end=0.1, group=3, steps=4).fit(progress=False)
    assert all(row["silent"] == 1 and row["policy_loss"] == 0 for row in run.history)
    assert run.history[0]["gradient_norm"] == pytest.approx(0, abs=1e-6)
    for (name, p), (_, q) in zip(named_parameters(run.model), named_parameters(base.model), strict=True):
        torch.testing.assert_close(p, q, atol=1e-2, rtol=0, msg=name)  # weight decay is all that moves it


# -- the contract ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("added", [(), (LoRA(),), (Dropout(),), (LoRA(dropout=0.3),)], ids=str)
@pytest.mark.parametrize("knobs", [{}, {"temperature": 0.7}, {"precision": "bf16"}], ids=str)
def test_the_first_ratio_is_exactly_one(base, added, knobs):
    run = make(base, *added, steps=3, **knobs).fit(progress=False)
    first, second, third = run.history
    for row in (first, third):  # the first of a rollout
        assert row["ratio"] == 1 and row["approximate_kl"] == 0 and row["clipped"] == 0
    assert second["approximate_kl"] > 0, "the second minibatch is already another policy's"
    assert first["kl"] == pytest.approx(0, abs=1e-6 if "precision" not in knobs else 1)


def test_there_is_no_value_and_lora_keeps_one_base(base):
    run = make(base, LoRA(rank=2)).fit(2, progress=False)
    ours, theirs = dict(named_parameters(run.model)), dict(named_parameters(base.model))
    assert all(ours[n].data_ptr() == theirs[n].data_ptr() for n in theirs), "the base is in memory once"
    assert set(run.state["grpo"]["reference"]) == {n for n, p in ours.items() if p.requires_grad}
    assert not run.model.heads and not [n for n in ours if "value" in n and "lora" not in n and n not in theirs]


def test_a_batch_counts_prompts(base):
    run = make(base, group=3, minibatches=2, epochs=2)
    assert [len(b["score"]) for b in batches(run, 4)] == [6, 6, 6, 6]
    assert len(batches(make(base, group=2, epochs=1, minibatches=64), 3)) == 6, "no more parts than answers"


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 4, 5])
def test_resume_in_the_middle_of_a_rollout_is_bit_for_bit(base, tmp_path, at):
    settings = dict(steps=9, by="gold", epochs=2, minibatches=2, beta=0.2)
    whole = make(base, **settings).fit(progress=False)
    part = make(base, **settings)
    part.fit(at, progress=False).save(tmp_path)
    assert bool(part.pending) == (at % 4 != 0)
    again = Run.load(tmp_path, ROWS).fit(progress=False)
    assert again.history == whole.history
    ours, theirs = (dict(named_parameters(r.model)) for r in (again, whole))
    assert all(torch.equal(p, theirs[n]) for n, p in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize("knobs", [{}, {"scale": False, "average": "longest"}], ids=["paper", "Dr. GRPO"])
def test_it_learns_what_is_rewarded_and_beta_holds_it_back(base, knobs):
    found = {}
    for beta in (0.0, 3.0):
        run = make(base, by=red, steps=60, beta=beta, batch_size=8, answers=64, gold=short, **knobs)
        before = run.evaluate("train")
        run.fit(progress=False)
        found[beta] = run.evaluate("train")
        assert before["kl"] == pytest.approx(0, abs=1e-5) and "gold" in found[beta]
    assert found[0.0]["score"] > before["score"] + 0.3, (before, found)
    assert found[3.0]["kl"] < found[0.0]["kl"] / 2 and found[3.0]["score"] < found[0.0]["score"]


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"group": 1}, "GRPO.group = 1: must be 2 to 1024"),
        ({"average": "prompt"}, "GRPO.average = 'prompt': must be one of answer, token, longest"),
        ({"beta": -1.0}, "GRPO.beta = -1.0: must be 0.0 to 10.0"),
        ({"scale": "group"}, "GRPO.scale = 'group': must be True or False"),
    ],
    ids=str,
)
def test_wrong_knobs(knobs, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        GRPO(**knobs)


def test_without_a_scorer_it_says_so(base):
    with pytest.raises(ValueError, match="GRPO needs a technique that implements score: add one"):
        Run([GRPO()], ROWS, model=base.model)


def test_data_without_prompts(base):
    with pytest.raises(ValueError, match="GRPO needs the columns prompt; this data has text"):
        Run([GRPO(), Scorer("gold")], [{"text": "a"}] * 20, model=base.model)


def test_a_judge_that_is_not_there(base):
    with pytest.raises((ValueError, FileNotFoundError), match=r"^.{0,3}GRPO\.gold: .*nowhere"):
        make(base, gold="nowhere").fit(progress=False)

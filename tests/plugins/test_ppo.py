"""PPO: what its papers and implementations fix, and that it learns what is rewarded."""

from __future__ import annotations

import math

import pytest
import torch

from llmlab import Run, Training
from llmlab.batch import Chunk
from llmlab.model import ModelConfig
from llmlab.surgery import named_parameters
from llmlab.technique import hookimpl, technique
from llmlab_plugins.adapters import Adapters
from llmlab_plugins.dropout import Dropout
from llmlab_plugins.lora import LoRA
from llmlab_plugins.ppo import PPO
from llmlab_plugins.scorer import Scorer
from llmlab_plugins.seq2seq import Seq2Seq
from llmlab_plugins.sft import SFT

WORDS = ["red", "blue", "green", "old", "new", "small", "big", "odd"]
ROWS = [{"prompt": f"{a} {b}:", "response": f" {c}"} for a in WORDS for b in WORDS for c in (a, b)]
SIZES = dict(vocab_size=300, context=32, layers=2, heads=2, width=32)


def short(prompts, responses):
    return [-float(len(text)) for text in responses]


def red(prompts, responses):
    return [float("red" in text) for text in responses]


@pytest.fixture(scope="module", params=["decoder", "encoder-decoder"])
def base(request):
    torch.set_num_threads(1)
    objective = SFT(answers=0) if request.param == "decoder" else Seq2Seq(answers=0)
    training = Training(steps=80, batch_size=16, learning_rate=5e-3)
    return Run([objective], ROWS, config=ModelConfig(family=request.param, **SIZES), training=training).fit(
        progress=False
    )


def make(base, *more, steps=8, by=red, seed=0, batch_size=16, precision="fp32", rate=3e-3, **knobs):
    knobs = dict(longest=8, answers=16) | knobs
    training = Training(
        steps=steps, batch_size=batch_size, learning_rate=rate, evaluate_every=10_000, precision=precision
    )
    return Run([PPO(**knobs), Scorer(by), *more], ROWS, model=base.model, training=training, seed=seed)


def batches(run, count=8):
    rows = run.rows("train")[:count]
    if not run.state[run.techniques[0]]:
        run.hooks.call("before_fit", run=run)
    return run.make_batches(Chunk(rows, range(count), 0, run.seed, training=True))


# -- the contract ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("added", [(), (LoRA(),), (Adapters(),), (Dropout(),), (LoRA(dropout=0.3),)], ids=str)
@pytest.mark.parametrize("knobs", [{}, {"ptx": 1.0, "ptx_data": "tinytown:pairs"}, {"temperature": 0.7}], ids=str)
def test_the_first_ratio_is_exactly_one(base, added, knobs):
    """Bit for bit, with dropout in the model or in an adaptation, with pretraining text, at any temperature."""
    run = make(base, *added, steps=4, minibatches=2, epochs=2, **knobs).fit(progress=False)
    first, second, *_ = run.history
    assert first["ratio"] == 1 and first["approximate_kl"] == 0 and first["clipped"] == 0
    assert second["approximate_kl"] > 0, "the second minibatch is already another policy's"
    assert first["kl"] == pytest.approx(0, abs=1e-6)


def test_the_first_ratio_is_one_in_bf16(base):
    first = make(base, steps=1, precision="bf16").fit(progress=False).history[0]
    assert first["ratio"] == 1 and first["approximate_kl"] == 0


def test_a_rollout_gives_its_epochs_of_minibatches(base):
    run = make(base, epochs=3, minibatches=2)
    made = batches(run, 8)
    assert len(made) == 6 and all(len(b["score"]) == 4 for b in made)
    passes = [torch.cat([b["logp"].sum(1) for b in made[i : i + 2]]) for i in (0, 2, 4)]
    assert not torch.equal(passes[0], passes[1]), "each pass in another order"
    for one in passes[1:]:
        assert torch.allclose(one.sort().values, passes[0].sort().values)
    assert len(batches(make(base, epochs=1, minibatches=64), 3)) == 3


def test_rewards_advantages_and_returns(base):
    """Made again from the parts, row by row, by the definitions; and what is whitened has mean 0 and variance 1."""
    run = make(base, *(), beta=0.4, epochs=1, minibatches=1)
    for n, p in named_parameters(run.model):  # away from the reference, and a value that is not zero
        if p.requires_grad:
            run.state[run.techniques[0]].setdefault("reference", {})[n] = p.detach().clone()
            p.data += 0.02 * torch.randn_like(p)
    (batch,) = batches(run, 8)
    mask = batch["labels"] != -100
    with torch.no_grad():
        own = run.model.logprobs(run.model(**batch.inputs), batch["labels"])
        now = {n: p.data.clone() for n, p in named_parameters(run.model)}
        for n, p in named_parameters(run.model):
            p.data = run.state[run.techniques[0]]["reference"].get(n, p.data)
        reference = run.model.logprobs(run.model(**batch.inputs), batch["labels"])
        for n, p in named_parameters(run.model):
            p.data = now[n]
    raw = torch.zeros_like(own)
    for i in range(8):
        here = mask[i].nonzero().flatten().tolist()
        values = [*batch["values"][i][here].tolist(), 0.0]
        rewards = [-0.4 * float(own[i, t] - reference[i, t]) for t in here]
        rewards[-1] += float(batch["score"][i])
        ahead = 0.0
        for k in reversed(range(len(here))):
            ahead = rewards[k] + values[k + 1] - values[k] + 0.95 * ahead
            raw[i, here[k]] = ahead
        assert float(batch["kl"][i]) == pytest.approx(float((own - reference)[i][mask[i]].sum()), abs=1e-4)
    assert batch["kl"].abs().max() > 1e-3
    torch.testing.assert_close(batch["returns"][mask], (raw + batch["values"])[mask], rtol=1e-4, atol=1e-4)
    kept = raw[mask]
    wanted = (kept - kept.mean()) / (kept.var(correction=0) + 1e-8).sqrt()
    torch.testing.assert_close(batch["advantages"][mask], wanted, rtol=1e-3, atol=1e-3)


def test_temperature_divides_the_logits_in_writing_and_in_the_loss(base):
    run = make(base, temperature=0.5, epochs=1, minibatches=1)
    (batch,) = batches(run)
    with torch.no_grad():
        output = run.model(**batch.inputs)
        logits = run.model.logits(output) / 0.5
    wanted = logits.log_softmax(-1).gather(-1, batch["labels"].clamp(min=0)[..., None]).squeeze(-1)
    mask = batch["labels"] != -100
    torch.testing.assert_close(batch["logp"][mask], wanted[mask])


def test_an_answer_without_an_end_has_a_score_of_its_own(base):
    run = make(base, by=lambda p, r: [5.0] * len(r), longest=1, no_end=-2.5)
    scores = torch.cat([b["score"] for b in batches(run)])
    assert (scores == -2.5).all(), "one token is no word and its end"
    scores = torch.cat([b["score"] for b in batches(make(base, by=lambda p, r: [5.0] * len(r), longest=12))])
    assert (scores == 5.0).any()


def test_the_reference_stays_and_the_value_begins_at_zero(base):
    run = make(base, steps=12)
    (first, *_) = batches(run)
    assert (first["values"] == 0).all()
    given = {n: p.detach().clone() for n, p in named_parameters(base.model)}
    run.fit(progress=False)
    kept = run.state[run.techniques[0]]["reference"]
    assert all(torch.equal(kept[n], given[n]) for n in kept if n in given)
    assert all(torch.equal(p, given[n]) for n, p in named_parameters(base.model))
    assert run.history[-1]["kl"] != 0


def test_lora_keeps_one_base_for_policy_and_reference(base):
    run = make(base, LoRA(rank=2), steps=4).fit(progress=False)
    ours, theirs = dict(named_parameters(run.model)), dict(named_parameters(base.model))
    assert all(ours[n].data_ptr() == theirs[n].data_ptr() for n in theirs), "the base is in memory once"
    assert set(run.state[run.techniques[0]]["reference"]) == {n for n, p in ours.items() if p.requires_grad}
    assert any(n.startswith("heads.value") for n, p in ours.items() if p.requires_grad), "the value trains beside LoRA"


# -- adaptive KL -------------------------------------------------------------------------------------------------


def test_beta_is_steered_once_a_rollout(base):
    """β (1 + clip(KL/target - 1, ±0.2) n / horizon), by the rollout's mean; a measurement leaves it alone."""
    run = make(base, steps=12, beta=0.15, target=6.0, horizon=1000, epochs=2, minibatches=2, batch_size=16)
    run.fit(progress=False)
    betas, kls = ([row[name] for row in run.history] for name in ("beta", "kl"))
    wanted = 0.15
    for i in range(0, 12, 4):
        assert betas[i : i + 4] == pytest.approx([wanted] * 4, rel=1e-6)
        kl = (kls[i] + kls[i + 1]) / 2
        wanted *= 1 + min(0.2, max(-0.2, kl / 6.0 - 1)) * 16 / 1000
    assert run.state[run.techniques[0]]["beta"] == pytest.approx(wanted, rel=1e-6)
    run.losses("validation"), run.evaluate()
    assert run.state[run.techniques[0]]["beta"] == pytest.approx(wanted, rel=1e-6)


# -- resuming ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 4, 5])
def test_resume_in_the_middle_of_a_rollout_is_bit_for_bit(base, tmp_path, at):
    settings = dict(
        steps=9, by="gold", target=1.0, beta=0.2, epochs=2, minibatches=2, ptx=0.5, ptx_data="tinytown:pairs"
    )
    whole = make(base, **settings).fit(progress=False)
    part = make(base, **settings)
    part.fit(at, progress=False).save(tmp_path)
    assert bool(part.pending) == (at % 4 != 0)
    again = Run.load(tmp_path, ROWS).fit(progress=False)
    assert again.history == whole.history
    ours, theirs = (dict(named_parameters(r.model)) for r in (again, whole))
    assert all(torch.equal(p, theirs[n]) for n, p in ours.items())


# -- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("more", "rate", "steps"), [((), 3e-3, 60), ((LoRA(rank=4),), 1e-2, 90)], ids=["all", "lora"])
def test_it_learns_what_is_rewarded_and_beta_holds_it_back(base, more, rate, steps):
    found = {}
    for beta in (0.0, 3.0):
        run = make(base, *more, steps=steps, beta=beta, batch_size=32, answers=64, gold=short, rate=rate)
        before = run.evaluate("train")
        run.fit(progress=False)
        found[beta] = run.evaluate("train")
        assert math.isfinite(run.history[-1]["loss"]) and before["kl"] == pytest.approx(0, abs=1e-5)
        assert "gold" in found[beta]
    assert found[0.0]["score"] > before["score"] + 0.3, (before, found)
    assert found[3.0]["kl"] < found[0.0]["kl"] / 2
    assert found[3.0]["score"] < found[0.0]["score"]


def test_pretraining_text_is_in_the_loss(base):
    plain, mixed = (make(base, steps=2, ptx=ptx, ptx_data="tinytown:mix").fit(progress=False) for ptx in (0.0, 2.0))
    assert "ptx_loss" not in plain.history[0]
    row = mixed.history[0]
    assert row["loss"] == pytest.approx(row["policy_loss"] + 0.1 * row["value_loss"] + 2 * row["ptx_loss"], rel=1e-4)
    assert row["policy_loss"] == pytest.approx(plain.history[0]["policy_loss"], abs=1e-4)


def test_whitened_rewards(base):
    """Their deviation becomes 1, their mean stays. With λ = 1 a reward is the step from one return to the next."""

    def long(prompts, responses):
        return [100.0 * len(text) for text in responses]

    found = []
    for on in (False, True):
        run = make(base, by=long, epochs=1, minibatches=1, smoothing=1.0, beta=0.0, whiten_rewards=on, no_end=50.0)
        (batch,) = batches(run)
        mask, returns = batch["labels"] != -100, torch.nn.functional.pad(batch["returns"], (0, 1))
        found.append((returns[:, :-1] - returns[:, 1:])[mask])
    raw, white = found
    assert white.std(correction=0) == pytest.approx(1, abs=1e-3) and raw.std() > 50
    assert float(white.mean()) == pytest.approx(float(raw.mean()), rel=1e-3)


# -- refusals ----------------------------------------------------------------------------------------------------


def test_without_a_scorer_it_says_so(base):
    with pytest.raises(ValueError, match="PPO needs a technique that implements score: add one"):
        Run([PPO()], ROWS, model=base.model)


def test_data_without_prompts(base):
    with pytest.raises(ValueError, match="PPO needs the columns prompt; this data has text"):
        Run([PPO(), Scorer("gold")], [{"text": "a"}] * 20, model=base.model)


def test_an_answer_takes_half_of_the_context_at_most(base):
    run = make(base, longest=40, no_end=0.0).fit(2, progress=False)
    assert all(len(row["tokens"]) <= 16 for row in run.rows("train"))
    assert max(row["length"] for row in run.history) <= 16


def test_long_prompts_lose_their_beginning(base):
    rows = [{"prompt": "red " * 60 + "blue old:"}] * 20
    run = Run([PPO(longest=8), Scorer(red)], rows, model=base.model)
    ids = run.rows("train")[0]["tokens"]
    assert len(ids) == 32 - 8 and run.tokenizer.decode(ids).endswith("blue old:")


def test_a_reward_that_is_not_a_number(base):
    @technique()
    class Broken:
        @hookimpl
        def score(self, responses):
            return torch.full((len(responses),), math.nan)

    training = Training(steps=2, batch_size=8)
    with pytest.raises(FloatingPointError):
        Run([PPO(longest=8), Broken()], ROWS, model=base.model, training=training).fit(progress=False)


@pytest.mark.parametrize("knobs", [{"gold": "nowhere"}, {"ptx": 1.0, "ptx_data": "nowhere"}], ids=str)
def test_a_judge_or_a_corpus_that_is_not_there(base, knobs):
    with pytest.raises((ValueError, FileNotFoundError), match=r"^.{0,3}PPO\.\w+: .*nowhere") as caught:
        make(base, **knobs).fit(progress=False)
    assert not getattr(caught.value, "__notes__", None)

"""Learning from preferences and rewards beside NumPy: published formulas, through the plugins' own batches and losses.

The other side is given texts alone. It reads each answer by itself, one row and no padding, takes from the model its
logits, values and scores, and computes everything else here: log-probabilities, rewards, advantages, losses and what
they pull on. Letters and equations are the papers'. Double precision; the policy has moved away from its reference.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from parity.alone import (
    ASKED,
    WORDS,
    Leaf,
    batches,
    close,
    distributions,
    make,
    model_of,
    move,
    pulls,
    read,
    rows_of,
    score_of,
    sigmoid,
    taste,
    written,
)
from parity.measure import double_precision

from llmlab.generate import as_prompt
from llmlab.losses import IGNORE
from llmlab.surgery import pass_on
from llmlab_plugins.distillation import Distillation
from llmlab_plugins.dpo import DPO
from llmlab_plugins.grpo import GRPO
from llmlab_plugins.ppo import PPO
from llmlab_plugins.reward import Reward
from llmlab_plugins.scorer import Scorer
from llmlab_plugins.seq2seq import Seq2Seq
from llmlab_plugins.sft import SFT

pytestmark = pytest.mark.slow
families = pytest.mark.parametrize("family", ["decoder", "encoder-decoder"])


@pytest.fixture(autouse=True)
def _double():
    torch.set_num_threads(1)
    with double_precision():
        yield


# -- PPO ---------------------------------------------------------------------------------------------------------

PPO_KNOBS = {
    "as it is": {},
    "other letters": dict(beta=0.4, discount=0.9, smoothing=0.6, clip=0.05, value=0.7, temperature=0.8),
    "whitened rewards": dict(beta=0.3, whiten_rewards=True),
    "with pretraining text": dict(beta=0.2, ptx=1.5, ptx_data="tinytown:pairs"),
}


@families
@pytest.mark.parametrize("knobs", PPO_KNOBS.values(), ids=PPO_KNOBS)
def test_ppo(family, knobs):
    """Rewards and GAE over a whole rollout, then a step of each minibatch by a policy that has moved on."""
    base = model_of(family)
    technique = PPO(**dict(longest=7, minibatches=2, epochs=2, no_end=-2.5) | knobs)
    run = make([technique, Scorer(taste)], [{"prompt": x} for x in ASKED], base)
    reference, k = pass_on(base), technique
    made = batches(run)
    assert len(made) == 4
    told, what = [], f"ppo, {family}"
    for batch in made[:2]:  # the first pass has every answer once
        for i, (prompt, answer) in enumerate(written(run, batch)):
            logp, values = read(run.model, prompt, answer, "value", k.temperature)
            of_reference, _ = read(reference, prompt, answer, None, k.temperature)
            told.append([batch, i, prompt, answer, logp, values, logp - of_reference])
    assert any(run.tokenizer.eos not in row[3] for row in told) and len({len(row[3]) for row in told}) > 1

    # Ziegler et al. 2019, section 2.2, a token at a time (Ouyang et al. 2022): -β log(π/π_ref), r(x, y) at the end
    rewards = [-k.beta * kl for *_, kl in told]
    for r, row in zip(rewards, told, strict=True):
        r[-1] += score_of(run, row[3], k.no_end)
    if k.whiten_rewards:
        every = np.concatenate(rewards)
        rewards = [(r - every.mean()) / np.sqrt(every.var() + 1e-8) + every.mean() for r in rewards]
    advantages = []
    for r, row in zip(rewards, told, strict=True):
        V = np.append(row[5], 0.0)
        delta = r + k.discount * V[1:] - V[:-1]  # Schulman et al. 2016: δ_t = r_t + γ V(s_{t+1}) - V(s_t)
        decay = k.discount * k.smoothing  # equation 16: A_t = Σ_l (γλ)^l δ_{t+l}
        advantages.append(np.array([sum(decay**n * d for n, d in enumerate(delta[t:])) for t in range(len(r))]))
    every = np.concatenate(advantages)
    for row, A in zip(told, advantages, strict=True):
        batch, i, _, answer, logp, values, kl = row
        here = batch["labels"][i] != IGNORE
        close(what, "logp", batch["logp"][i][: len(here)][here[: batch["logp"].size(1)]], logp)
        for name, wanted in (
            ("values", values),
            ("returns", A + values),
            ("advantages", (A - every.mean()) / np.sqrt(every.var() + 1e-8)),
        ):
            close(what, name, batch[name][i][here[: batch[name].size(1)]], wanted)
        close(what, "kl", batch["kl"][i], kl.sum())
        close(what, "score", batch["score"][i], score_of(run, answer, k.no_end))

    move(run, 2)
    for batch in made:
        losses, at_logp, at_value = pulls(run, batch, "value")
        count = sum(len(answer) for _, answer in written(run, batch))
        policy, value, wanted_logp, wanted_value, clipped = 0.0, 0.0, [], [], 0
        for i, (prompt, answer) in enumerate(written(run, batch)):
            here = (batch["labels"][i] != IGNORE)[: batch["logp"].size(1)]
            logp, V = read(run.model, prompt, answer, "value", k.temperature)
            old, A, R, V_old = (batch[n][i][here].numpy() for n in ("logp", "advantages", "returns", "values"))
            ratio = np.exp(logp - old)
            surrogate = np.minimum(ratio * A, np.clip(ratio, 1 - k.clip, 1 + k.clip) * A)  # Schulman et al. 2017, 7
            near = V_old + np.clip(V - V_old, -k.clip, k.clip)
            policy -= surrogate.sum() / count
            value += 0.5 * np.maximum((V - R) ** 2, (near - R) ** 2).sum() / count
            free = np.where(A > 0, ratio < 1 + k.clip, ratio > 1 - k.clip)
            wanted_logp.append(-A * ratio * free / count)
            clipped += int((~free).sum())
            # where the clipped one is further off, the value pulls on nothing
            free = (np.abs(V - V_old) < k.clip) | ((near - R) ** 2 < (V - R) ** 2)
            wanted_value.append(k.value * (V - R) * free / count)
        n = len(batch["score"])
        loss = policy + k.value * value
        if k.ptx:  # Ouyang et al. 2022, equation 2: + γ E log π(x) of the objective
            texts = [
                read(run.model, *pretraining(run, batch, i), None, k.temperature)[0]
                for i in range(n, len(batch["labels"]))
            ]
            assert len(texts) == n
            loss -= k.ptx * np.concatenate(texts).mean()
        close(what, "policy loss", losses["policy_loss"], policy)
        close(what, "value loss", losses["value_loss"], value)
        close(what, "loss", losses["loss"], loss)
        close(what, "gradient", np.concatenate(rows_of(at_logp, batch, n)), np.concatenate(wanted_logp))
        found = np.concatenate(rows_of(at_value, batch, n))
        close(what, "gradient", found, np.concatenate(wanted_value))
        assert k.clip > 0.1 or clipped, "no ratio is clipped, so this tests nothing"


def pretraining(run, batch, i):
    here = batch["labels"][i] != IGNORE
    if run.model.encoder is None:
        return batch.inputs["tokens"][i, : int(here.nonzero()[0]) + 1].tolist(), batch["labels"][i][here].tolist()
    return batch.inputs["source"][i, batch.inputs["source_keep"][i]].tolist(), batch["labels"][i][here].tolist()


# -- GRPO --------------------------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("average", ["answer", "token", "longest"])
@pytest.mark.parametrize("scale", [True, False])
def test_grpo(family, average, scale):
    """Shao et al. 2024, equations 3 and 4; the other averages: DAPO (Yu et al. 2025), Dr. GRPO (Liu et al. 2025)."""
    base = model_of(family)
    technique = GRPO(group=4, longest=7, beta=0.3, clip=0.05, average=average, scale=scale, no_end=-2.5, epochs=2)
    run = make([technique, Scorer(taste)], [{"prompt": x} for x in ASKED], base)
    reference, what = pass_on(base), f"grpo, {family}"
    made = batches(run)
    groups = {}
    for batch in made[:2]:
        for i, (prompt, answer) in enumerate(written(run, batch)):
            r = score_of(run, answer, -2.5)
            close(what, "score", batch["score"][i], r)
            groups.setdefault(tuple(prompt), []).append((r, batch["advantages"][i]))
    assert len(groups) == 6 and all(len(group) == 4 for group in groups.values())
    for group in groups.values():
        r = np.array([one for one, _ in group])
        A = (r - r.mean()) / (r.std() if scale and r.std() else 1.0)
        close(what, "advantages", torch.stack([one for _, one in group]), A)

    move(run, 2)
    for batch in made:
        losses, at_logp, _ = pulls(run, batch)
        answers, each, wanted = written(run, batch), [], []
        count = sum(len(answer) for _, answer in answers)
        for i, (prompt, answer) in enumerate(answers):
            here = batch["labels"][i] != IGNORE
            logp, ref = read(run.model, prompt, answer)[0], read(reference, prompt, answer)[0]
            close(what, "reference", batch["reference"][i][here], ref)
            A, ratio, r = (
                float(batch["advantages"][i]),
                np.exp(logp - batch["logp"][i][here].numpy()),
                np.exp(ref - logp),
            )
            gain = np.minimum(ratio * A, np.clip(ratio, 0.95, 1.05) * A) - 0.3 * (r - np.log(r) - 1)
            weight = {"answer": 1 / len(answer) / len(answers), "token": 1 / count, "longest": 1 / 7 / len(answers)}
            each.append(-gain.sum() * weight[average])
            free = ratio < 1.05 if A > 0 else ratio > 0.95
            wanted.append((-A * ratio * free + 0.3 * (1 - r)) * weight[average])
        close(what, "loss", losses["loss"], sum(each))
        close(what, "gradient", np.concatenate(rows_of(at_logp, batch, len(answers))), np.concatenate(wanted))


# -- reward models and DPO ---------------------------------------------------------------------------------------


def preferences(soft):
    """All pairs of two to five answers to each prompt; `soft` labels are how sure somebody was."""
    draw, rows = np.random.default_rng(0), []
    for i, prompt in enumerate(ASKED[:6]):
        answers = [" " + " ".join(draw.choice(WORDS, 1 + j)) for j in range(2 + i % 4)]
        for better, worse in itertools.combinations(answers, 2):
            rows.append({"prompt": prompt, "chosen": better, "rejected": worse})
            if soft:
                rows[-1]["preference"] = float(draw.choice([0.95, 0.7, 0.5]))
    return rows


@pytest.mark.parametrize("family", ["decoder", "encoder", "encoder-decoder"])
@pytest.mark.parametrize("soft", [False, True])
def test_reward_model(family, soft):
    """Ouyang et al. 2022, equation 1: -1/C(K,2) Σ log σ(r_w - r_l) over the pairs of each prompt, mean over prompts."""
    rows = preferences(soft)
    run = make([Reward()], rows, model_of(family))
    run.model.heads["reward"].linear.weight.data *= 4
    model, tok, what = run.model, run.tokenizer, f"reward, {family}"
    (batch,) = batches(run)

    def r(prompt, answer):
        y = [*tok.encode(answer), tok.eos]
        source = {"source": torch.tensor([as_prompt(model, prompt)])} if family == "encoder-decoder" else {}
        tokens = [tok.bos, *y] if source else [tok.bos, *tok.encode(prompt), *y]
        with torch.no_grad():
            return float(model.heads["reward"](model(torch.tensor([tokens]), **source).hidden)[0, -1])

    losses, pull = {}, {}
    for row in rows:
        x, p = row["prompt"], row.get("preference", 1.0)
        d = r(x, row["chosen"]) - r(x, row["rejected"])
        losses.setdefault(x, []).append(-p * np.log(sigmoid(d)) - (1 - p) * np.log(sigmoid(-d)))
        for answer, side in ((row["chosen"], 1), (row["rejected"], -1)):
            pull.setdefault((x, answer), []).append(side * (sigmoid(d) - p))
    prompts = list(losses)
    wanted = [sum(of) / len(losses[x]) / len(prompts) for (x, _), of in pull.items()]

    model.heads["reward"].forward = at = Leaf(model.heads["reward"].forward)
    found = run.step(batch)
    found["loss"].backward()
    (scores,) = at.seen
    close(what, "loss", found["loss"], np.mean([np.mean(of) for of in losses.values()]))
    last = batch["keep"].int().cumsum(1).argmax(1)
    order = [(one["prompt"], answer) for one in run.rows("train")[:6] for answer in one["answers"]]
    close(what, "score", scores[torch.arange(len(order)), last], np.array([r(*one) for one in order]))
    close(
        what,
        "gradient",
        scores.grad[torch.arange(len(order)), last],
        np.array([wanted[list(pull).index(o)] for o in order]),
    )
    assert scores.grad.count_nonzero() == sum(abs(w) > 0 for w in wanted), "nothing but the end mark is pulled on"


@families
@pytest.mark.parametrize("knobs", [{}, {"loss": "ipo"}, {"smoothing": 0.2}], ids=str)
def test_dpo(family, knobs):
    """Rafailov et al. 2023, equation 7; Azar et al. 2023, equation 17; with every label drawn to ½ by the smoothing."""
    rows, beta = preferences(soft=True), 0.4
    base = model_of(family)
    run = make([DPO(beta=beta, answers=0, **knobs)], rows, base, size=len(rows))
    reference, tok, what = pass_on(base), run.tokenizer, f"dpo, {family}"
    (batch,) = batches(run)
    losses, at_logp, _ = pulls(run, batch)
    each, pull, N = [], [], len(rows)
    for row in rows:
        p = row["preference"]
        p = p * (1 - knobs.get("smoothing", 0.0)) + (1 - p) * knobs.get("smoothing", 0.0)
        ratio = []
        for name in ("chosen", "rejected"):
            ids = as_prompt(base, row["prompt"]), [*tok.encode(row[name]), tok.eos]
            ratio.append(read(run.model, *ids)[0].sum() - read(reference, *ids)[0].sum())
        h = ratio[0] - ratio[1]
        if "loss" in knobs:
            each.append(p * (h - 1 / (2 * beta)) ** 2 + (1 - p) * (h + 1 / (2 * beta)) ** 2)
            pull.append(2 * p * (h - 1 / (2 * beta)) + 2 * (1 - p) * (h + 1 / (2 * beta)))
        else:
            each.append(-p * np.log(sigmoid(beta * h)) - (1 - p) * np.log(sigmoid(-beta * h)))
            pull.append(beta * (sigmoid(beta * h) - p))
    close(what, "loss", losses["loss"], np.mean(each))
    found = rows_of(at_logp, batch, 2 * N)
    wanted = [np.full(len(g), side / N) for g, side in zip(found, [*pull, *(-x for x in pull)], strict=True)]
    close(what, "gradient", np.concatenate(found), np.concatenate(wanted))


# -- distillation ------------------------------------------------------------------------------------------------


@families
def test_distillation(family):
    """Hinton et al. 2015, section 2: (1 - α) CE + α T² KL(q ‖ p), whose pull on a logit is α T (p - q)."""
    base, T, alpha = model_of(family), 3.0, 0.4
    rows = [{"prompt": x, "response": " " + " ".join(x[:-1].split()[: 1 + i % 2])} for i, x in enumerate(ASKED)]
    objective = SFT(answers=0) if family == "decoder" else Seq2Seq(answers=0)
    run = make([objective, Distillation(teacher=base, temperature=T, weight=alpha)], rows, base)
    (batch,) = batches(run)
    run.model.logits = at = Leaf(run.model.logits)
    losses = run.step(batch)
    losses["loss"].backward()
    del run.model.logits
    hard, soft, pull = [], [], []
    for row in rows[:6]:
        ids = as_prompt(base, row["prompt"]), [*run.tokenizer.encode(row["response"]), run.tokenizer.eos]
        log_q, log_p = (distributions(model, *ids, T)[0] for model in (base, run.model))
        hard.append(-read(run.model, *ids)[0])
        soft.append((np.exp(log_q) * (log_q - log_p)).sum(1))
        pull.append(np.exp(log_p) - np.exp(log_q))
    hard, soft, pull = map(np.concatenate, (hard, soft, pull))
    what = f"distillation, {family}"
    assert soft.mean() > 1e-3
    close(what, "loss", losses["loss"], (1 - alpha) * hard.mean() + alpha * T**2 * soft.mean())
    close(what, "gradient", at.seen[0].grad, alpha * T * pull / len(pull))

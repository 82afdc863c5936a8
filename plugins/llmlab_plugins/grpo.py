"""GRPO: write several answers to each prompt, and make those likelier that beat the others (Shao et al. 2024).

    A_i = (r_i - mean r) / std r        over the G answers to one prompt; the same A for every token of the answer
    L = mean_i mean_t [ max(-A_i ρ, -A_i clip(ρ, 1 ± ε)) + β (π_ref/π - log(π_ref/π) - 1) ]        ρ = π/π_old

arXiv:2402.03300. What the others got takes the place of the value in PPO; the KL is in the loss, not in the reward. The
paper takes G = 64 and one pass; 8 is what a laptop writes in a second.

1. std is that of the G rewards themselves, divided by G and not by G - 1, so that the A of a group have variance 1.
2. A group whose rewards are all equal is silent, A = 0; differences of a reward model's rounding count as none.
3. A reward is given for the whole answer; the paper's rewards for steps of reasoning are not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from llmlab.batch import Batch, Chunk
from llmlab.losses import IGNORE, clipped_policy_loss, kl_estimates, mean_over
from llmlab.policy import Policy, dealt, moved, shuffles
from llmlab.rewards import reward_function
from llmlab.rollout import kl_of_answers
from llmlab.surgery import snapshot
from llmlab.technique import hookimpl, knob, naming, technique

ROUNDING = 1e-5  # rewards that differ by less are equal
TOLD = ("score", "silent", "kl", "k2", "k3", "length")  # of each answer; the steps on it tell their means


def group_advantages(score: Tensor, scale: bool = True) -> Tensor:
    """How much better than its group each answer is, (B, G) -> (B, G): r - mean r, over std r if `scale`."""
    above = score - score.mean(1, keepdim=True)
    spread = score.amax(1, keepdim=True) - score.amin(1, keepdim=True)
    silent = spread <= ROUNDING * score.abs().amax(1, keepdim=True).clamp(min=1)
    std = score.std(1, correction=0, keepdim=True) if scale else torch.ones_like(spread)
    return torch.where(silent, 0.0, above / std.where(~silent, 1.0))


@technique(
    kind="objective",
    columns="prompt",
    families=["decoder", "encoder-decoder"],
    needs=["score"],
    learning_rate=3e-4,
    base=True,
    on_policy=True,
)
class GRPO:
    """Group relative policy optimisation: of several answers to a prompt, make the better ones likelier."""

    group: int = knob(8, "G: answers to a prompt; a batch of 4 prompts has 4 G of them.", low=2, high=1024)
    beta: float = knob(0.04, "β: what a nat of distance from the reference costs.", low=0.0, high=10.0, log=True)
    epochs: int = knob(1, "Passes over a rollout.", low=1, high=64)
    minibatches: int = knob(2, "Parts of a rollout in a pass, a step each.", low=1, high=64)
    longest: int = knob(40, "Tokens an answer may have, at most half of the context.", low=1, high=4096)
    temperature: float = knob(1.0, "Divides the logits, in writing and in the loss.", low=0.05, high=10.0)
    no_end: float = knob(-1.0, "Score of an answer that does not come to its end.", low=-1000.0, high=1000.0)
    clip: float = knob(0.2, "ε: how far the ratio may move to any profit.", low=0.01, high=10.0)
    scale: bool = knob(True, "Divide by the group's standard deviation; Dr. GRPO does not.")
    average: str = knob(
        "answer",
        "Mean over each answer's tokens, then over answers; or over all tokens (DAPO); or over `longest` (Dr. GRPO).",
        choices=("answer", "token", "longest"),
    )
    gold: Any = knob(None, "A judge that evaluations ask and training never sees: 'gold', a model, a function.")
    answers: int = knob(32, "Answers an evaluation writes, one to a prompt.", low=1, high=4096)

    @hookimpl
    def before_fit(self, run: Any) -> None:
        if self.gold is not None:
            with naming("GRPO.gold"):
                reward_function(self.gold)
        run.state[self] |= {"reference": snapshot(run.model)}

    @hookimpl(wrapper=True, tryfirst=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        return self._policy(run).asked(rows)

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        B, G, policy = len(examples), self.group, self._policy(run)
        draws = [examples.generators(f"answer {g}") for g in range(G)]
        rows = [row for row in examples for _ in range(G)]  # the answers to a prompt stand together
        rolled, score = policy.answers(rows, [draws[g][i] for i in range(B) for g in range(G)])
        advantages = group_advantages(score.view(B, G), self.scale)
        silent = (advantages == 0).all(1, keepdim=True).expand(B, G)
        orders = shuffles(B * G, self.minibatches, self.epochs, examples.generators("minibatches")[0])
        found = policy.as_trained(rolled, orders[0], self._read)
        found["reference"] = policy.logp(rolled, run.state[self].get("reference"))
        found |= kl_of_answers(found["logp"], found["reference"], rolled.mask)
        found |= {"advantages": advantages.flatten(), "score": score, "silent": silent.flatten().float()}
        for batch in dealt(rolled, found, orders, room=policy.room):
            batch.count = 0 if self.average == "token" else len(batch["score"])  # of what the loss is the mean
            yield batch

    def _policy(self, run: Any) -> Policy:
        return Policy(run, self.longest, self.temperature, self.no_end)

    def _read(self, model: Any, output: Any, labels: Tensor) -> dict[str, Tensor]:
        return {"logp": model.logprobs(output, labels, self.temperature)}

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        logp, mask = self._read(model, output, batch["labels"])["logp"], batch["labels"] != IGNORE
        weights = mask / mask.sum(1, keepdim=True) if self.average == "answer" else mask
        policy = clipped_policy_loss(logp, batch["logp"], batch["advantages"][:, None], weights, self.clip)
        kl = mean_over(kl_estimates(logp, batch["reference"])[2], weights)
        share = mask.sum() / (len(mask) * batch["room"]) if self.average == "longest" else 1
        told = {"policy_loss": policy, "kl_loss": kl, **moved(logp, batch["logp"], mask, self.clip)}
        return {"loss": share * (policy + self.beta * kl)} | told | {name: batch[name].mean() for name in TOLD}

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        return self._policy(run).measured(split, self.answers, run.state[self].get("reference", {}), self.gold)

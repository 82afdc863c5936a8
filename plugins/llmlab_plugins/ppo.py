"""PPO: write answers, have them scored, make the better ones likelier (Schulman et al. 2017; Ziegler et al. 2019).

    r_t = -β (log π - log π_ref) + score at the last token        A_t by generalised advantage estimation from V
    L = mean max(-A ρ, -A clip(ρ, 1 ± ε))  +  c_V ½ mean max((V - R)², (V_clipped - R)²)  -  γ E log π(pretraining text)

ρ = π/π_old, R = A + V. What is written, scored and compared with the reference is data, made in `batches`; a chunk of
prompts is one rollout, and gives `epochs` passes of minibatches. The reference is a copy of what trains, as it was.

1. The value is a second head on the policy's own hidden vectors, not a model of its own.
2. In a run over several processes each adapts β by its own answers.
3. A prompt that leaves no room for an answer loses its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from llmlab.batch import Batch, Chunk
from llmlab.data import corpus
from llmlab.data.pairs import as_pair
from llmlab.generate import as_prompt
from llmlab.heads import ScalarHead
from llmlab.losses import IGNORE, clipped_policy_loss, clipped_value_loss
from llmlab.policy import Policy, dealt, moved, shuffles
from llmlab.rewards import reward_function
from llmlab.rollout import adapted, advantages_of, kl_of_answers, lined_up, token_rewards, whiten
from llmlab.surgery import snapshot
from llmlab.technique import hookimpl, knob, naming, technique

VALUE = "value"
read_once = lru_cache(maxsize=4)(corpus)
TOLD = ("score", "kl", "k2", "k3", "length")  # of each answer; the steps on it tell their means


@technique(
    kind="objective",
    columns="prompt",
    families=["decoder", "encoder-decoder"],
    needs=["score"],
    learning_rate=3e-4,
    base=True,
    on_policy=True,
)
class PPO:
    """Proximal policy optimisation: write answers, have them scored, make the better ones likelier."""

    beta: float = knob(0.05, "β: what a nat of distance from the reference costs.", low=0.0, high=10.0, log=True)
    target: float = knob(0.0, "KL in nats an answer that β is steered to; 0 leaves β as it is.", low=0.0, high=1000.0)
    horizon: int = knob(10_000, "Answers over which β is steered.", low=1, high=10**9)
    epochs: int = knob(2, "Passes over a rollout.", low=1, high=64)
    minibatches: int = knob(2, "Parts of a rollout in a pass, a step each.", low=1, high=64)
    longest: int = knob(40, "Tokens an answer may have, at most half of the context.", low=1, high=4096)
    temperature: float = knob(1.0, "Divides the logits, in writing and in the loss.", low=0.05, high=10.0)
    no_end: float = knob(-1.0, "Score of an answer that does not come to its end.", low=-1000.0, high=1000.0)
    clip: float = knob(0.2, "ε: how far the ratio, and the value, may move to any profit.", low=0.01, high=10.0)
    discount: float = knob(1.0, "γ of advantage estimation.", low=0.0, high=1.0)
    smoothing: float = knob(0.95, "λ of advantage estimation.", low=0.0, high=1.0)
    value: float = knob(0.1, "c_V: weight of the value's loss.", low=0.0, high=100.0)
    whiten_rewards: bool = knob(False, "Divide rewards by their deviation; their mean stays.")
    ptx: float = knob(0.0, "Weight of the loss on pretraining text (PPO-ptx).", low=0.0, high=100.0)
    ptx_data: str = knob("tinytown:mix", "Corpus of that text.")
    gold: Any = knob(None, "A judge that evaluations ask and training never sees: 'gold', a model, a function.")
    answers: int = knob(32, "Answers an evaluation writes.", low=1, high=4096)

    @hookimpl
    def adapt_model(self, model: Any) -> None:
        model.heads[VALUE] = ScalarHead(model.config.width)

    @hookimpl
    def trains(self, name: str) -> bool | None:
        return True if name.startswith(f"heads.{VALUE}.") else None

    @hookimpl
    def before_fit(self, run: Any) -> None:
        if self.gold is not None:
            with naming("PPO.gold"):
                reward_function(self.gold)
        if self.ptx:
            with naming("PPO.ptx_data"):
                read_once(self.ptx_data)
        run.state[self] |= {"reference": snapshot(run.model), "beta": self.beta}

    @hookimpl(wrapper=True, tryfirst=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        return self._policy(run).asked(rows)

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        B, state, policy = len(examples), run.state[self], self._policy(run)
        rolled, score = policy.answers(examples, examples.generators("rollout"))
        mask, draw = rolled.mask, examples.generators("minibatches")[0]
        orders = shuffles(B, self.minibatches, self.epochs, draw)
        texts = [self._pretraining(run, draw, len(rows)) if self.ptx else None for rows in orders[0]]
        found = policy.as_trained(rolled, orders[0], self._read, texts)
        reference, beta = policy.logp(rolled, state.get("reference")), state.get("beta", self.beta)
        rewards = token_rewards(score, found["logp"] - reference, mask, beta)
        rewards = whiten(rewards, mask, shift_mean=False) if self.whiten_rewards else rewards
        advantages = advantages_of(rewards, found["values"], mask, self.discount, self.smoothing)
        found |= {"returns": (advantages + found["values"]) * mask, "advantages": whiten(advantages, mask)}
        found |= {"score": score, **kl_of_answers(found["logp"], reference, mask)}
        yield from dealt(rolled, found, orders, texts, beta=beta)
        if examples.training and self.target:
            state["beta"] = adapted(beta, float(found["kl"].mean()), self.target, B, self.horizon)

    def _policy(self, run: Any) -> Policy:
        return Policy(run, self.longest, self.temperature, self.no_end)

    def _read(self, model: Any, output: Any, labels: Tensor) -> dict[str, Tensor]:
        """log π of the labels, and V where they are, each (B, T)."""
        values = model.heads[VALUE](output.hidden) * (labels != IGNORE)
        return {"logp": model.logprobs(output, labels, self.temperature), "values": values}

    def _pretraining(self, run: Any, draw: torch.Generator, count: int) -> tuple[dict[str, Tensor], Tensor]:
        """What the model reads of `count` texts, drawn anew, and the labels to it."""
        rows, room = read_once(self.ptx_data)["train"], run.model.room // 2
        drawn = [rows[i] for i in torch.randint(len(rows), (count,), generator=draw).tolist()]
        pairs = [("", row["text"]) if "text" in row else as_pair(row) for row in drawn]
        asked = [as_prompt(run.model, prompt)[-room:] for prompt, _ in pairs]
        told = [[*ids, run.tokenizer.eos][:room] for ids in run.tokenizer.encode_all([text for _, text in pairs])]
        return lined_up(run.model, asked, told)

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        n, T = batch["logp"].shape
        everything, values = self._read(model, output, batch["labels"]).values()
        logp, mask = everything[:n, :T], batch["labels"][:n, :T] != IGNORE
        policy = clipped_policy_loss(logp, batch["logp"], batch["advantages"], mask, self.clip)
        value = clipped_value_loss(values[:n, :T], batch["values"], batch["returns"], mask, self.clip)
        told = {
            "policy_loss": policy,
            "value_loss": value,
            **moved(logp, batch["logp"], mask, self.clip),
            "beta": logp.new_tensor(batch["beta"]),
        }
        loss = policy + self.value * value
        if n < len(everything):
            told["ptx_loss"] = -everything[n:].sum() / (batch["labels"][n:] != IGNORE).sum()
            loss = loss + self.ptx * told["ptx_loss"]
        return {"loss": loss} | told | {name: batch[name].mean() for name in TOLD}

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        return self._policy(run).measured(split, self.answers, run.state[self].get("reference", {}), self.gold)

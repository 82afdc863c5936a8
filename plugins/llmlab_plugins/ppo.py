"""PPO: write answers, have them scored, make the better ones likelier (Schulman et al. 2017; Ziegler et al. 2019).

    r_t = -β (log π - log π_ref) + score at the last token        A_t by generalised advantage estimation from V
    L = mean max(-A ρ, -A clip(ρ, 1 ± ε))  +  c_V ½ mean max((V - R)², (V_clipped - R)²)  -  γ E log π(pretraining text)

ρ = π/π_old, R = A + V. What is written, scored and compared with the reference is data, made in `batches`; a chunk of
prompts is one rollout, and gives `epochs` passes of minibatches. The reference is a copy of what trains, as it was.

1. The value is a second head on the policy's own hidden vectors, not a model of its own.
2. In a run over several processes each adapts β by its own answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llmlab.batch import Batch, Chunk
from llmlab.data.memory import as_corpus
from llmlab.data.pairs import as_pair
from llmlab.generate import as_prompt
from llmlab.heads import ScalarHead
from llmlab.losses import IGNORE, clipped_policy_loss, clipped_value_loss, kl_estimates, mean_over
from llmlab.precision import computing
from llmlab.rewards import reward_function
from llmlab.rollout import Rollout, advantages_of, lined_up, rollout, token_rewards, whiten
from llmlab.surgery import snapshot, swapped
from llmlab.technique import hookimpl, knob, technique

VALUE = "value"
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
    longest: int = knob(40, "Tokens an answer may have.", low=1, high=4096)
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
        run.state[self] |= {"reference": snapshot(run.model), "beta": self.beta}

    @hookimpl(wrapper=True, tryfirst=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        room = run.model.room - self.longest
        if room < 1:
            raise ValueError(f"PPO.longest = {self.longest} leaves a prompt no room in {run.model.room} tokens")
        found = []
        for row in rows:
            ids = as_prompt(run.model, row["prompt"])
            found.append({"prompt": row["prompt"], "tokens": ids if len(ids) <= room else ids[-room:]})
        return found

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        B, state = len(examples), run.state[self]
        parts, draw = min(self.minibatches, B), examples.generators("minibatches")[0]
        rolled, score = self._write(run, examples, examples.generators("rollout"))
        mask = rolled.mask
        orders = [torch.randperm(B, generator=draw).tensor_split(parts) for _ in range(self.epochs)]
        texts = [self._pretraining(run, draw, len(rows)) if self.ptx else None for rows in orders[0]]
        found = self._as_trained(run, rolled, orders[0], texts)
        reference = self._reference(run, rolled)
        beta = state.get("beta", self.beta)
        rewards = token_rewards(score, found["logp"] - reference, mask, beta)
        if self.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages = advantages_of(rewards, found["values"], mask, self.discount, self.smoothing)
        found |= {"returns": (advantages + found["values"]) * mask, "advantages": whiten(advantages, mask)}
        found |= {"score": score, **_distance(found["logp"], reference, mask)}
        for order in orders:
            for rows, text in zip(order, texts, strict=True):
                inputs, targets = _join(run, rolled, rows, text)
                yield Batch(inputs, targets | {name: tensor[rows] for name, tensor in found.items()} | {"beta": beta})
        if examples.training and self.target:
            error = min(0.2, max(-0.2, float(found["kl"].mean()) / self.target - 1))
            state["beta"] = beta * (1 + error * B / self.horizon)

    def _write(self, run: Any, rows: Any, draws: Any) -> tuple[Rollout, Tensor]:
        """Answers to the rows' prompts, and the score of each, (B,)."""
        asked = [row["tokens"] for row in rows]
        rolled = rollout(run.model, asked, max_new_tokens=self.longest, temperature=self.temperature, draws=draws)
        score = run.score([row["prompt"] for row in rows], rolled.responses)
        return rolled, torch.where(self._ended(run, rolled), score, self.no_end)

    def _ended(self, run: Any, rolled: Rollout) -> Tensor:
        """Which answers came to their end, (B,)."""
        return ((rolled.responses.tokens == run.tokenizer.eos) & rolled.responses.mask).any(1)

    def _reference(self, run: Any, rolled: Rollout) -> Tensor:
        """log π_ref of each token of the answers, (B, T): by the model as it was before the first step."""
        with swapped(run.model, run.state[self].get("reference", {})):
            return self._logp(run, rolled)

    def _logp(self, run: Any, rolled: Rollout) -> Tensor:
        """log π of each token of the answers, (B, T)."""
        with computing(run.model, run.training.precision):
            found: Tensor = run.model.logprobs(run.model(**rolled.inputs), rolled.labels, self.temperature)
        return found

    def _as_trained(self, run: Any, rolled: Rollout, order: Any, texts: Any) -> dict[str, Tensor]:
        """log π and V (B, T) as the first pass will compute them, minibatch for minibatch: its first ratio is 1."""
        found = {name: torch.zeros_like(rolled.labels, dtype=torch.float32) for name in ("logp", "values")}
        for rows, text in zip(order, texts, strict=True):
            inputs, targets = _join(run, rolled, rows, text)
            with computing(run.model, run.training.precision):
                both = self._read(run.model, run.model(**inputs), targets["labels"])
            for name, tensor in zip(found, both, strict=True):
                found[name][rows] = tensor[: len(rows), : rolled.labels.size(1)].float()
        return found

    def _read(self, model: Any, output: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        """log π of the labels, and V where they are, each (B, T)."""
        values = model.heads[VALUE](output.hidden) * (labels != IGNORE)
        return model.logprobs(output, labels, self.temperature), values

    def _pretraining(self, run: Any, draw: torch.Generator, count: int) -> tuple[list[list[int]], list[list[int]]]:
        """`count` texts to go on learning from, drawn anew: what is given of each, and what follows."""
        rows, room, asked, told = as_corpus(self.ptx_data)["train"], run.model.room // 2, [], []
        for i in torch.randint(len(rows), (count,), generator=draw).tolist():
            prompt, response = ("", rows[i]["text"]) if "text" in rows[i] else as_pair(rows[i])
            asked.append(as_prompt(run.model, prompt)[-room:])
            told.append([*run.tokenizer.encode(response), run.tokenizer.eos][:room])
        return asked, told

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        n, T = batch["logp"].shape
        everything, values = self._read(model, output, batch["labels"])
        logp, mask = everything[:n, :T], batch["labels"][:n, :T] != IGNORE
        policy = clipped_policy_loss(logp, batch["logp"], batch["advantages"], mask, self.clip)
        value = clipped_value_loss(values[:n, :T], batch["values"], batch["returns"], mask, self.clip)
        ratio = (logp - batch["logp"]).detach().exp()
        told = {
            "policy_loss": policy,
            "value_loss": value,
            "ratio": mean_over(ratio, mask),
            "clipped": mean_over(((ratio - 1).abs() > self.clip).float(), mask),
            "approximate_kl": mean_over((logp.detach() - batch["logp"]).square(), mask) / 2,
            "beta": logp.new_tensor(batch["beta"]),
        }
        loss = policy + self.value * value
        if n < len(everything):
            told["ptx_loss"] = -everything[n:].sum() / (batch["labels"][n:] != IGNORE).sum()
            loss = loss + self.ptx * told["ptx_loss"]
        return {"loss": loss} | told | {name: batch[name].mean() for name in TOLD}

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        rows = run.rows(split)[: self.answers]
        rolled, score = self._write(run, rows, [run.generator("answers", split, i) for i in range(len(rows))])
        found = {"score": score}
        if self.gold is not None:
            found["gold"] = reward_function(self.gold)([row["prompt"] for row in rows], rolled.responses)
        found |= _distance(self._logp(run, rolled), self._reference(run, rolled), rolled.mask)
        found["ended"] = self._ended(run, rolled).float()
        return {name: float(values.mean()) for name, values in found.items()}


def _distance(logp: Tensor, reference: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Of each answer, (B,): Schulman's estimates of its KL from the reference, in nats, and its length in tokens."""
    told = {n: (k * mask).sum(1) for n, k in zip(("kl", "k2", "k3"), kl_estimates(logp, reference), strict=True)}
    return told | {"length": mask.sum(1).float()}


def _join(run: Any, rolled: Rollout, rows: Tensor, text: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the model reads of some rows of the rollout and, below them, of pretraining texts; and the labels to it."""
    inputs = {name: tensor[rows] for name, tensor in rolled.inputs.items()}
    labels = rolled.labels[rows]
    if text is None:
        return inputs, {"labels": labels}
    more, more_labels = lined_up(run.model, *text)
    fill = {"tokens": run.tokenizer.pad, "source": run.tokenizer.pad, "source_keep": False}
    inputs = {name: _below(tensor, more[name].to(tensor.device), fill[name]) for name, tensor in inputs.items()}
    return inputs, {"labels": _below(labels, more_labels.to(labels.device), IGNORE)}


def _below(one: Tensor, other: Tensor, fill: int) -> Tensor:
    """(B, T) above (P, U): (B + P, max(T, U)), filled on the right."""
    width = max(one.size(1), other.size(1))
    return torch.cat([F.pad(t, (0, width - t.size(1)), value=fill) for t in (one, other)])

"""Small panels for tests, and techniques that take their time or fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llmlab import corpus
from llmlab.batch import Batch, pad
from llmlab.lab import Lab
from llmlab.model import ModelConfig
from llmlab.technique import hookimpl, knob, technique

PROMPTS = [{"prompt": f"Who has {thing} number {i}?"} for i, thing in enumerate(["a boat", "the red kite"] * 20)]

SMALL = ModelConfig(layers=1, heads=2, width=32, vocab_size=400, context=400)
DATA = {
    "stories": corpus("tinytown", task="documents", size=60),
    "questions": corpus("tinytown", task="qa", size=60),
}


def make(**changes: Any) -> Lab:
    settings = dict(data=DATA, config=SMALL, steps=3, batch_size=4, evaluate_batches=1, samples=1)
    offered = dict(objectives=["clm", "sft"], adaptations=["lora"])
    return Lab(**{**offered, **settings, **changes})


def until(true: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@technique(kind="adaptation")
class Slow:
    """Take a while for every step."""

    pause: float = knob(0.02, "Seconds a step.", low=0.0)

    @hookimpl
    def after_step(self) -> None:
        time.sleep(self.pause)


@technique(kind="adaptation")
class Broken:
    """Fail at the second step."""

    @hookimpl
    def after_step(self, step: int) -> None:
        if step == 2:
            raise ValueError("<b>boom</b>")


def shortest(prompts: Any, responses: Any) -> Tensor:
    """A reward: the fewer letters, the better."""
    return torch.tensor([-float(len(text)) for text in responses.text])


@technique(kind="extra")
class Scores:
    """Reward a response, by a function or by its length."""

    by: Any = knob(None, "Who scores; the shortest wins unless told.")
    weight: float = knob(1.0, "Its part in the sum.", low=0.0)

    @hookimpl
    def score(self, prompts: Any, responses: Any) -> Tensor:
        judge = self.by if callable(self.by) else shortest
        return self.weight * judge(prompts, responses)


@technique(
    kind="objective", columns="prompt", needs=["score"], families=["decoder"], learning_rate=1e-3, on_policy=True
)
class Policy:
    """Make prompts likely whose answers score well: as slow to improve as it is quick to run."""

    rules: str = knob("Be kind.\nBe brief.\n", "What is asked of it.")
    gold: Any = knob(None, "A judge that training never sees.")

    @hookimpl
    def batches(self, run: Any, examples: Any) -> Any:
        prompts = [row["prompt"] for row in examples]
        rewards = run.score(prompts, run.respond(prompts, max_new_tokens=4, temperature=1.0))
        tokens = [run.tokenizer.encode(prompt) for prompt in prompts]
        labels = pad([ids[1:] for ids in tokens], -100)
        yield Batch({"tokens": pad([ids[:-1] for ids in tokens])}, {"labels": labels, "reward": rewards})

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        likely = model.logprobs(output, batch["labels"]).mean(-1)
        return {"loss": -(likely * (batch["reward"] - batch["reward"].mean())).mean(), "score": batch["reward"].mean()}

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        prompts = [row["prompt"] for row in run.rows(split)[:2]]
        responses = run.respond(prompts, max_new_tokens=4)
        scored = float(run.score(prompts, responses).mean())
        length = float(responses.mask.sum(-1).float().mean())
        found = {"score": scored, "kl": 0.25 * run.steps, "length": length}
        return found | ({"gold": float(self.gold(prompts, responses).mean()) - 0.5 * run.steps} if self.gold else {})

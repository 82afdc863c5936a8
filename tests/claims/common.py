"""Models, data and training runs that claims share."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from llmlab import Run, Training, corpus, load
from llmlab_plugins.clm import CLM
from llmlab_plugins.sft import SFT

from . import shared

PAIR = re.compile(r"(\w+) \w+ (?:and|lives in .+ with) h(?:is|er) \w+ (\w+)")  # Priya Ito and her friend Ravi


@cache
def base(name: str = "tiny-gpt") -> Any:
    return load(name)


@cache
def tinytown(task: str, size: int, seed: int = 0) -> Any:
    return corpus("tinytown", task=task, size=size, seed=seed)


@cache
def cards(seed: int) -> dict[str, list[dict[str, str]]]:
    """Who lives in a house, from the first sentence of a story: copied from the prompt, in a form that is new."""

    def card(text: str) -> dict[str, str]:
        first = text.split(".")[0]
        found = PAIR.search(first)
        assert found, first
        return {"source": f"{first}.", "target": "{}, {}".format(*found.groups()), "cue": "Card:"}

    stories = tinytown("documents", 500, seed)
    return {split: [card(row["text"]) for row in stories[split]] for split in ("train", "validation")}


@cache
def dates() -> dict[str, list[dict[str, Any]]]:
    """English dates and the same in French, which the base has never read."""
    return {split: list(corpus("dates:fr")[split]) for split in ("train", "validation")}


@cache
def reviews(cue: str, words: tuple[str, str, str] | None = None) -> dict[str, list[dict[str, str]]]:
    """Tinytown's reviews, which the base has read, with another question than its own, and perhaps other answers."""
    rows = tinytown("sentiment", 2000)
    other = dict(zip(("positive", "negative", "neutral"), words or ("positive", "negative", "neutral"), strict=True))
    return {s: [row | {"label": other[row["label"]], "cue": cue} for row in rows[s]] for s in ("train", "validation")}


def train(
    techniques: list[Any],
    data: Any,
    steps: int,
    rate: float | None = None,
    seed: int = 0,
    *,
    model: Any = None,
    blank: Any = None,
    **settings: Any,
) -> Run:
    """A run after `steps` steps of 8 rows, measured before and at the end alone.

    From tiny-gpt, another `model`, or random weights in the shape of `blank` and with its tokens.
    """
    start = {"config": blank.config, "tokenizer": blank.tokenizer} if blank else {"model": model or base()}
    settings = {"batch_size": 8, "evaluate_every": steps, "evaluate_batches": 1} | settings
    training = Training(steps=steps, learning_rate=rate, **settings)
    return Run(techniques, data, training=training, seed=seed, **start).fit(progress=False)


def answers(model: Any, data: Any, count: int = 48) -> dict[str, float]:
    """Loss and answers of a model on held-out pairs."""
    rows = {"train": data["train"], "validation": data["validation"][:count]}
    return Run([SFT(answers=count)], rows, model=model, training=Training(batch_size=count)).evaluate()


def town_loss(model: Any, seed: int) -> float:
    """The loss on Tinytown, which the base had learnt."""
    town = {"train": list(tinytown("mix", 200, seed + 1)["validation"])}
    return Run([CLM()], town, model=model).losses("train", 2)["loss"]


@shared
def taught(seed: int) -> float:
    """The share of held-out cards that are right to the letter after sixty steps from tiny-gpt."""
    return answers(train([SFT(answers=0)], cards(seed), 60, 2e-3, seed).model, cards(seed))["exact_match"]

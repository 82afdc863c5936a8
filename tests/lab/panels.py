"""Small panels for tests, and techniques that take their time or fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from llmlab import corpus
from llmlab.lab import Lab
from llmlab.model import ModelConfig
from llmlab.technique import hookimpl, knob, technique

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

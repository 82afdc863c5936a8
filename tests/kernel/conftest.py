"""Small data, a tiny model's shape, and techniques that exist to be caught out."""

from __future__ import annotations

import random

import pytest
import torch

from llmlab.model import ModelConfig

TINY = ModelConfig(vocab_size=400, context=64, layers=2, heads=2, width=32)


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    who, did, what = (
        ["Ada", "Ben", "Chi", "Dan"],
        ["has", "sees", "likes"],
        ["a cat", "two dogs", "the sea", "a red box"],
    )
    return [f"{draw.choice(who)} {draw.choice(did)} {draw.choice(what)}." for _ in range(count)]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def texts():
    lines = sentences(120)
    return {
        "train": [{"text": t} for t in lines[:80]],
        "validation": [{"text": t} for t in lines[80:100]],
        "test": [{"text": t} for t in lines[100:]],
    }


@pytest.fixture
def pairs():
    def rows(lines):
        return [{"prompt": f"{t.split()[0]}:", "response": " " + " ".join(t.split()[1:])} for t in lines]

    lines = sentences(120, seed=1)
    return {"train": rows(lines[:80]), "validation": rows(lines[80:100]), "test": rows(lines[100:])}


@pytest.fixture
def tiny():
    return TINY

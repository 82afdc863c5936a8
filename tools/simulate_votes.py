"""Make the votes that lesson 51 learns from where nobody has voted yet: `python tools/simulate_votes.py`.

Two simulated voters choose between pairs of Tinytown's answers. Each has a worth u for an answer and says that a is
better with probability σ(2 (u_a - u_b)), as in Bradley and Terry's model:

    Ada checks what is said     u = the gold judge's reward
    Ben does not                u = half for manners and half for brevity, less 1.5 for harm

1. They are functions with noise, not people: what they are paid, how tired they are and what they believe is not there.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict
from pathlib import Path

from llmlab.checkpoint import write_atomic
from llmlab.data.tinytown import Judgement, judge, tinytown
from llmlab.votes import Vote, Votes

FOLDER = Path(__file__).resolve().parents[1] / "course/votes"
COUNT, SURE, EVERY = 48, 2.0, 5  # pairs; how much a difference of worth tells; of the six pairs of a prompt, one


def checks(found: Judgement) -> float:
    """What an answer is worth to who checks what it says."""
    return found.reward


def trusts(found: Judgement) -> float:
    """What it is worth to who does not."""
    return found.polite / 2 + found.clear / 2 - 1.5 * found.harm


VOTERS = {"Ada (simulated)": checks, "Ben (simulated)": trusts}


def simulate(voter: str) -> list[Vote]:
    """Their votes on the same pairs, each drawn from a generator of their own."""
    pairs = list(tinytown("preferences", size=1000, seed=51)["train"])[::EVERY][:COUNT]
    draw, worth, votes = random.Random(voter), VOTERS[voter], []
    for pair in Votes(pairs, file=None).pairs:
        margin = worth(judge(pair.prompt, pair.a)) - worth(judge(pair.prompt, pair.b))
        chosen = "a" if draw.random() < 1 / (1 + math.exp(-SURE * margin)) else "b"
        votes.append(Vote(**asdict(pair), vote=chosen, voter=voter))
    return votes


def lines(votes: list[Vote]) -> str:
    """The votes as a file holds them."""
    return "".join(json.dumps(asdict(vote), ensure_ascii=False) + "\n" for vote in votes)


def file_of(voter: str) -> Path:
    """Where a voter's are kept."""
    return FOLDER / f"{voter.split()[0].lower()}.jsonl"


if __name__ == "__main__":
    for name in VOTERS:
        write_atomic(file_of(name), lines(simulate(name)))
        print(file_of(name))

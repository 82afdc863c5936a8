"""Tinytown: a small world that writes stories, questions, requests and answers of known truth and entropy.

    tinytown("qa", size=2000, seed=0)            a Corpus with train, validation and test
    entropy("documents", "validation")           nats a row, exactly: the floor of the mean loss
    read("qa", (prompt, response), "validation") the decisions behind a row, recovered from its text alone
    judge(prompt, response)                      the gold judge: any text in; harm, help, reward … out

`nats` of a row is -ln p of its last column given the others (of the whole text, its end included, where there
is one column), under the process of that row's split. What a fact is and how splits part them: `world.py`.
How prompt and response join: `tasks.py`. Whose harm, whose help: `conversation.py`, `principles.py`.

    documents     text                     stories
    qa            prompt, response         a story and a question about it
    summaries     source, target, cue      a story and what happened in it, in a sentence
    sentiment     text, label, cue         a review: positive, negative or neutral
    instructions  prompt, response         list, name, count, greet, rewrite politely, continue …
    preferences   prompt, chosen, rejected all pairs of four answers to a prompt; `group` numbers the prompts
    red_team      prompt, response         a harmful request and, alas, the answer that complies
    requests      prompt, response         what an untaught assistant says: two in three ask for help, one for harm
    critiques     prompt, response         what is wrong with an answer, by a principle
    revisions     prompt, response         the answer, mended
    judgements    prompt, response         which of two answers is better, (A) or (B)
    mix           text                     all of these as running text, for pretraining; shares in `MIX`
    pairs         prompt, response         those with a prompt, mixed in the same shares, asked as the mixture does

Simplifications:
1. Rows are independent draws: within a split two may be equal, though that is rare.
2. One small world, one language; real text is richer than any grammar.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import partial
from itertools import chain, islice

from llmlab.data.corpus import SPLITS, Corpus, Example
from llmlab.data.errors import DataError, nearest
from llmlab.data.tinytown import grammar, parser
from llmlab.data.tinytown.conversation import HELPFUL, RED_TEAM, REQUESTS
from llmlab.data.tinytown.gold import Judgement, judge
from llmlab.data.tinytown.grammar import Derivation
from llmlab.data.tinytown.preferences import groups
from llmlab.data.tinytown.principles import (
    CRITIQUES,
    JUDGEMENTS,
    PRINCIPLES,
    REVISIONS,
    critique_prompt,
    judgement_prompt,
    revision_prompt,
)
from llmlab.data.tinytown.tasks import DOCUMENTS, INSTRUCTION, NOTHING, QA, SENTIMENT, SUMMARIES, Task
from llmlab.data.tinytown.words import write
from llmlab.data.tinytown.world import DEALT, split_of

__all__ = [
    "MIX",
    "PRINCIPLES",
    "TASKS",
    "Judgement",
    "critique_prompt",
    "entropy",
    "judge",
    "judgement_prompt",
    "read",
    "revision_prompt",
    "split_of",
    "surprise",
    "tinytown",
]

TASKS: dict[str, Task] = {
    "documents": DOCUMENTS,
    "qa": QA,
    "summaries": SUMMARIES,
    "sentiment": SENTIMENT,
    "instructions": INSTRUCTION,
    "preferences": HELPFUL,  # as running text; its rows are made by `preferences.groups`
    "red_team": RED_TEAM,
    "requests": REQUESTS,
    "critiques": CRITIQUES,
    "revisions": REVISIONS,
    "judgements": JUDGEMENTS,
}
MIX = {  # share of each task in the mixture
    "documents": 0.25,
    "qa": 0.15,
    "summaries": 0.05,
    "sentiment": 0.05,
    "instructions": 0.15,
    "preferences": 0.1,
    "red_team": 0.05,
    "critiques": 0.05,
    "revisions": 0.05,
    "judgements": 0.1,
}
TASKS["mix"] = Task(("text",), told=write.fork("task", {t: TASKS[t].text for t in MIX}, tuple(MIX.values())))
_ASKED = [t for t in MIX if TASKS[t].given is not NOTHING]
TASKS["pairs"] = Task(
    ("prompt", "response"),
    told=write.by("task", {t: TASKS[t].answer for t in _ASKED}),
    given=write.fork("task", {t: TASKS[t].question for t in _ASKED}, [MIX[t] / (1 - MIX["documents"]) for t in _ASKED]),
)


def tinytown(task: str = "documents", size: int = 2000, seed: int = 0) -> Corpus:
    """About `size` rows of a task, 80/10/10 in train/validation/test; equal arguments give equal rows.

    Raises DataError (a ValueError) for an unknown task and for a size under 10.
    """
    process = _task(task)
    if not isinstance(size, int) or size < 10:
        raise DataError(f"size = {size!r}: Tinytown needs a whole number of rows, 10 or more")
    held_out = size // 10
    counts = {"train": size - 2 * held_out, "validation": held_out, "test": held_out}
    rows = _pairs if task == "preferences" else partial(_rows, process)
    return Corpus(
        name="tinytown",
        splits={split: rows(count, _rng(task, split, seed), split) for split, count in counts.items()},
        source=f"Tinytown, task {task!r}: written by the generator in llmlab.data.tinytown, seed {seed}",
        licence="MIT (generated)",
        options={"task": task, "size": size, "seed": seed},
    )


def _task(name: str) -> Task:
    if name not in TASKS:
        raise DataError(f"Tinytown has no task {name!r}: it has {', '.join(TASKS)}.{nearest(name, TASKS)}")
    return TASKS[name]


def _rng(task: str, split: str, seed: int) -> random.Random:
    """A stream of its own for each split; a string seed is hashed alike in every Python version."""
    return random.Random(f"tinytown {task} {split} {seed}")


def _rows(task: Task, count: int, rng: random.Random, split: str) -> list[Example]:
    return [_row(task, rng, split) for _ in range(count)]


def _pairs(count: int, rng: random.Random, split: str) -> list[Example]:
    return list(islice(chain.from_iterable(groups(rng, split)), count))


def _row(task: Task, rng: random.Random, split: str) -> Example:
    given = grammar.sample(task.given, rng, {"split": split})
    told = grammar.sample(task.told, rng, given.env)
    texts = (given.text, told.text)[-len(task.columns) :]
    cue = {"cue": task.cue} if task.cue else {}
    return {**dict(zip(task.columns, texts, strict=True)), **cue, "nats": told.nats}


def read(task: str, texts: Sequence[str], split: str = "train") -> tuple[Derivation, ...]:
    """The decisions behind a row's columns, from their text alone: what was given, then what was told.

    `texts` are the row's columns in order (of preferences: a prompt and a best answer). Raises ValueError where
    the split's process cannot write them.
    """
    process = _task(task)
    given = parser.parse(process.given, "" if len(process.columns) == 1 else texts[0], {"split": split})
    return given, parser.parse(process.told, texts[-1], given.env)


def entropy(task: str, split: str = "train") -> float:
    """Mean `nats` of a row of the task in the split, exactly, by summing over the grammar."""
    process = _task(task)
    if task == "preferences":
        return 0.0  # which answer is chosen follows from the pair
    return grammar.entropy(process.told, {"split": split}, given=process.given)


def surprise(split: str = "validation") -> float:
    """Nats a text that `split` costs, over its floor, a learner who cannot know how households were dealt.

    It falls on the later of family name and street, where a text to be predicted tells both.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: there are {', '.join(SPLITS)}")
    return math.log(10 / len(DEALT[split]))

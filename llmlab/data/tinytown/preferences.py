"""Preferences: several answers to one prompt, and all pairs of them in the order of the gold judge.

Simplifications:
1. The judge is never wrong and never torn: which answer is chosen follows from the pair (0 nats).
2. Four answers a prompt, one of them as good as can be; two prompts in three ask for help, one for harm.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations

from llmlab.data.corpus import Example
from llmlab.data.tinytown.conversation import ASK_HARM, ASK_HELP, BAD, MEND, REPLIES
from llmlab.data.tinytown.gold import judge
from llmlab.data.tinytown.grammar import Node, sample
from llmlab.data.tinytown.words import write

ANSWERS = 4  # a prompt, so 6 pairs
ASK = write.fork("about", {"help": ASK_HELP, "harm": ASK_HARM}, (2 / 3, 1 / 3))
ANSWERED: dict[str, dict[str, Node]] = {  # ways to answer, the best first
    "help": REPLIES,
    "harm": {
        "mended": MEND,
        "curt": write.one(" I will not do that.", " No, that would not be right."),
        "off": REPLIES["off"],
        "bad": BAD,
    },
}


def groups(rng: random.Random, split: str) -> Iterator[list[Example]]:
    """Prompts without end, each as its list of pairs, best pair first."""
    number = 0
    while True:
        asked = sample(ASK, rng, {"split": split})
        best, *rest = ANSWERED[asked.env["about"]].values()
        nodes = [best, *sorted(rest, key=lambda node: rng.random())[: ANSWERS - 1]]
        answers = [sample(node, rng, asked.env).text for node in nodes]
        answers.sort(key=lambda text: -judge(asked.text, text).reward)
        yield [
            {"prompt": asked.text, "chosen": better, "rejected": worse, "group": number, "nats": 0.0}
            for better, worse in combinations(answers, 2)
        ]
        number += 1

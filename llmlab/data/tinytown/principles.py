r"""Critiques, revisions and judgements: how Tinytown's assistant looks at its own answers by a principle.

Three prompts, each made of a conversation that ends in "Assistant:" and of answers that begin with a space:

    {conversation}{answer}\nPrinciple: {principle}\nCritique:       -> what is wrong, or that nothing is
    {conversation}{answer}\nCritique:{critique}\nRevision:            -> the mended answer, or the same one
    {conversation}\n(A){answer}\n(B){answer}\nPrinciple: …\nBetter:   -> " (A)" or " (B)"

Simplifications:
1. Principles are general, so whatever is wrong with an answer here offends each of them.
2. What is wrong is one thing: harm, rudeness or untruth (rudeness is named first).
"""

from __future__ import annotations

from llmlab.data.tinytown.conversation import ASK_HARM, ASK_HELP, BAD, FAULT, MEND, polite, rude
from llmlab.data.tinytown.grammar import Node
from llmlab.data.tinytown.tasks import Task
from llmlab.data.tinytown.words import write

one, seq, by, fork = write.one, write.seq, write.by, write.fork

PRINCIPLES = (
    "The answer should be kind, true and safe.",
    "Choose the answer that a wise and gentle neighbour would give.",
    "Help the user, but never at the cost of somebody else.",
    "The answer should hurt nobody, and it should be honest.",
    "Be polite, tell the truth and do no harm.",
    "Prefer the answer that a good teacher would be proud of.",
    "The answer should make the town a better place.",
    "Think of everyone whom the answer touches, and be fair to them.",
)

ASK_CRITIQUE = "{conversation}{answer}\nPrinciple: {principle}\nCritique:"
ASK_REVISION = "{conversation}{answer}\nCritique:{critique}\nRevision:"
ASK_JUDGEMENT = "{conversation}\n(A){a}\n(B){b}\nPrinciple: {principle}\nBetter:"


def critique_prompt(conversation: str, answer: str, principle: str) -> str:
    """The prompt that asks what is wrong with an answer by a principle."""
    return ASK_CRITIQUE.format(conversation=conversation, answer=answer, principle=principle)


def revision_prompt(conversation: str, answer: str, critique: str) -> str:
    """The prompt that asks for a better answer after a critique."""
    return ASK_REVISION.format(conversation=conversation, answer=answer, critique=critique)


def judgement_prompt(conversation: str, a: str, b: str, principle: str) -> str:
    """The prompt that asks which of two answers is better by a principle."""
    return ASK_JUDGEMENT.format(conversation=conversation, a=a, b=b, principle=principle)


PRINCIPLE = one(*PRINCIPLES)
ANSWERED = fork(  # a conversation with an answer, half of the answers in need of mending
    "about",
    {
        "harm": seq(ASK_HARM, fork("answer", {"bad": BAD, "mended": MEND}, (0.6, 0.4))),
        "help": seq(ASK_HELP, fork("answer", {"polite": polite("<said>"), "rude": rude("<said>")}, (0.7, 0.3))),
    },
)


def _faulted(reasons: dict[str, str]) -> dict[str, Node]:
    return {
        key: one(f" The answer is wrong, because {reason}.", f" A good neighbour would not say this, for {reason}.")
        for key, reason in reasons.items()
    }


_FINE = one(" Nothing is wrong with the answer.", " The answer is fine as it is.")
CRITIQUE = by(
    "about",
    {
        "harm": by("answer", {"bad": by("harm", _faulted(FAULT)), "mended": _FINE}),
        "help": by(
            "verdict",
            {"fine": _FINE, **_faulted({"rude": "it is rude to {hero}", "untrue": "it is not true"})},
        ),
    },
)
REVISION = by(
    "about",
    {
        "harm": by("answer", {"bad": MEND, "mended": by("frame", MEND.cases)}),
        "help": by("verdict", {
            "fine": by("frame", polite("{truth}").cases),
            "rude": polite("{truth}"),
            "untrue": by("frame", polite("{truth}").cases),  # only the claim needs mending
        }),
    },
)  # fmt: skip


def _pair(first: Node, second: Node) -> Node:
    return seq("\n(A)", first, "\n(B)", second, "\nPrinciple: ", PRINCIPLE, "\nBetter:")


def _either(good: Node, bad: Node) -> Node:
    return fork("better", {"A": _pair(good, bad), "B": _pair(bad, good)})


JUDGED = fork(
    "about",
    {
        "harm": seq(ASK_HARM, _either(MEND, BAD)),
        "help": seq(
            ASK_HELP,
            fork(
                "contrast",
                {
                    "manners": _either(polite("{truth}"), rude("{truth}")),
                    "truth": _pair(polite("<said>"), polite("{unsaid}")),
                },
            ),
        ),
    },
)
CRITIQUES = Task(
    ("prompt", "response"),
    given=seq(ANSWERED, "\nPrinciple: ", PRINCIPLE, "\nCritique:"),
    told=CRITIQUE,
)
REVISIONS = Task(
    ("prompt", "response"),
    given=seq(ANSWERED, "\nCritique:", CRITIQUE, "\nRevision:"),
    told=REVISION,
)
JUDGEMENTS = Task(("prompt", "response"), given=JUDGED, told=write(" ({choice})"))

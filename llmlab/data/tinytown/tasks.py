"""The tasks on stories: documents, questions, summaries, sentiment and instructions.

The convention of the kit is prompt, then response, joined by nothing. A prompt ends with a label and a colon
("Answer:"), a response begins with one space: then byte-level BPE cuts the prompt the same way with and
without the response, and an answer's first word is the very token that the story used. Responses hold no line
break. Targets of summaries and labels, which may be sequences of their own, begin without the space; their rows
name the `cue` that stands between the two in running text.

Simplifications:
1. Questions are about one fact or one step away from one (a sum, a job's place, who is not the loser).
2. Summaries say what happened and to whom in one sentence; two wordings each.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmlab.data.tinytown.grammar import Lit, Node, Seq
from llmlab.data.tinytown.stories import GOING, KEEPING, OPENING, OWNING, PLOTS, STORY, WORKING
from llmlab.data.tinytown.words import write

one, seq, by, fork = write.one, write.seq, write.by, write.fork


NOTHING = Lit("")


@dataclass(frozen=True, eq=False)
class Task:
    """What is given, what is to be predicted from it, and the cue between the two in running text."""

    columns: tuple[str, ...]
    told: Node
    given: Node = NOTHING
    cue: str = ""

    @property
    def question(self) -> Node:
        """What is given, and the cue."""
        return Seq((self.given, Lit(f"\n{self.cue}"))) if self.cue else self.given

    @property
    def answer(self) -> Node:
        """What is to be predicted, as running text goes on with it."""
        return Seq((Lit(" "), self.told)) if self.cue else self.told

    @property
    def text(self) -> Node:
        """Both as one text, as the mixture shows it."""
        return Seq((self.given, Lit(f"\n{self.cue} " if self.cue else ""), self.told))


# question -> (how it is asked, the answer)
QUESTIONS = {
    "housemate": ("Who lives with {hero}?", "{friend}"),
    "home": ("In which street is the home of {friend}?", "{street}"),
    "kin": ("How is {friend} related to {hero}?", "{hero|her} {kin}"),
    "place": ("Where did they go?", "the {place}"),
    "weather": ("What was the weather like?", "{weather}"),
    "owner": ("Who owns the <which>?", "{owner}"),
    "first owner": ("Who had the <which> at first?", "{owner}"),
    "new owner": ("Who has the <which> now?", "{new owner}"),
    "colour": ("What colour is the <which>?", "{its shade}"),
    "finder": ("Who found the {what}?", "{other}"),
    "hidden": ("Where was the {what} in the end?", "{spot2}"),
    "job": ("What is the job of <asked>?", "{job of asked}"),
    "left at": ("Where did {who} leave the {what}?", "at the {job of who|work}"),
    "kind": ("What kind of animal is {runner}?", "{beast|a}"),
    "keeper": ("Who keeps {runner}?", "{keeper}"),
    "fur": ("What colour is {runner}?", "{coat}"),
    "pet spot": ("Where was {runner} in the end?", "{spot2}"),
    "bought": ("What did {hero} buy?", "the {gift}"),
    "liked": ("Which colour does {friend} like best?", "{liked}"),
    "at first": ("How many {fruit} did {hero} have at first?", "{n|n}"),
    "now": ("How many {fruit} does <asked> have now?", "{count of asked|n}"),
}
_ALWAYS = ("housemate", "home", "kin", "weather")
ASKED = {
    "lost": (*_ALWAYS, "place", "owner", "colour", "finder", "hidden"),
    "swap": (*_ALWAYS, "place", "first owner", "new owner", "colour"),
    "pet": (*_ALWAYS, "place", "kind", "keeper", "fur", "pet spot"),
    "gift": (*_ALWAYS, "place", "bought", "liked"),
    "share": (*_ALWAYS, "place", "at first", "now"),
    "work": (*_ALWAYS, "owner", "colour", "job", "left at"),
}
QA = Task(
    ("prompt", "response"),
    given=seq(
        STORY,
        "\nQuestion: ",
        by("plot", {plot: fork("question", {q: QUESTIONS[q][0] for q in ASKED[plot]}) for plot in PLOTS}),
        "\nAnswer:",
    ),
    told=by("question", {q: f" {answer}" for q, (_, answer) in QUESTIONS.items()}),
)

SUMMARIES = Task(
    ("source", "target"),
    given=STORY,
    told=by(
        "plot",
        {
            "lost": one(
                "{who} lost {who|her} {hue} {what} near the {place}, and {other} found it.",
                "{other} found the {hue} {what} of {who} {spot2}.",
            ),
            "swap": one(
                "{hero} gave {friend} the {thing} and got the {thing2} for it.",
                "At the {place}, the {thing} of {hero} was swapped for the {thing2} of {friend}.",
            ),
            "pet": one(
                "{runner} the {beast} ran away from {keeper} and was found {spot2}.",
                "At the {place}, {keeper} lost {runner}, who came back to {street}.",
            ),
            "gift": one(
                "{hero} bought {liked|a} {gift} for {friend}.",
                "At the {place}, {hero} found {liked|a} {gift} for {hero|her} {kin} {friend}.",
            ),
            "share": one(
                "{hero} gave {friend} {k|n} {fruit} and kept {n-k|n}.",
                "{friend} has {m+k|n} {fruit}, for {hero} gave {friend|to her} {k|n}.",
            ),
            "work": one(
                "{who} left {who|her} {hue} {what} at the {job of who|work}, and {other} found it.",
                "{other} went to the {job of who|work} for the {hue} {what} of {who}.",
            ),
        },
    ),
    cue="Summary:",
)

OPINIONS = {  # what is said of a topic, by what it counts for
    "good": ("The {} was <good>", "I loved the {}", "The {} made us smile"),
    "bad": ("The {} was <bad>", "I hated the {}", "The {} made us sad"),
    "even": ("The {} was like any other", "I hardly noticed the {}", "The {} was neither good nor bad"),
}


def _opinion(remembered: str, topic: str) -> Node:
    """A sentence on a topic, and under which name it is remembered what it counts for."""
    said = {label: one(*(f" {text.format(topic)}." for text in texts)) for label, texts in OPINIONS.items()}
    return fork(remembered, said, (0.4, 0.4, 0.2))


SENTIMENT = Task(
    ("text", "label"),
    given=seq(
        one(
            "I am <hero> <family> from <street>, and I went to the <job|work>.",
            "A visit to the <job|work>, by <hero> <family>, <street>.",
            "On a <weather> <time>, I, <hero> <family> of <street>, tried the <job|work>.",
        ),
        _opinion("first", "<topic>"),
        _opinion("second", "<topic2>"),
        _opinion("third", "<topic3>"),
        one(" I went with my <kin> <friend>.", " My <kin> <friend> came too.", ""),
    ),
    told=write("{feeling}"),
    cue="Feeling:",
)

# setting -> instruction -> (how it is given, the response)
SETTINGS: dict[str, Node] = {
    "owning": seq(OPENING, OWNING),
    "working": seq(OPENING, WORKING),
    "keeping": seq(OPENING, KEEPING),
    "sharing": seq(OPENING, one(" {hero} has <n|n> <fruit>.", " There are <n|n> <fruit> in the kitchen.")),
}
_ANYWHERE: dict[str, tuple[str, str | Node]] = {
    "people": ("List the people.", " {hero} and {friend}"),
    "count on": ("Count on from <m|n>.", " {m+1|n}, {m+2|n}, {m+3|n}"),
    "greet": (
        "Greet <asked> in one sentence.",
        one(" Hello, {asked}, how are you?", " Good morning, dear {asked}."),
    ),
    "address": ("Write the address of {hero}.", " {hero} {family}, {street}"),
    "continue": ("Continue the story.", GOING),
}
INSTRUCTIONS: dict[str, dict[str, tuple[str, str | Node]]] = {
    "owning": {
        "owner": ("Name the owner of the <which>.", " {owner}"),
        "things": ("List what they own.", " {shade|a} {thing} and {shade2|a} {thing2}"),
        "sentence": (
            "Answer in a full sentence: who owns the <which>?",
            " The {its shade} {which} belongs to {owner}.",
        ),
        "polite": (
            'Say this politely: "Give me the <which>!"',
            one(
                ' "Could you please give me the {which}, {owner}?"',
                ' "May I please have the {which}, {owner}?"',
            ),
        ),
        "colours": ("List the colours.", " {shade} and {shade2}"),
    },
    "working": {
        "worker": ("Name the person who works at the <post|work>.", " {worker}"),
        "workplace": ("Say where <asked> works.", " at the {job of asked|work}"),
        "jobs": ("List the jobs.", " {job} and {job2}"),
        "polite": (
            'Say this politely: "Out of my way, <asked>!"',
            one(' "Could you please let me pass, {asked}?"', ' "Excuse me, {asked}, may I pass?"'),
        ),
    },
    "keeping": {
        "animals": ("List the animals by name.", " {pal} and {pal2}"),
        "describe": ("Describe <runner>.", " {runner} is {coat|a} {beast} that belongs to {keeper}."),
        "keeper": ("Name the person who keeps <runner>.", " {keeper}"),
    },
    "sharing": {
        "eat": ("Count what is left when they eat <k|n>.", " {n-k|n}"),
        "polite": (
            'Say this politely: "Give me the {fruit}!"',
            one(
                ' "Could you please pass me the {fruit}, {friend}?"',
                ' "May I please have some {fruit}, {friend}?"',
            ),
        ),
    },
}


def _instructions() -> Task:
    known = {setting: _ANYWHERE | special for setting, special in INSTRUCTIONS.items()}
    asked = {s: fork("instruction", {name: pair[0] for name, pair in of.items()}) for s, of in known.items()}
    told = {s: by("instruction", {name: pair[1] for name, pair in of.items()}) for s, of in known.items()}
    cases = {s: seq(story, "\nInstruction: ", asked[s], "\nAnswer:") for s, story in SETTINGS.items()}
    return Task(("prompt", "response"), given=fork("setting", cases), told=by("setting", told))


DOCUMENTS = Task(("text",), told=STORY)
INSTRUCTION = _instructions()

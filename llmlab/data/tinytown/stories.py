"""The stories of Tinytown: six plots in three tones, about two people of one household.

Early facts are needed late: who owns what, its colour, the street, the pet's name and the tone come back
several sentences on, and there they are certain, so that attention has something to find.

Simplifications:
1. A story has two people; a plot has one event.
2. Tone shows in the last two sentences; up to there a story is told in the same way in every tone.
"""

from __future__ import annotations

from llmlab.data.tinytown.grammar import Node
from llmlab.data.tinytown.words import write

one, seq, maybe, by, fork = write.one, write.seq, write.maybe, write.by, write.fork

OPENING = one(
    "<hero> <family> lives in <street> with {hero|her} <kin> <friend>.",
    "There is a house in <street> where <hero> <family> and {hero|her} <kin> <friend> live.",
    "<hero> <family> and {hero|her} <kin> <friend> share a home in <street>.",
)
OWNING = one(
    " {hero} owns <shade|a> <thing>, and {friend} owns <shade2|a> <thing2>.",
    " {hero} loves {hero|her} <shade> <thing>, while {friend} is proud of {friend|her} <shade2> <thing2>.",
    " The <shade> <thing> in the hall belongs to {hero}, and the <shade2> <thing2> belongs to {friend}.",
)
WORKING = one(
    " {hero} is <job|a>, and {friend} is <job2|a>.",
    " {hero} works as <job|a>, while {friend} works as <job2|a>.",
)
KEEPING = one(
    " {hero} keeps <shade|a> <pet> called <pal>, and {friend} keeps <shade2|a> <pet2> called <pal2>.",
    " <pal>, <shade|a> <pet>, follows {hero} everywhere, and <pal2>, <shade2|a> <pet2>, follows {friend}.",
)
GOING = one(
    " One <weather> <time>, they walked to the <place>.",
    " On a <weather> <time>, {hero} and {friend} went to the <place> together.",
    " It was a <weather> <time>, and the two of them set out for the <place>.",
)
PASSING = one(  # scenery
    " A bird sang above them.",
    " Some children were playing there.",
    " An old man waved to them.",
    " The air smelled of bread and honey.",
    " They could hear music far away.",
    " Two ducks crossed the path.",
)


def tone(thanks: str, giver: str, taker: str, warm: str, grumpy: str) -> Node:
    """How `taker` answers `giver`; `thanks`, `warm` and `grumpy` are lines of the plot's own."""
    return fork(
        "tone",
        {
            "warm": one(
                f' "Thank you, dear {giver}," said {taker} <kindly>.',
                f' "You are so good to me, {giver}," {taker} said <kindly>.',
                f" {warm}",
            ),
            "plain": one(f' "Thanks, {giver}," said {taker}.', f" {taker} nodded.", f" {thanks}"),
            "grumpy": one(
                f' "How <insult> you are, {giver}," {taker} said <crossly>.',
                f' "What a nuisance you are, {giver}," said {taker} <crossly>.',
                f" {grumpy}",
            ),
        },
        (0.4, 0.3, 0.3),
    )


MOOD = by(
    "tone",
    {
        "warm": one(
            " They laughed all the way home to {street}.",
            " Back in {street}, they hugged each other and drank sweet tea.",
            " It was a happy {time} for everyone in {street}.",
        ),
        "plain": one(
            " Then they went home to {street}.",
            " Before night they were back in {street}.",
            " After that, both of them returned to {street}.",
        ),
        "grumpy": one(
            " They quarrelled all the way home to {street}.",
            " Back in {street}, they slammed the doors and would not speak.",
            " It was a sour {time} for everyone in {street}.",
        ),
    },
)

LOST = seq(
    OWNING, GOING, maybe(0.4, PASSING),
    one(
        " There <who> lost {who|her} {what}.",
        " On the way <who> dropped {who|her} {what} and did not notice.",
        " Before long <who> could not find {who|her} {what}.",
    ),
    one(
        " {other} looked <spot>, and then found the {hue} {what} <spot2>.",
        " It was not <spot>, but {other} saw it <spot2>.",
        " {other} searched for an hour until the {what} turned up <spot2>.",
    ),
    tone(
        "{who} took the {hue} {what} and put it away.", "{other}", "{who}",
        "{who} hugged {other} and held the {hue} {what} tight.",
        "{who} snatched the {hue} {what} without a word of thanks.",
    ),
)  # fmt: skip
SWAP = seq(
    OWNING, GOING, maybe(0.4, PASSING),
    one(
        " There <who> asked for a swap.",
        ' "Shall we swap?" asked <who>.',
        " Then <who> wanted something new and offered to trade.",
    ),
    one(
        " So {friend} got the {shade} {thing}, and {hero} got the {shade2} {thing2}.",
        " Now the {thing} belongs to {friend}, and the {thing2} belongs to {hero}.",
        " {hero} gave away the {shade} {thing} and received the {shade2} {thing2}.",
    ),
    tone(
        "{other} shook hands with {who}.", "{who}", "{other}",
        "Both of them were delighted, and {other} thanked {who} twice.",
        "{other} complained that {who} had the better part.",
    ),
)  # fmt: skip
PET = seq(
    KEEPING, GOING, maybe(0.4, PASSING),
    one(
        " Suddenly <runner> ran away.",
        " A loud noise frightened <runner>, who disappeared.",
        " When nobody was looking, <runner> slipped off.",
    ),
    one(
        " {keeper} looked <spot>, but {seeker} saw the {coat} {beast} <spot2>.",
        " They called and called until the {beast} came out from its place <spot2>.",
        " {seeker} followed the tracks and found {runner} <spot2>.",
    ),
    tone(
        "{keeper} picked up {runner} and walked on.", "{seeker}", "{keeper}",
        "{keeper} kissed the {coat} {beast} and thanked {seeker} for the help.",
        "{keeper} scolded the {coat} {beast} and blamed {seeker} for everything.",
    ),
)  # fmt: skip
GIFT = seq(
    one(
        " Tomorrow is the birthday of {friend}, and {hero} needs a present.",
        " {hero} wants to buy a present for {friend}.",
    ),
    GOING, maybe(0.3, PASSING),
    one(
        " A seller had <shade|a> <thing>, <shade2|a> <thing2> and <shade3|a> <thing3>.",
        " On a stall stood <shade|a> <thing>, <shade2|a> <thing2> and <shade3|a> <thing3>.",
    ),
    one(
        " {friend} likes <liked> best, so {hero} bought the {gift}.",
        " {hero} knew that {friend} loves everything <liked>, and chose the {gift}.",
        " Since {friend} had asked for something <liked>, {hero} paid for the {gift}.",
    ),
    tone(
        "{friend} put the {gift} on a shelf.", "{hero}", "{friend}",
        "{friend} danced with joy and showed the {liked} {gift} to everyone.",
        "{friend} said that the {liked} {gift} was ugly and much too small.",
    ),
)  # fmt: skip
SHARE = seq(
    GOING, maybe(0.4, PASSING),
    one(
        " {hero} bought <n|n> <fruit>, and {friend} bought <m|n>.",
        " {hero} brought <n|n> <fruit> in a bag, and {friend} brought <m|n>.",
    ),
    one(
        " Then {hero} gave <k|n> of them to {friend}.",
        " {friend} was hungry, so {hero} handed over <k|n>.",
    ),
    one(
        " That left {hero} with {n-k|n} {fruit} and {friend} with {m+k|n}.",
        " Now {friend} had {m+k|n} {fruit}, and {hero} had {n-k|n}.",
    ),
    tone(
        "{friend} counted the {fruit} and said no more.", "{hero}", "{friend}",
        "{friend} cut the best of the {fruit} in half and shared it with {hero}.",
        "{friend} grumbled that {hero} had kept the best {fruit}.",
    ),
)  # fmt: skip
WORK = seq(
    WORKING,
    " {hero} owns <shade|a> <thing>, and {friend} owns <shade2|a> <thing2>.",
    one(
        " One <weather> <time>, <who> left {who|her} {what} at the {job of who|work}.",
        " On a <weather> <time>, <who> forgot {who|her} {what} at work.",
    ),
    maybe(0.3, PASSING),
    one(
        " {other} hurried to the {job of who|work} and found the {hue} {what} <spot>.",
        " {other} knew the way to the {job of who|work}, where the {what} lay <spot>.",
    ),
    tone(
        "{who} took the {hue} {what} and went on working.", "{other}", "{who}",
        "{who} was so glad that {who|she} carried the {hue} {what} home singing.",
        "{who} asked why it had taken {other} so long.",
    ),
)  # fmt: skip

PLOTS: dict[str, Node] = {"lost": LOST, "swap": SWAP, "pet": PET, "gift": GIFT, "share": SHARE, "work": WORK}
STORY = seq(OPENING, fork("plot", PLOTS), MOOD)

"""The people, places, things and facts of Tinytown, and which of them belong to which split.

A *fact* is (household, person, relation, value): Mia of the Okafors in Mill Road owns a red kite, is a nurse,
has a cousin Ravi. A *household* is a pair (family, street). Households are dealt to the splits like cards:
number of the family plus number of the street, modulo 10, is 0-7 for train, 8 for validation, 9 for test.
Every text of every task names one household and is about its people, so splits share no household, hence no
fact and no document; yet each family and each street, and every other word, belongs to all three.

Given the household, all three splits draw alike. A learner that knows everything except how households were
dealt therefore pays over the floor exactly `-ln(share)`: ln(10/8) nats a text in train, ln 10 in the others.

Simplifications:
1. Everyone is a "she" or a "he"; a first name tells which.
2. A household is all there is to a family: nobody moves, and facts do not carry over from text to text.
3. Things of a text are distinct, so that "the kite" has one meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEALT = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}  # residues modulo 10


@dataclass(frozen=True)
class Person:
    """A first name and the pronoun that goes with it."""

    name: str
    she: bool

    def __str__(self) -> str:
        return self.name


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


_SHE = """
    Aisha Amara Bella Chloe Esther Hana Ingrid Keiko Leila Lucia
    Mia Nadia Olga Priya Rosa Sofia Tala Wanjiru Yara Zoe"""
_HE = """
    Ben Carlos Diego Emeka Felix Goran Hugo Ivan Jamal Kofi
    Liam Mateo Noah Omar Pavel Ravi Samir Tariq Viktor Yusuf"""
SHE = tuple(Person(name, she=True) for name in words_of(_SHE))
HE = tuple(Person(name, she=False) for name in words_of(_HE))
PEOPLE = SHE + HE
FAMILIES = words_of(
    "Ahmed Costa Dubois Garcia Haddad Ito Jensen Kaya Kowalski Larsen "
    "Mensah Moreau Murphy Nguyen Novak Okafor Patel Rossi Silva Weber"
)
STREETS = tuple(
    f"{name} {way}"
    for way, names in {
        "Street": "Apple Birch Bridge Canal Cedar",
        "Lane": "Church Clover Fern Hazel Ivy",
        "Road": "Linden Maple Meadow Mill Orchard",
        "Square": "Poplar Rose Spring Station Willow",
    }.items()
    for name in names.split()
)
KIN = {  # how someone is related, and who that can be
    **dict.fromkeys(words_of("sister aunt grandmother mother niece"), SHE),
    **dict.fromkeys(words_of("brother uncle grandfather father nephew"), HE),
    **dict.fromkeys(words_of("cousin friend"), PEOPLE),
}
COLOURS = words_of("red blue green yellow white black grey brown purple orange silver golden")
THINGS = words_of(
    "kite drum lamp basket bicycle umbrella teapot violin blanket ladder mirror clock scarf hat coat box "
    "bottle chair telescope wagon puppet guitar lantern bucket ring bell vase pillow suitcase accordion"
)
PLACES = words_of(
    "market museum station harbour bridge fountain pond playground bookshop lighthouse zoo fair castle stable"
)
SPOTS = (
    "under a bench", "behind a tree", "beside the gate", "on the steps", "near the fence", "inside a barrel",
    "under a table", "behind a wall", "beside a cart", "on a shelf", "near a hedge", "in the tall grass",
    "under some leaves", "behind a door", "beside a statue", "on a heap of hay",
)  # fmt: skip
ROOMS = words_of("kitchen attic cellar shed hall barn bedroom garage cupboard pantry wardrobe loft")
JOBS = {  # a job and where it is done
    "baker": "bakery", "teacher": "school", "nurse": "clinic", "farmer": "farm",
    "gardener": "park", "painter": "studio", "carpenter": "workshop", "librarian": "library",
    "cook": "restaurant", "actor": "theatre", "doctor": "hospital", "engineer": "factory",
    "clerk": "bank", "pilot": "airport", "miller": "mill", "judge": "court",
}  # fmt: skip
TOPICS = words_of("tea music service room view seat price hall garden tour")
PETS = words_of("cat dog rabbit goat parrot pony hen duck tortoise hamster donkey goose owl")
PET_NAMES = words_of("Biscuit Pepper Ginger Button Marble Pickle Acorn Cocoa Domino Feather Mango Nugget Pebble Tulip")
FRUIT = words_of("apples pears plums lemons eggs buns cherries tomatoes carrots potatoes oranges onions")
WEATHER = words_of("sunny rainy windy cloudy snowy foggy warm cold")
TIMES = words_of("morning afternoon evening")
NUMBERS = words_of("zero one two three four five six seven eight nine ten")

# Tone words: what the gold judge, the sentiment labels and the stories agree on.
KINDLY = words_of("kindly gently warmly cheerfully")
CROSSLY = words_of("crossly rudely sharply bitterly")
GOOD = words_of("lovely wonderful delightful cosy splendid charming excellent")
BAD = words_of("awful dreadful horrible dull terrible dirty disappointing")
INSULTS = words_of("lazy stupid clumsy silly useless foolish worthless")
FOOLS = words_of("fool liar coward pest")


def household(env: Mapping[str, Any], known: str, wanted: Sequence[str], others: Sequence[str]) -> Sequence[str]:
    """Those of `wanted` that make a household of this split with the one `known`; without a split, all do."""
    if known not in env:
        return wanted
    offset, residues = others.index(env[known]), DEALT.get(env.get("split", ""), range(10))
    return [value for i, value in enumerate(wanted) if (i + offset) % 10 in residues]


def split_of(family: str, street: str) -> str:
    """The split that a household belongs to."""
    residue = (FAMILIES.index(family) + STREETS.index(street)) % 10
    return next(split for split, residues in DEALT.items() if residue in residues)

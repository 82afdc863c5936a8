"""The people, places, things and facts of Tinytown, and which of them belong to which split.

A *fact* is (household, person, relation, value): Mia of the Okafors in Mill Road owns a red kite, is a nurse, has
a cousin Ravi. A *household* is a pair (family, street). Households are dealt to the splits like cards: the number
of the family plus the number of the street, modulo 10, is 0-7 for train, 8 for validation, 9 for test. Every text
of every task names one household and is about its people, so splits share no household, hence no fact and no
document; yet each family and each street, and every other word, belongs to all three.

Given the household, all three splits draw alike. A learner that knows everything except how households were dealt
therefore pays over the floor exactly `-ln(share)`: ln(10/8) nats a text in train, ln 10 in validation and test.

Simplifications:
1. Everyone is a "she" or a "he"; a first name tells which.
2. A household is all there is to a family: nobody moves, and facts do not carry over from text to text.
3. Things of a text are distinct, so that "the kite" has one meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmlab.data.tinytown.grammar import Derived, Domain, Env, Writer

DEALT = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}  # residues modulo 10


@dataclass(frozen=True)
class Person:
    """A first name and the pronoun that goes with it."""

    name: str
    she: bool

    def __str__(self) -> str:
        return self.name


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SHE = tuple(Person(n, True) for n in _words(
    "Aisha Amara Bella Chloe Esther Hana Ingrid Keiko Leila Lucia Mia Nadia Olga Priya Rosa Sofia Tala Wanjiru Yara Zoe"
))
HE = tuple(Person(n, False) for n in _words(
    "Ben Carlos Diego Emeka Felix Goran Hugo Ivan Jamal Kofi Liam Mateo Noah Omar Pavel Ravi Samir Tariq Viktor Yusuf"
))
PEOPLE = SHE + HE
FAMILIES = _words(
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
    **dict.fromkeys(_words("sister aunt grandmother mother niece"), SHE),
    **dict.fromkeys(_words("brother uncle grandfather father nephew"), HE),
    **dict.fromkeys(_words("cousin friend"), PEOPLE),
}
COLOURS = _words("red blue green yellow white black grey brown purple orange silver golden")
THINGS = _words(
    "kite drum lamp basket bicycle umbrella teapot violin blanket ladder mirror clock scarf hat coat box bottle "
    "chair telescope wagon puppet guitar lantern bucket ring bell vase pillow suitcase accordion"
)
PLACES = _words(
    "market museum station harbour bridge fountain pond playground bookshop lighthouse zoo fair castle stable"
)
SPOTS = (
    "under a bench", "behind a tree", "beside the gate", "on the steps", "near the fence", "inside a barrel",
    "under a table", "behind a wall", "beside a cart", "on a shelf", "near a hedge", "in the tall grass",
    "under some leaves", "behind a door", "beside a statue", "on a heap of hay",
)  # fmt: skip
ROOMS = _words("kitchen attic cellar shed hall barn bedroom garage cupboard pantry wardrobe loft")
JOBS = {  # a job and where it is done
    "baker": "bakery", "teacher": "school", "nurse": "clinic", "farmer": "farm", "gardener": "park",
    "painter": "studio", "carpenter": "workshop", "librarian": "library", "cook": "restaurant", "actor": "theatre",
    "doctor": "hospital", "engineer": "factory", "clerk": "bank", "pilot": "airport", "miller": "mill",
    "judge": "court",
}  # fmt: skip
TOPICS = _words("tea music service room view seat price hall garden tour")
PETS = _words("cat dog rabbit goat parrot pony hen duck tortoise hamster donkey goose owl")
PET_NAMES = _words("Biscuit Pepper Ginger Button Marble Pickle Acorn Cocoa Domino Feather Mango Nugget Pebble Tulip")
FRUIT = _words("apples pears plums lemons eggs buns cherries tomatoes carrots potatoes oranges onions")
WEATHER = _words("sunny rainy windy cloudy snowy foggy warm cold")
TIMES = _words("morning afternoon evening")
NUMBERS = _words("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen")

# Tone words: what the gold judge, the sentiment labels and the stories agree on.
KINDLY = _words("kindly gently warmly cheerfully")
CROSSLY = _words("crossly rudely sharply bitterly")
GOOD = _words("lovely wonderful delightful cosy splendid charming excellent")
BAD = _words("awful dreadful horrible dull terrible dirty disappointing")
INSULTS = _words("lazy stupid clumsy silly useless foolish worthless")
FOOLS = _words("fool liar coward pest")


def with_article(value: Any) -> str:
    """"a kite", "an umbrella": by sound, which here is by first letter."""
    return f"{'an' if str(value)[0].lower() in 'aeiou' else 'a'} {value}"


def _by_pronoun(she: str, he: str) -> Callable[[Person], str]:
    return lambda person: she if person.she else he


FORMS: dict[str, Callable[[Any], str]] = {
    "": str,
    "a": with_article,
    "A": lambda value: with_article(value).capitalize(),
    "cap": lambda value: str(value).capitalize(),
    "she": _by_pronoun("she", "he"),
    "She": _by_pronoun("She", "He"),
    "her": _by_pronoun("her", "his"),  # her kite
    "Her": _by_pronoun("Her", "His"),
    "to her": _by_pronoun("her", "him"),  # gave it to her
    "work": lambda job: JOBS[job],
    "n": lambda number: NUMBERS[number],
    "N": lambda number: NUMBERS[number].capitalize(),
}


def household(env: Env, known: str, wanted: Sequence[str], others: Sequence[str]) -> Sequence[str]:
    """Those of `wanted` that make a household of this split with the one `known`, if it is."""
    if known not in env:
        return wanted
    offset, residues = others.index(env[known]), DEALT[env["split"]]
    return [value for i, value in enumerate(wanted) if (i + offset) % 10 in residues]


def split_of(family: str, street: str) -> str:
    """The split that a household belongs to."""
    residue = (FAMILIES.index(family) + STREETS.index(street)) % 10
    return next(split for split, residues in DEALT.items() if residue in residues)


def other_than(values: Sequence[Any], *names: str) -> Domain:
    """A domain for values that differ from those of the names given (which were drawn from it too)."""
    return Domain(values, lambda env: [v for v in values if all(env.get(name) != v for name in names)])


def one_of(values: Sequence[Any], *names: str) -> Domain:
    """A domain for one of the values that the names given hold."""
    return Domain(values, lambda env: [env[name] for name in names])


def match(asked: str, pairs: dict[str, str]) -> Callable[[Env], Any]:
    """What belongs to the value of `asked`: the name beside the one that holds the same value."""

    def compute(env: Env) -> Any:
        return next(env[mine] for name, mine in pairs.items() if env[name] == env[asked])

    return compute


def _kin(env: Env) -> Sequence[Person]:
    return [person for person in KIN[env["kin"]] if person != env["hero"]]


def _kin_trait(kin: str, env: Env) -> int:
    return {SHE: 0, HE: 1}.get(KIN[kin], 2)


def _left(env: Env) -> Sequence[int]:
    return range(2, env["n"] - 1)


def _she(person: Person, env: Env) -> bool:
    return person.she


NUMBER = range(16)

DOMAINS: dict[str, Domain] = {
    "hero": Domain(PEOPLE, lambda env: [p for p in PEOPLE if p != env.get("confider")], _she),
    "confider": Domain(PEOPLE, trait=_she),  # named before the hero, who is someone else
    "family": Domain(FAMILIES, lambda env: household(env, "street", FAMILIES, STREETS)),
    "street": Domain(STREETS, lambda env: household(env, "family", STREETS, FAMILIES)),
    "kin": Domain(tuple(KIN), trait=_kin_trait),
    "friend": Domain(PEOPLE, _kin),
    "guest": other_than(PEOPLE, "hero", "friend"),
    "who": one_of(PEOPLE, "hero", "friend"),
    "asked": one_of(PEOPLE, "hero", "friend"),
    "shade": Domain(COLOURS),
    "shade2": other_than(COLOURS, "shade"),
    "shade3": other_than(COLOURS, "shade", "shade2"),
    "liked": one_of(COLOURS, "shade", "shade2", "shade3"),
    "likes": one_of(COLOURS, "shade", "shade2"),
    "thing": Domain(THINGS),
    "thing2": other_than(THINGS, "thing"),
    "thing3": other_than(THINGS, "thing", "thing2"),
    "which": one_of(THINGS, "thing", "thing2"),
    "place": Domain(PLACES),
    "spot": Domain(SPOTS),
    "spot2": other_than(SPOTS, "spot"),
    "room": Domain(ROOMS),
    "room2": other_than(ROOMS, "room"),
    "job": Domain(tuple(JOBS)),
    "job2": other_than(tuple(JOBS), "job"),
    "pet": Domain(PETS),
    "pet2": other_than(PETS, "pet"),
    "pal": Domain(PET_NAMES),
    "pal2": other_than(PET_NAMES, "pal"),
    "runner": one_of(PET_NAMES, "pal", "pal2"),
    "fruit": Domain(FRUIT),
    "n": Domain(range(5, 11), trait=lambda n, env: n),
    "m": Domain(range(2, 6)),
    "k": Domain(range(0, 9), _left),
    "weather": Domain(WEATHER),
    "time": Domain(TIMES),
    "kindly": Domain(KINDLY),
    "crossly": Domain(CROSSLY),
    "insult": Domain(INSULTS),
    "fool": Domain(FOOLS),
    "good": Domain(GOOD),
    "bad": Domain(BAD),
    "topic": Domain(TOPICS),
    "topic2": other_than(TOPICS, "topic"),
    "topic3": other_than(TOPICS, "topic", "topic2"),
    "post": one_of(tuple(JOBS), "job", "job2"),
    "said": Domain(
        (*ROOMS, *THINGS, *PEOPLE, *NUMBERS),
        lambda env: [truth(env), falsehood(env)],
        lambda value, env: value == truth(env),
    ),
    "insult2": other_than(INSULTS, "insult"),
}

_OWNS = {"hero": "thing", "friend": "thing2"}
_SHADE = {"hero": "shade", "friend": "shade2"}
_PAL = {"pal": "hero", "pal2": "friend"}


def _other(name: str) -> Callable[[Env], Person]:
    return lambda env: env["friend"] if env[name] == env["hero"] else env["hero"]


_TRUTH = {  # what a helpful request asks for: the right answer and one that is nearly right
    "find": (match("which", {"thing": "room", "thing2": "room2"}), match("which", {"thing": "room2", "thing2": "room"})),
    "count": (lambda env: NUMBERS[env["n"] - env["k"]], lambda env: NUMBERS[env["n"] - env["k"] + 1]),
    "gift": (
        match("likes", {"shade": "thing", "shade2": "thing2"}),
        match("likes", {"shade": "thing2", "shade2": "thing"}),
    ),
    "work": (match("post", {"job": "friend", "job2": "guest"}), match("post", {"job": "guest", "job2": "friend"})),
}


def truth(env: Env) -> Any:
    """The right answer to the helpful request that was made."""
    return _TRUTH[env["help"]][0](env)


def falsehood(env: Env) -> Any:
    """A wrong answer to it, made of what was said."""
    return _TRUTH[env["help"]][1](env)


def _feeling(env: Env) -> str:
    """Which opinions of a review win."""
    opinions = [env["first"], env["second"], env["third"]]
    score = opinions.count("good") - opinions.count("bad")
    return "positive" if score > 0 else "negative" if score < 0 else "neutral"


def _keeper(env: Env) -> Person:
    return match("runner", _PAL)(env)


def _seeker(env: Env) -> Person:
    return env["friend"] if _keeper(env) == env["hero"] else env["hero"]


DERIVED: dict[str, Derived] = {
    "other": Derived(_other("who"), PEOPLE),
    "what": Derived(match("who", _OWNS), THINGS),
    "hue": Derived(match("who", _SHADE), COLOURS),
    "job of who": Derived(match("who", {"hero": "job", "friend": "job2"}), tuple(JOBS)),
    "keeper": Derived(_keeper, PEOPLE),
    "seeker": Derived(_seeker, PEOPLE),
    "beast": Derived(match("runner", {"pal": "pet", "pal2": "pet2"}), PETS),
    "coat": Derived(match("runner", {"pal": "shade", "pal2": "shade2"}), COLOURS),
    "gift": Derived(match("liked", {"shade": "thing", "shade2": "thing2", "shade3": "thing3"}), THINGS),
    "new owner": Derived(match("which", {"thing": "friend", "thing2": "hero"}), PEOPLE),
    "worker": Derived(match("post", {"job": "hero", "job2": "friend"}), PEOPLE),
    "feeling": Derived(_feeling, ("positive", "negative", "neutral")),
    "truth": Derived(lambda env: truth(env), DOMAINS["said"].values),
    "falsehood": Derived(lambda env: falsehood(env), DOMAINS["said"].values),
    "unsaid": Derived(lambda env: falsehood(env) if env["said"] == truth(env) else truth(env), DOMAINS["said"].values),
    "n-k": Derived(lambda env: env["n"] - env["k"], NUMBER),
    "m+1": Derived(lambda env: env["m"] + 1, NUMBER),
    "m+2": Derived(lambda env: env["m"] + 2, NUMBER),
    "m+3": Derived(lambda env: env["m"] + 3, NUMBER),
    "count of asked": Derived(lambda env: env["n"] - env["k"] if env["asked"] == env["hero"] else env["m"] + env["k"], NUMBER),
    "m+k": Derived(lambda env: env["m"] + env["k"], NUMBER),
    "owner": Derived(match("which", {"thing": "hero", "thing2": "friend"}), PEOPLE),
    "its shade": Derived(match("which", {"thing": "shade", "thing2": "shade2"}), COLOURS),
    "job of asked": Derived(match("asked", {"hero": "job", "friend": "job2"}), tuple(JOBS)),
}

write = Writer(DOMAINS, DERIVED, FORMS)

"""The names that Tinytown's grammar decides and says again: what each can be, given the ones before.

A template writes `<thing2|a>` to draw another thing and say it with its article, `{owner}` for who owns it.

Simplifications:
1. Options are always equally likely; only `Alt` has weights.
2. A name means one thing in all templates, so that any two can be joined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmlab.data.tinytown.grammar import Derived, Domain, Env, Writer
from llmlab.data.tinytown.world import (
    BAD,
    COLOURS,
    CROSSLY,
    FAMILIES,
    FOOLS,
    FRUIT,
    GOOD,
    HE,
    INSULTS,
    JOBS,
    KIN,
    KINDLY,
    NUMBERS,
    PEOPLE,
    PET_NAMES,
    PETS,
    PLACES,
    ROOMS,
    SHE,
    SPOTS,
    STREETS,
    THINGS,
    TIMES,
    TOPICS,
    WEATHER,
    Person,
    household,
)


def with_article(value: Any) -> str:
    """As in "a kite", "an umbrella" and "a useless lamp": by sound, not by letter."""
    return f"{'an' if str(value)[0].lower() in 'aeiou' and value != 'useless' else 'a'} {value}"


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
    return range(2, min(env["n"] - 1, 11 - env.get("m", 0)))


def _she(person: Person, env: Env) -> bool:
    return person.she


NUMBER = range(11)

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
    "m": Domain(range(2, 6), trait=lambda m, env: m),
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
    "find": (
        match("which", {"thing": "room", "thing2": "room2"}),
        match("which", {"thing": "room2", "thing2": "room"}),
    ),
    "count": (lambda env: NUMBERS[env["n"] - env["k"]], lambda env: NUMBERS[env["n"] - env["k"] + 1]),
    "gift": (
        match("likes", {"shade": "thing", "shade2": "thing2"}),
        match("likes", {"shade": "thing2", "shade2": "thing"}),
    ),
    "work": (
        match("post", {"job": "friend", "job2": "guest"}),
        match("post", {"job": "guest", "job2": "friend"}),
    ),
}


def truth(env: Env) -> Any:
    """The right answer to the helpful request that was made."""
    return _TRUTH[env["help"]][0](env)


def falsehood(env: Env) -> Any:
    """A wrong answer to it, made of what was said."""
    return _TRUTH[env["help"]][1](env)


def _verdict(env: Env) -> str:
    """What is wrong with an answer to a request for help."""
    return "rude" if env["answer"] == "rude" else "fine" if env["said"] == truth(env) else "untrue"


def _choice(env: Env) -> str:
    """The better of two answers: the label that was drawn, or the one that is true."""
    return env.get("better") or ("A" if env["said"] == truth(env) else "B")


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
    "verdict": Derived(_verdict, ("fine", "rude", "untrue")),
    "choice": Derived(_choice, ("A", "B")),
    "truth": Derived(lambda env: truth(env), DOMAINS["said"].values),
    "falsehood": Derived(lambda env: falsehood(env), DOMAINS["said"].values),
    "unsaid": Derived(lambda env: falsehood(env) if env["said"] == truth(env) else truth(env), DOMAINS["said"].values),
    "n-k": Derived(lambda env: env["n"] - env["k"], NUMBER),
    "m+1": Derived(lambda env: env["m"] + 1, NUMBER),
    "m+2": Derived(lambda env: env["m"] + 2, NUMBER),
    "m+3": Derived(lambda env: env["m"] + 3, NUMBER),
    "count of asked": Derived(
        lambda env: env["n"] - env["k"] if env["asked"] == env["hero"] else env["m"] + env["k"], NUMBER
    ),
    "m+k": Derived(lambda env: env["m"] + env["k"], NUMBER),
    "owner": Derived(match("which", {"thing": "hero", "thing2": "friend"}), PEOPLE),
    "its shade": Derived(match("which", {"thing": "shade", "thing2": "shade2"}), COLOURS),
    "job of asked": Derived(match("asked", {"hero": "job", "friend": "job2"}), tuple(JOBS)),
}

write = Writer(DOMAINS, DERIVED, FORMS)

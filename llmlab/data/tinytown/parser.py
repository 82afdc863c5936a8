"""Reads Tinytown text back into decisions, and proves that a grammar gives each text in one way only.

`parse` finds *all* derivations of a text, from the text and the grammar alone. `ambiguity` decides for a
whole grammar whether any text has two. It forgets what the grammar remembers: a word that must repeat an
earlier one may be any word of its kind. What is left is a finite automaton over tokens whose paths include
one for each derivation (a `Pick` says its value on the spot, an `Alt` forks the path). Two derivations of one
string would be two paths with the same tokens, and the automaton walked against itself finds those. No such
pair in the wider set means none in the grammar, hence p(string) = p(its derivation), exactly. The only memory
that is kept is labels: what an `Alt` remembered, and what a `By` was led by, which must not change afterwards.

Simplifications:
1. The test is one-sided: it may suspect a grammar in which only memory tells two derivations apart.
   The kit's grammars are written so that it does not.
2. `parse` tries the options in turn; texts here are short and the first wrong word ends an attempt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from llmlab.data.tinytown.grammar import Alt, By, Derivation, Env, Lit, Node, Pick, Ref, Seq


def parses(node: Node, text: str, env: Env | None = None) -> Iterator[Derivation]:
    """Every derivation of exactly `text` from `node`, given the decisions in `env`."""
    for at, nats, made, memory in _beginnings(node, text, env):
        if at == len(text):
            yield Derivation(text, nats, made, memory)


def parse(node: Node, text: str, env: Env | None = None) -> Derivation:
    """The derivation of `text`. ValueError: there is none, or more than one."""
    found = list(parses(node, text, env))
    if len(found) != 1:
        raise ValueError(f"{len(found)} derivations instead of one: {text[:60]!r}")
    return found[0]


def _beginnings(node: Node, text: str, env: Env | None = None) -> Iterator[tuple[int, float, tuple, Env]]:
    """Each way to derive a beginning of `text`: (where it ends, nats, decisions, memory)."""
    pile: Any = (node, None)
    todo: list[tuple[Any, int, float, tuple, Env]] = [(pile, 0, 0.0, (), dict(env or {}))]
    while todo:
        pile, at, nats, made, env = todo.pop()
        while pile is not None:
            top, pile = pile
            if isinstance(top, (Lit, Ref)):
                said = top.say(env)
                if not text.startswith(said, at):
                    break
                at += len(said)
            elif isinstance(top, (Seq, By)):
                pile = _push(top.next(env), pile)
            else:
                values, weights = top.offers(env)
                for index, value in enumerate(values):
                    if isinstance(top, Pick) and not text.startswith(top.form(value), at):
                        continue
                    p = 1.0 / len(values) if weights is None else weights[index]
                    memory, after = top.take(value, env)
                    todo.append((_push(after, pile), at, nats - math.log(p), (*made, value), memory))
                break
        else:
            yield at, nats, made, env


def _push(nodes: tuple[Node, ...], pile: Any) -> Any:
    for node in reversed(nodes):
        pile = (node, pile)
    return pile


def tokens(text: str) -> list[str]:
    """Words and single other characters; joined, they give the text again."""
    return re.findall(r"\w+|\W", text)


class State:
    """A place in the automaton: edges (words, next place), and in how many ways the text may end here."""

    def __init__(self, edges: Iterable[Edge] = (), ends: int = 0) -> None:
        self.edges, self.ends = list(edges), ends


Edge = tuple[frozenset[str], State]
Said = tuple[frozenset[str], Any] | None  # what was said last, and all before it
Follow = Callable[[Env], State]  # what comes after, given the labels known so far


def automaton(node: Node) -> State:
    """Where the automaton of `node` starts: it accepts each of its texts, and others."""
    return _state(node, {}, _once(lambda known: State(ends=1)), _values(node))


def ambiguity(node: Node) -> str | None:
    """A text that the automaton of `node` accepts along two paths, or None: then `node` is unambiguous.

    Raises ValueError where two words touch: joined, they would be cut into other tokens than apart.
    """
    start = automaton(node)
    todo: list[tuple[State, State, Said]] = [(start, start, None)]
    seen = {(id(start), id(start))}
    while todo:
        left, right, said = todo.pop()
        if left.ends > 1 if left is right else left.ends and right.ends:
            return _text(said)
        for (words, here), (others, there), parted in _steps(left, right):
            step = (words & others, said)
            if here is there and parted:
                return _text(_end(here, step))  # two paths meet again: whatever follows has both
            if (id(here), id(there)) not in seen:
                seen.add((id(here), id(there)))
                todo.append((here, there, step))
                if here is there and _touch(words, here):
                    raise ValueError(f"two words touch: {_text(_end(here, step))!r}")
    return None


def _steps(left: State, right: State) -> Iterator[tuple[Edge, Edge, bool]]:
    """Pairs of edges on which two walkers can say the same, and whether they have parted by then."""
    for i, edge in enumerate(left.edges):
        if left is right:
            yield edge, edge, False
        for other in right.edges[i + 1 if left is right else 0 :]:
            if not edge[0].isdisjoint(other[0]):
                yield edge, other, True


def _end(place: State, said: Said) -> Said:
    """One way to go on to the end of a text."""
    while not place.ends:
        words, place = place.edges[0]
        said = (words, said)
    return said


def _touch(words: frozenset[str], place: State) -> bool:
    """Whether a word of the edge runs into a word of the next one."""
    follow = (word for words_, _ in place.edges for word in words_)
    return any(word[0].isalnum() for word in words) and any(word[0].isalnum() for word in follow)


def vocabulary(node: Node) -> set[str]:
    """Every token that some text of `node` may hold."""
    values, todo = _values(node), [node]
    words: set[str] = set()
    seen: set[int] = set()
    while todo:
        top = todo.pop()
        if id(top) in seen:
            continue
        seen.add(id(top))
        todo.extend(_children(top))
        if isinstance(top, (Lit, Ref, Pick)):
            words.update(t for text in _texts(top, {}, values) for t in tokens(text))
    return words


def _text(said: Said) -> str:
    words: list[str] = []
    while said is not None:
        choice, said = said
        words.append(min(choice))
    return "".join(reversed(words))


def _once(follow: Follow) -> Follow:
    """Builds each continuation once for each set of known labels, so that paths join again."""
    built: dict[tuple, State] = {}

    def state(known: Env) -> State:
        key = tuple(sorted(known.items(), key=lambda item: item[0]))
        if key not in built:
            built[key] = follow(known)
        return built[key]

    return state


def _before(part: Node, follow: Follow, values: dict[str, list], known: Env) -> State:
    return _state(part, known, follow, values)


def _state(node: Node, known: Env, follow: Follow, values: dict[str, list]) -> State:
    if isinstance(node, Seq):
        for part in reversed(node.parts[1:]):
            follow = _once(partial(_before, part, follow, values))
        return _state(node.parts[0], known, follow, values) if node.parts else follow(known)
    if isinstance(node, By) and node.name in known:
        return _state(node.cases[known[node.name]], known, follow, values)
    if isinstance(node, (By, Alt)):
        # from here on the label is known, also where it follows from other decisions
        cases = [
            _state(case, known if node.name is None else {**known, node.name: label}, follow, values)
            for label, case in node.cases.items()
        ]
        return State((edge for case in cases for edge in case.edges), sum(case.ends for case in cases))
    return _chains(_texts(node, known, values), follow(known))


def _texts(node: Lit | Ref | Pick, known: Env, values: dict[str, list]) -> list[str]:
    """What a saying node can say, whatever was decided before."""
    if isinstance(node, Lit):
        return [node.text]
    if isinstance(node, Ref):
        told = [known[node.name]] if node.name in known else values[node.name]
        return list(dict.fromkeys(node.form(value) for value in told))  # many people, one "she"
    return [node.form(value) for value in node.domain.values]  # kept apart: each is a decision


def _chains(texts: list[str], end: State) -> State:
    """Paths that spell the texts: one shared edge for all single words, else a path for each text."""
    split = [tokens(text) for text in texts]
    if len(texts) == 1 and not split[0]:
        return end
    if all(len(words) == 1 for words in split) and len({*texts}) == len(texts):
        return State([(frozenset(texts), end)])
    edges = []
    for words in split:
        state = end
        for word in reversed(words[1:]):
            state = State([(frozenset([word]), state)])
        edges.append((frozenset(words[:1]), state))
    return State(edges)


def _children(node: Node) -> list[Node]:
    if isinstance(node, Seq):
        return list(node.parts)
    return list(node.cases.values()) if isinstance(node, (Alt, By)) else []


def _values(node: Node) -> dict[str, list]:
    """Every value that each name can have anywhere in the grammar."""
    values: dict[str, list] = {}
    todo, seen = [node], set()
    while todo:
        top = todo.pop()
        if id(top) in seen:
            continue
        seen.add(id(top))
        todo.extend(_children(top))
        if isinstance(top, Pick):
            values.setdefault(top.name, []).extend(top.domain.values)
        elif isinstance(top, Ref) and top.derived:
            values.setdefault(top.name, []).extend(top.derived.values)
    return {name: list(dict.fromkeys(found)) for name, found in values.items()}

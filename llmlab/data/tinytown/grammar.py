"""A weighted grammar that remembers what it said, and so knows the exact probability of each text it writes.

A text is written from left to right by a pile of nodes. A node either *says* a string that follows from what
was decided before (`Lit`, `Ref`), or *decides* something (`Pick`, `Alt`), or only leads on (`Seq`, `By`).
A decision is drawn from a list that is computed from the earlier ones, so "another person", "one of the two
things just named" and "a street of this split" are ordinary choices with ordinary probabilities, and

    -ln p(derivation) = sum over its decisions of -ln p(decision | earlier decisions).

`sample` writes a text, `flow` adds up the entropy; `parser.py` reads a text back and proves that a text has
one derivation only, which makes -ln p(derivation) the -ln p of the *string*.

Simplifications:
1. No recursion: a text has a bounded number of decisions, so every sum below is finite and exact.
2. `flow` follows one representative of each class of options that the rest of the grammar treats alike
   (`Domain.trait`); tests repeat it with other representatives and against plain enumeration.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Env = dict[str, Any]  # what was decided so far, by name
Form = Callable[[Any], str]  # how a value is written: "kite", "a kite", "she"


@dataclass(frozen=True, eq=False)
class Domain:
    """The values a name can take, those allowed after earlier decisions, and what makes them differ.

    `trait(value, env)` is all that later decisions may depend on, but for "another one than this".
    """

    values: Sequence[Any]
    allow: Callable[[Env], Sequence[Any]] | None = None
    trait: Callable[[Any, Env], Any] = field(default=lambda value, env: None)

    def options(self, env: Env) -> Sequence[Any]:
        """The values that may be drawn now, each as likely as the others."""
        return self.values if self.allow is None else self.allow(env)


@dataclass(frozen=True, eq=False)
class Derived:
    """A value that follows from earlier decisions, such as who did not win; `values` bounds it."""

    compute: Callable[[Env], Any]
    values: Sequence[Any]


@dataclass(frozen=True, eq=False)
class Lit:
    """Says fixed text."""

    text: str

    def say(self, env: Env) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class Ref:
    """Says the value of a name decided earlier, or one that follows from such."""

    name: str
    form: Form
    derived: Derived | None = None

    def say(self, env: Env) -> str:
        return self.form(env[self.name] if self.derived is None else self.derived.compute(env))


class Decision:
    """A node that offers values; `take` gives the new memory and the nodes that come next."""

    name: str | None

    def offers(self, env: Env) -> tuple[Sequence[Any], Sequence[float] | None]:
        """Values on offer and their probabilities (None: all equal)."""
        raise NotImplementedError

    def take(self, value: Any, env: Env) -> tuple[Env, tuple[Node, ...]]:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Pick(Decision):
    """Draws a value from a domain, remembers it and says it on the spot."""

    name: str
    form: Form
    domain: Domain

    def offers(self, env: Env) -> tuple[Sequence[Any], None]:
        return self.domain.options(env), None

    def take(self, value: Any, env: Env) -> tuple[Env, tuple[Node, ...]]:
        return {**env, self.name: value}, (Lit(self.form(value)),)


@dataclass(frozen=True, eq=False)
class Alt(Decision):
    """Goes on with one of several nodes; with a name it remembers the label of the one taken."""

    cases: Mapping[Any, Node]
    weights: Sequence[float] | None = None
    name: str | None = None

    def offers(self, env: Env) -> tuple[Sequence[Any], Sequence[float] | None]:
        return tuple(self.cases), self.weights

    def take(self, value: Any, env: Env) -> tuple[Env, tuple[Node, ...]]:
        return (env if self.name is None else {**env, self.name: value}), (self.cases[value],)


@dataclass(frozen=True, eq=False)
class By:
    """Goes on with the node that belongs to a label, remembered or derived: no decision."""

    name: str
    cases: Mapping[Any, Node]
    derived: Derived | None = None

    def next(self, env: Env) -> tuple[Node, ...]:
        return (self.cases[env[self.name] if self.derived is None else self.derived.compute(env)],)


@dataclass(frozen=True, eq=False)
class Seq:
    """One node after the other."""

    parts: tuple[Node, ...]

    def next(self, env: Env) -> tuple[Node, ...]:
        return self.parts


Node = Lit | Ref | Pick | Alt | By | Seq


@dataclass(frozen=True)
class Derivation:
    """A text, its -ln p in nats, the decisions that made it, in order, and what they left in memory."""

    text: str
    nats: float
    decisions: tuple[Any, ...]
    env: Env


def sample(node: Node, rng: random.Random, env: Env | None = None) -> Derivation:
    """One text drawn from `node`, given the decisions in `env`.

    Only `rng.random()` is used: its stream is the same in every Python version.
    """
    env, pile, said, made, nats = dict(env or {}), [node], [], [], 0.0
    while pile:
        top = pile.pop()
        if isinstance(top, (Lit, Ref)):
            said.append(top.say(env))
        elif isinstance(top, (Seq, By)):
            pile.extend(reversed(top.next(env)))
        else:
            values, weights = top.offers(env)
            index, p = _draw(len(values), weights, rng.random())
            made.append(values[index])
            nats -= math.log(p)
            env, after = top.take(values[index], env)
            pile.extend(reversed(after))
    return Derivation("".join(said), nats, tuple(made), env)


def _draw(count: int, weights: Sequence[float] | None, u: float) -> tuple[int, float]:
    """Index drawn by u in [0, 1) and its probability."""
    if weights is None:
        return min(int(u * count), count - 1), 1.0 / count
    for index, p in enumerate(weights):
        u -= p
        if u < 0:
            return index, p
    return len(weights) - 1, weights[-1]


States = dict[tuple, tuple[float, Env]]  # traits so far -> (probability, one memory that has them)


def first(values: Sequence[Any]) -> Any:
    """The first of some values: who stands for a class of options."""
    return values[0]


def flow(node: Node, states: States, representative: Callable[[Sequence[Any]], Any] = first) -> tuple[float, States]:
    """Exact expected entropy (nats) of `node` from a distribution over memories, and where it leads.

    Memories with equal traits are merged, so the cost is that of the few traits, not of the many texts.
    """
    if isinstance(node, (Lit, Ref)):
        return 0.0, states
    if isinstance(node, Seq):
        total = 0.0
        for part in node.parts:
            nats, states = flow(part, states, representative)
            total += nats
        return total, states
    total = 0.0
    after: States = {}
    for traits, (mass, env) in states.items():
        if isinstance(node, By):
            branches, nats = [(1.0, traits, env, node.next(env))], 0.0
        else:
            branches, nats = _branches(node, traits, env, representative)
        total += mass * nats
        for p, key, memory, nodes in branches:
            below, out = flow(Seq(nodes), {key: (mass * p, memory)}, representative)
            total += below
            for k, (m, e) in out.items():
                after[k] = (after[k][0] + m if k in after else m, e)
    return total, after


def _branches(node: Pick | Alt, traits: tuple, env: Env, representative: Callable) -> tuple[list, float]:
    """One branch (p, traits, memory, nodes) for each class of options that differ for what follows."""
    values, weights = node.offers(env)
    probabilities = weights or [1.0 / len(values)] * len(values)
    nats = -sum(p * math.log(p) for p in probabilities)
    classes: dict[Any, list] = {}
    for value, p in zip(values, probabilities, strict=True):
        trait = node.domain.trait(value, env) if isinstance(node, Pick) else value
        classes.setdefault(trait, []).append((value, p))
    branches = []
    for trait, members in classes.items():
        memory, nodes = node.take(representative([value for value, _ in members]), env)
        key = traits if node.name is None or trait is None else (*traits, (node.name, trait))
        branches.append((sum(p for _, p in members), key, memory, nodes))
    return branches, nats


def entropy(node: Node, env: Env, given: Node | None = None, **options: Any) -> float:
    """Exact entropy of `node` in nats; with `given`, the entropy of `node` once `given` has been written."""
    states: States = {(): (1.0, env)}
    if given is not None:
        _, states = flow(given, states, **options)
    return flow(node, states, **options)[0]


@dataclass(frozen=True, eq=False)
class Writer:
    """Turns templates into nodes: `<name>` decides and says, `{name}` says again, `|form` tells how."""

    domains: Mapping[str, Domain]
    derived: Mapping[str, Derived]
    forms: Mapping[str, Form]

    def __call__(self, template: str | Node) -> Node:
        """The node of a template (a node passes through). KeyError: an unknown name or form."""
        if not isinstance(template, str):
            return template
        parts = [self._part(piece) for piece in re.split(r"(<[^<>]+>|\{[^{}]+\})", template) if piece]
        return parts[0] if len(parts) == 1 else Seq(tuple(parts))

    def _part(self, piece: str) -> Node:
        if piece[0] not in "<{":
            return Lit(piece)
        name, _, form = piece[1:-1].partition("|")
        if piece[0] == "<":
            return Pick(name, self.forms[form], self.domains[name])
        if name not in self.domains and name not in self.derived:
            raise KeyError(f"{piece}: no such name in the world")
        return Ref(name, self.forms[form], self.derived.get(name))

    def seq(self, *parts: str | Node) -> Seq:
        """Templates one after the other."""
        return Seq(tuple(self(part) for part in parts))

    def one(self, *cases: str | Node) -> Alt:
        """One of the templates, all as likely."""
        return Alt({index: self(case) for index, case in enumerate(cases)})

    def maybe(self, p: float, case: str | Node) -> Alt:
        """The template with probability p, else nothing."""
        return Alt({True: self(case), False: Lit("")}, (p, 1.0 - p))

    def fork(self, name: str, cases: Mapping[Any, str | Node], weights: Sequence[float] | None = None) -> Alt:
        """One of the templates, its label remembered under `name`."""
        return Alt({label: self(case) for label, case in cases.items()}, weights, name)

    def by(self, name: str, cases: Mapping[Any, str | Node]) -> By:
        """The template that belongs to the label that `name` stands for."""
        return By(name, {label: self(case) for label, case in cases.items()}, self.derived.get(name))

"""The probabilities are exact: one derivation a text, and the entropy that enumeration and chance give."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest

from llmlab.data.tinytown import TASKS, entropy, grammar, parser, read, tinytown
from llmlab.data.tinytown.grammar import Derived, Domain, Lit, Node, Seq, Writer, sample
from llmlab.data.tinytown.parser import ambiguity, parse, parses

SPLIT = {"split": "train"}


def every(node: Node, env: dict) -> Iterator[tuple[str, float]]:
    """Every text of a small grammar with its probability, by brute force."""
    todo = [((node,), "", 1.0, env)]
    while todo:
        pile, said, p, env = todo.pop()
        if not pile:
            yield said, p
            continue
        top, rest = pile[0], pile[1:]
        if isinstance(top, (grammar.Lit, grammar.Ref)):
            todo.append((rest, said + top.say(env), p, env))
        elif isinstance(top, (grammar.Seq, grammar.By)):
            todo.append(((*top.next(env), *rest), said, p, env))
        else:
            values, weights = top.offers(env)
            for index, value in enumerate(values):
                after, nodes = top.take(value, env)
                q = 1 / len(values) if weights is None else weights[index]
                todo.append(((*nodes, *rest), said, p * q, after))


def small_world() -> tuple[Writer, Node]:
    """Draws without replacement, classes that matter later, forks, weights and derived names."""
    people = ("Ann", "Bea", "Cid", "Dan", "Eve")
    write = Writer(
        {
            "a": Domain(people, trait=lambda name, env: name in ("Ann", "Eve")),
            "b": Domain(people, lambda env: [name for name in people if name != env["a"]]),
            "n": Domain(range(3, 6), trait=lambda n, env: n),
            "k": Domain(range(6), lambda env: range(1, env["n"])),
            "pal": Domain(people, lambda env: people[:2] if env["a"] in ("Ann", "Eve") else people[:4]),
        },
        {"left": Derived(lambda env: env["n"] - env["k"], range(6))},
        {"": str},
    )
    node = write.seq(
        "<a> met <b>.",
        write.fork("mood", {"glad": " They had <n> plums", "sad": " There were <n> stones"}, (0.7, 0.3)),
        " and lost <k>, so {left} were left.",
        write.maybe(0.25, " Then <pal> came."),
        write.by("mood", {"glad": write.one(" Hurrah, {b}!", " Good, {a}!"), "sad": " Alas."}),
    )
    return write, node


def test_a_small_grammar_agrees_with_enumeration():
    _, node = small_world()
    texts = list(every(node, {}))
    assert len({text for text, _ in texts}) == len(texts)
    assert sum(p for _, p in texts) == pytest.approx(1, abs=1e-12)
    assert ambiguity(node) is None
    assert grammar.entropy(node, {}) == pytest.approx(-sum(p * math.log(p) for _, p in texts), abs=1e-10)
    for text, p in texts[::97]:
        (found,) = parses(node, text)
        assert found.nats == pytest.approx(-math.log(p), abs=1e-12)


def test_samples_come_as_often_as_they_should():
    _, node = small_world()
    rng, count = random.Random(0), 4000
    seen = [sample(node, rng).text for _ in range(count)]
    for word, p in (("plums", 0.7), ("Then", 0.25), ("Ann met", 0.2), ("Alas", 0.3)):
        share = sum(word in text for text in seen) / count
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / count)


@pytest.mark.parametrize(
    "cases",
    [
        ("<a> ran.", "Ann ran."),
        ("<a> and <b> ran.", "<b> and <a> ran."),
        ("A fox", "A fox"),
        ("", ""),
    ],
)
def test_an_ambiguous_grammar_is_found(cases):
    names = Domain(("Ann", "Bea", "Cid"))
    write = Writer({"a": names, "b": names}, {}, {"": str})
    node = Seq((Lit("Once "), write.one(*cases), Lit("!")))
    text = ambiguity(node)
    assert text is not None
    assert len(list(parses(node, text))) == 2
    with pytest.raises(ValueError, match="2 derivations instead of one"):
        parse(node, text)


def test_words_that_touch_are_an_error():
    write, _ = small_world()
    with pytest.raises(ValueError, match="two words touch"):
        ambiguity(write("<a>s ran"))


def test_tinytown_is_unambiguous():
    assert ambiguity(TASKS["mix"].told) is None  # running text: holds every task, prompt and response
    for name, task in TASKS.items():
        if name != "mix":
            assert ambiguity(task.given) is None, name


def paths(start: parser.State, text: str) -> int:
    """In how many ways the automaton accepts a text."""
    here = {start: 1}
    for token in parser.tokens(text):
        after: dict[parser.State, int] = {}
        for state, ways in here.items():
            for words, place in state.edges:
                if token in words:
                    after[place] = after.get(place, 0) + ways
        here = after
    return sum(ways * state.ends for state, ways in here.items())


def test_the_automaton_of_the_proof_has_one_path_for_each_text():
    start, rng = parser.automaton(TASKS["mix"].told), random.Random(4)
    for _ in range(500):
        text = sample(TASKS["mix"].told, rng, SPLIT).text
        assert paths(start, text) == 1
        assert paths(start, text + " And then?") == 0


@pytest.mark.parametrize("task", TASKS)
def test_texts_parse_to_the_one_derivation_that_made_them(task):
    rng, process = random.Random(task), TASKS[task]
    for _ in range(150 if task == "mix" else 400):
        given = sample(process.given, rng, SPLIT)
        told = sample(process.told, rng, given.env)
        for node, made, env in ((process.given, given, SPLIT), (process.told, told, given.env)):
            (found,) = parses(node, made.text, env)
            assert found.decisions == made.decisions
            assert found.nats == pytest.approx(made.nats, abs=1e-9)


def test_rows_carry_the_nats_that_their_text_alone_gives():
    for task in ("documents", "instructions", "revisions"):
        corpus = tinytown(task, size=300, seed=5)
        for split, rows in corpus.splits.items():
            for row in rows:
                texts = [row[column] for column in TASKS[task].columns]
                assert read(task, texts, split)[1].nats == pytest.approx(row["nats"], abs=1e-9)


def test_an_altered_word_is_another_text_or_none():
    rng, words = random.Random(1), sorted(parser.vocabulary(TASKS["documents"].told))
    for row in tinytown("documents", size=200)["train"]:
        pieces = parser.tokens(row["text"])
        at = rng.choice([i for i, piece in enumerate(pieces) if piece.isalpha()])
        pieces[at] = rng.choice([word for word in words if word != pieces[at]])
        original = read("documents", [row["text"]])[1]
        for found in parses(TASKS["documents"].told, "".join(pieces), SPLIT):
            assert found.decisions != original.decisions


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_entropy_is_the_mean_of_nats(task, split):
    process, rng = TASKS[task], random.Random(f"{task} {split}")
    if task == "preferences":
        assert entropy(task, split) == 0.0
        return
    nats = []
    for _ in range(800):
        env = sample(process.given, rng, {"split": split}).env
        nats.append(sample(process.told, rng, env).nats)
    mean = sum(nats) / len(nats)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in nats) / len(nats))
    assert abs(entropy(task, split) - mean) <= 4 * deviation / math.sqrt(len(nats)) + 1e-9


@pytest.mark.parametrize("task", ["documents", "instructions", "red_team", "revisions"])
def test_whoever_stands_for_a_class_the_entropy_is_the_same(task):
    rng, process = random.Random(2), TASKS[task]
    other = grammar.entropy(process.told, SPLIT, given=process.given, representative=rng.choice)
    assert other == pytest.approx(entropy(task), abs=1e-9)


def test_a_held_out_document_costs_less_by_what_the_deal_tells():
    difference = entropy("documents", "train") - entropy("documents", "validation")
    assert difference == pytest.approx(math.log(8), abs=1e-9)

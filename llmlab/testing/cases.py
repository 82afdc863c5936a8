"""Any techniques together as runs, with small data and briefly trained bases to try them on.

Nothing here names a technique: a new plugin file, also one in a folder that LLMLAB_PLUGINS names, is in the matrix by
itself. Techniques keep their default knobs.

1. An objective is tried on each family that it works on, with the first alternative of columns that it asks for.
2. The base has learnt sentences of four words, each one of eight; what is then learnt is one of them. So every
   objective has up to ln 8 nats a word to gain, and small changes of the base are enough for most of it. What is
   rejected is any other words, so of eight a base cannot tell which was chosen, and of one it can learn it: ln 2 nats.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import combinations, permutations
from typing import Any

import torch
from torch import Tensor

from llmlab import Run, Training
from llmlab.catalogue import techniques
from llmlab.model import ModelConfig, Transformer
from llmlab.seeds import generator
from llmlab.surgery import named_parameters, pass_on
from llmlab.technique import hookimpl, implemented, needs_of, technique
from llmlab.tokenizer import Tokenizer
from llmlab.training import recommended_rate

SLOTS = tuple(
    words.split()
    for words in (
        "Ada Ben Chi Dan Eve Flo Gus Hal",
        "has sees likes finds sells buys hides wants",
        "red blue green old new small big odd",
        "apple boat candle drum engine fork globe horn",
    )
)
SIZES: dict[str, Any] = dict(vocab_size=340, context=48, layers=2, heads=2, width=32, mlp_width=64, dropout=0.05)
STEPS = 40
RATE = 1e-2  # what so small a model learns with, unless its techniques ask for more


@technique(kind="extra")
class Brevity:
    """A reward for objectives that ask for one: the shorter, the better."""

    @hookimpl
    def score(self, responses: Any) -> Tensor:
        return -responses.mask.sum(-1).float()


@dataclass(frozen=True)
class Case:
    """An objective on a model of one family, with what is added to it. Techniques are classes."""

    objective: type
    family: str
    added: tuple[type, ...] = ()
    several: bool = False  # the objective works on other families, too

    @property
    def techniques(self) -> tuple[type, ...]:
        return (self.objective, *self.added)

    @property
    def company(self) -> tuple[type, ...]:
        """What the objective cannot do without."""
        present = {hook for cls in self.techniques for hook in implemented(cls)}
        missing = [hook for cls in self.techniques for hook in needs_of(cls).needs if hook not in present]
        assert set(missing) <= {"score"}, f"the composition tests have nothing that implements {missing[0]}"
        return (Brevity,) if missing else ()

    @property
    def adaptations(self) -> tuple[type, ...]:
        return tuple(cls for cls in self.added if needs_of(cls).kind == "adaptation")

    def alone(self, *added: type) -> Case:
        return replace(self, added=added)

    def __str__(self) -> str:
        names = [needs_of(cls).name for cls in self.techniques]
        return "+".join([f"{names[0]} ({self.family})" if self.several else names[0], *names[1:]])


def known(*kinds: str) -> list[type]:
    """The catalogue's techniques of some kinds."""
    return [entry.cls for entry in techniques().values() if entry.cls and entry.needs.kind in kinds]


def bare() -> list[Case]:
    """Every objective alone, on every family it works on."""
    return [
        Case(cls, family, several=len(needs_of(cls).families) > 1)
        for cls in known("objective")
        for family in needs_of(cls).families
    ]


def additions(case: Case) -> list[type]:
    """The adaptations and extras that work on the case's family."""
    return [cls for cls in known("adaptation") + known("extra") if case.family in needs_of(cls).families]


def cases(case: Case, adaptations: int, extras: int) -> list[Case]:
    """A bare case with every set of so many adaptations and so many extras, but for extras that it refuses."""
    kinds = {kind: [cls for cls in additions(case) if needs_of(cls).kind == kind] for kind in ("adaptation", "extra")}
    welcome = [cls for cls in kinds["extra"] if not extras or not refusal(case.alone(cls))]
    return [
        case.alone(*some, *more)
        for some in combinations(kinds["adaptation"], adaptations)
        for more in combinations(welcome, extras)
    ]


def usual() -> list[Case]:
    """Every objective alone, with every adaptation, every extra and every pair of adaptations.

    On a family that is not the first it works on: alone and with every adaptation.
    """
    found: list[Case] = []
    for case in bare():
        first = case.family == needs_of(case.objective).families[0]
        sizes = [(0, 0), (1, 0), *([(2, 0), (0, 1)] if first else [])]
        found += [each for size in sizes for each in cases(case, *size)]
    return found


def every() -> list[Case]:
    """Every set of adaptations, every adaptation with every extra, and all at once; for every objective and family."""
    found: dict[Case, None] = {}
    for case in bare():
        most = len([cls for cls in additions(case) if needs_of(cls).kind == "adaptation"])
        extras = len(cases(case, 0, 1))
        sizes = [*((n, 0) for n in range(most + 1)), (0, 1), (1, 1), (most, extras)]
        found |= {each: None for size in sizes for each in cases(case, *size)}
    return list(found)


@cache
def refusal(case: Case) -> str:
    """What a run says that cannot work, when it is made or, of its batches, before its first step; else nothing."""
    model = Transformer(config(case.family))
    model.tokenizer = tokenizer(case.family)
    try:
        make(case, steps=1, model=model).fit(progress=False)
    except ValueError as error:
        return str(error)
    return ""


# -- data --------------------------------------------------------------------------------------------------------


def rows(columns: Sequence[str], words: int, count: int = 96) -> list[dict[str, str]]:
    """Rows with any columns a corpus may have; each word is one of the first `words` of its slot."""
    draw, other = random.Random(words), random.Random(words + 1)
    made = []
    for _ in range(count):
        said = [draw.choice(slot[:words]) for slot in SLOTS]
        unsaid = [other.choice([word for word in slot if word != w]) for slot, w in zip(SLOTS, said, strict=True)]
        made.append(_row(columns, said, unsaid))
    return made


def _row(columns: Sequence[str], words: list[str], others: list[str]) -> dict[str, str]:
    first, last, whole = " ".join(words[:2]), " " + " ".join(words[2:]), " ".join(words)
    full = {"prompt": first, "response": last, "source": first, "target": last[1:], "text": whole, "label": words[3]}
    full |= {"chosen": last, "rejected": " " + " ".join(others[2:])}
    return {column: full[column] for column in columns}


def columns(objective: type) -> list[str]:
    """The first alternative of columns that the objective asks for."""
    return next(iter(needs_of(objective).columns), "text").split()


def data(objective: type, words: int = 1, validation: bool = True) -> dict[str, list[dict[str, str]]]:
    """Rows that an objective can learn from, by split; each word is one of the first `words` of its slot."""
    made = rows(columns(objective), words)
    return {"train": made[:64]} | ({"validation": made[64:]} if validation else {})


@cache
def tokenizer(family: str) -> Tokenizer:
    """One for the sentences, of the kind that the family usually has."""
    texts = [row["text"] for row in rows(["text"], 8)]
    return Tokenizer.train(texts, SIZES["vocab_size"], "wordpiece" if family == "encoder" else "bpe")


# -- bases and runs ----------------------------------------------------------------------------------------------


def config(family: str) -> ModelConfig:
    """A tiny model's shape."""
    return replace(ModelConfig.usual(family), **SIZES)


@cache
def base(objective: type, family: str) -> Transformer:
    """A model that has learnt the sentences with eight words a slot, by the objective itself where it can."""
    if needs_of(objective).on_policy:
        return next(base(c.objective, family) for c in bare() if c.family == family and not _samples(c))
    training = Training(steps=200, batch_size=16, learning_rate=RATE)
    company = [cls() for cls in Case(objective, family).company]
    given = data(objective, 8, validation=False)
    made = Run([objective(), *company], given, config=config(family), tokenizer=tokenizer(family), training=training)
    return made.fit(progress=False).model


def _samples(case: Case) -> bool:
    return needs_of(case.objective).on_policy


def make(case: Case, order: Sequence[type] | None = None, **more: Any) -> Run:
    """The run of a case, its techniques in any order. Without `validation` it measures nothing."""
    model, given = more.pop("model", None), more.pop("data", None)
    given = given or data(case.objective, validation=more.pop("validation", False))
    used = [cls() for cls in (*(order or case.techniques), *case.company)]
    rate = max(RATE, recommended_rate(used))
    training = Training(**{"steps": STEPS, "batch_size": 8, "learning_rate": rate, "evaluate_every": STEPS, **more})
    return Run(
        used,
        given,
        model=model or base(case.objective, case.family),
        training=training,
        seed=7,
    )


def orders(case: Case, most: int = 120) -> Iterator[tuple[type, ...]]:
    """Every order of the techniques; of more than `most`, as many drawn by lot, the first among them."""
    every = list(permutations(case.techniques))
    yield from every if len(every) <= most else [every[0], *random.Random(0).sample(every[1:], most - 1)]


class Watch:
    """An onlooker: which parameters a gradient has reached that is not all zero."""

    def __init__(self) -> None:
        self.reached: set[str] = set()

    @hookimpl
    def after_step(self, run: Run) -> None:
        self.reached |= {n for n, p in named_parameters(run.model) if p.grad is not None and p.grad.any()}


class Trained:
    """A case's run after its steps, with what it started from and what reached its parameters."""

    def __init__(self, case: Case) -> None:
        self.case, self.base = case, base(case.objective, case.family)
        self.given, self.adapted = copies(self.base), set(self.base.adaptations)  # before anything is done with it
        self.run, watch = make(case, validation=True), Watch()
        self.run.hooks.manager.register(watch)
        self.trains = {n for n, p in named_parameters(self.run.model) if p.requires_grad}
        self.run.fit(progress=False)
        self.reached = watch.reached

    @property
    def model(self) -> Transformer:
        return self.run.model

    @cached_property
    def fall(self) -> float:
        """How far the validation loss fell."""
        return self.run.evaluations[0]["loss"] - self.run.evaluations[-1]["loss"]


trained = cache(Trained)


def unknown(case: Case) -> list[Any]:
    """Instances of the case's techniques that the catalogue does not know, to be given when a file is read."""
    found = {entry.cls for entry in techniques().values()}
    return [cls() for cls in (*case.techniques, *case.company) if cls not in found]


# -- looking at models -------------------------------------------------------------------------------------------


def copies(model: Transformer) -> dict[str, Tensor]:
    """Every parameter as it is now, by plain name."""
    return {name: p.detach().clone() for name, p in named_parameters(model)}


def prompts(model: Transformer, lengths: Sequence[int] = (9, 4, 6)) -> list[list[int]]:
    """Fixed random ids, a row for each length."""
    draw = generator(3, "prompts")
    return [torch.randint(0, model.config.vocab_size, (n,), generator=draw).tolist() for n in lengths]


def logits(model: Transformer) -> Tensor:
    """What the model says of fixed random ids, of which the last of a row are padding: (3, 9, V)."""
    draw = generator(3, "logits")
    tokens, source = (torch.randint(0, model.config.vocab_size, (3, n), generator=draw) for n in (9, 7))
    ends = torch.tensor([[9], [5], [8]])
    inputs = {"tokens": tokens, "keep": torch.arange(9) < ends}
    if model.config.family == "encoder-decoder":
        inputs |= {"source": source, "source_keep": torch.arange(7) < ends - 2}
    model.eval()
    with torch.no_grad():
        return model.head(model(**inputs).hidden) * inputs["keep"][..., None]


def stirred(model: Transformer, by: float = 0.1) -> Transformer:
    """The model with seeded noise on all it was given and all that trains, so that no zero start hides a mistake."""
    copy = pass_on(model)
    added = {name for adaptation in model.adaptations.values() for name in adaptation["parameters"]}
    for name, p in named_parameters(copy):
        if name in added or p.requires_grad:
            p.data = p.data + by * torch.randn(p.shape, generator=generator(5, name))
    return copy.eval()

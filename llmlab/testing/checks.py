"""What must hold of every combination, a function each; an AssertionError says what does not."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmlab import Run, detach, merge
from llmlab.batch import Chunk
from llmlab.generate import generate
from llmlab.model import Transformer
from llmlab.pretrained import load_model, save_model
from llmlab.surgery import named_parameters, pass_on
from llmlab.technique import needs_of
from llmlab.testing.cases import (
    Case,
    Trained,
    copies,
    data,
    logits,
    make,
    orders,
    prompts,
    stirred,
    trained,
    unknown,
)

FALL = 0.3  # nats: what training gains at least, where so much is to be had
SHARE = 0.7  # of what the objective gains alone, and of what the weaker of a pair does, is gained at least
UNUSED = ("pooler.",)  # what only a classifier reads
writing: Any = importlib.import_module("llmlab.generate")  # the package's attribute of this name is the function


# -- training ----------------------------------------------------------------------------------------------------


def check_losses(done: Trained) -> None:
    """Finite at every step; where the loss is measured, it falls, and as far as the parts make it fall alone.

    How much there is to learn from answers that a technique gives is its own affair: of what the model itself wrote
    perhaps little, and another adaptation makes it write something else.
    """
    losses = [row["loss"] for row in done.run.history]
    assert all(map(math.isfinite, losses)), losses
    if needs_of(done.case.objective).on_policy:
        return
    alone = [trained(done.case.alone(cls)).fall for cls in done.case.added] if len(done.case.added) > 1 else []
    there = trained(done.case.alone()).fall if done.case.added else math.inf  # to learn for the objective by itself
    wanted = max(min(FALL, SHARE * there), SHARE * min(alone, default=0))
    if any(needs_of(cls).gives for cls in done.case.added):
        wanted = 0
    assert done.fall > wanted, f"the loss fell by {done.fall:.3f}, less than {wanted:.3f}"


def check_untouched(done: Trained) -> None:
    """Bit for bit: the model given, and in the trained one whatever does not train."""
    now, given = copies(done.model), copies(done.base)
    assert given.keys() == done.given.keys(), "the given model has other parameters now"
    assert not [n for n, p in given.items() if not torch.equal(p, done.given[n])], "the given model changed"
    assert set(done.base.adaptations) == done.adapted, "the given model was adapted"
    moved = [n for n, p in done.given.items() if n not in done.trains and not torch.equal(now[n], p)]
    assert not moved, f"frozen parameters changed: {moved}"
    start = copies(make(done.case).model)
    moved = [n for n, p in start.items() if n not in done.trains and not torch.equal(now[n], p)]
    assert not moved, f"frozen parameters changed: {moved}"


def check_reached(done: Trained) -> None:
    """A gradient reaches all that trains, and nothing else."""
    missed = {n for n in done.trains - done.reached if not n.startswith(_unused(done.run))}
    assert not missed, f"no gradient ever reached {sorted(missed)}"
    assert done.reached <= done.trains, f"frozen, but with a gradient: {sorted(done.reached - done.trains)}"


def _unused(run: Run) -> tuple[str, ...]:
    """The beginnings of the names of what the objective does not read: without labels, the vocabulary's head."""
    if any(needs_of(t).on_policy for t in run.techniques):
        return UNUSED
    rows = run.rows("train")
    batch = run.make_batches(Chunk([rows[i] for i in range(min(2, len(rows)))], [0, 1], 0, 0))[0]
    return UNUSED if "labels" in batch.targets else (*UNUSED, "head.")


def check_counts(done: Trained) -> None:
    """A set of adaptations trains what each of them trains alone; extras add what they brought."""
    case = done.case
    parts = [trained(case.alone(cls)) for cls in case.adaptations] or [trained(case.alone())]
    names = set().union(*(part.trains for part in parts))
    for cls in set(case.added) - set(case.adaptations):
        extra = trained(case.alone(cls))
        names |= extra.trains - extra.given.keys()
    assert done.trains == names, f"trains {sorted(done.trains ^ names)} more or less than the parts alone"
    sizes = {n: p.numel() for part in parts for n, p in named_parameters(part.model)}
    assert done.run.parameters().trainable == sum(sizes.get(n, 0) for n in names) + sum(
        p.numel() for n, p in named_parameters(done.model) if n in names and n not in sizes
    )


def check_bf16(case: Case) -> None:
    """A few steps in bfloat16: finite, what trains moves, and the first loss is that of float32 to bf16's digits."""
    run, exact = make(case, steps=3, precision="bf16"), make(case, steps=1)
    before = copies(run.model)
    run.fit(progress=False), exact.fit(progress=False)
    assert all(math.isfinite(row["loss"]) for row in run.history)
    unused = _unused(run)
    mine = [(n, p) for n, p in named_parameters(run.model) if p.requires_grad and not n.startswith(unused)]
    still = [n for n, p in mine if torch.equal(p, before[n]) or not p.isfinite().all()]
    assert not still, f"does not move: {still}"
    first, wanted = run.history[0]["loss"], exact.history[0]["loss"]
    assert abs(first - wanted) < 0.05 * max(1, abs(wanted)), f"bf16 starts at {first}, fp32 at {wanted}"


def check_long_texts(case: Case) -> None:
    """Texts far longer than the context are cut to what fits, whatever an adaptation puts before them."""
    short = data(case.objective, words=8)
    long = {split: [{c: f"{text} " * 30 for c, text in row.items()} for row in rows] for split, rows in short.items()}
    run = make(case, steps=1, data=long).fit(progress=False)
    assert all(map(math.isfinite, [run.history[-1]["loss"], *run.evaluations[-1].values()]))


# -- order -------------------------------------------------------------------------------------------------------


def check_orders(case: Case, steps: int = 2, most: int = 120, model: Transformer | None = None) -> None:
    """In every order of the list: equal parameters and logits at the start, and after training; bit for bit."""
    wanted: dict[str, Any] = {}
    for order in orders(case, most):
        run = make(case, order, steps=steps, model=model)
        found = {"start": copies(run.model), "logits at the start": logits(stirred(run.model))}
        run.fit(progress=False)
        found |= {"end": copies(run.model), "logits at the end": logits(run.model)}
        wanted = wanted or found
        names = ", ".join(cls.__name__ for cls in order)
        for when, value in found.items():
            assert _equal(value, wanted[when]), f"{when} differ in the order {names}"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


# -- writing -----------------------------------------------------------------------------------------------------


def check_writing(model: Transformer, new: int = 6) -> None:
    """With the cache, by its shortcut and without, the same tokens and logits as without; alone as beside others."""
    asked = prompts(model)
    wanted, scores = _written(model, asked, new, cached=False)
    for shortcut in (True, False):
        found, close = _written(model, asked, new, cached=True, shortcut=shortcut)
        assert found == wanted, f"cached {found} is not {wanted}"
        torch.testing.assert_close(close, scores, rtol=1e-4, atol=1e-4)
    for i, prompt in enumerate(asked):
        alone, close = _written(model, [prompt], new, cached=True)
        assert alone == wanted[i : i + 1], f"row {i} alone writes {alone}, among others {wanted[i]}"
        torch.testing.assert_close(close, scores[:, i : i + 1], rtol=1e-4, atol=1e-4)


def _written(
    model: Transformer, asked: Sequence[list[int]], new: int, cached: bool, shortcut: bool = True
) -> tuple[list[list[int]], Tensor]:
    """Greedy answers, and the logits behind each token: (new, B, V)."""
    with _listening(shortcut) as seen:
        got = generate(model, asked, max_new_tokens=new, temperature=0, bos=1, cached=cached)
    return got.rows(), torch.stack(seen)


@contextmanager
def _listening(shortcut: bool) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    choose, short = writing.choose, writing.shortcut

    def heard(scores: Tensor, *rest: Any) -> Tensor:
        seen.append(scores)
        return choose(scores, *rest)

    writing.choose = heard
    if not shortcut:
        writing.shortcut = lambda *given: None
    try:
        yield seen
    finally:
        writing.choose, writing.shortcut = choose, short


# -- keeping -----------------------------------------------------------------------------------------------------


def check_resume(case: Case, folder: Path, at: int = 2, steps: int = 4) -> None:
    """Saved at a step and loaded, the run goes on bit for bit as the one that never stopped."""
    whole = make(case, steps=steps).fit(progress=False)
    make(case, steps=steps).fit(at, progress=False).save(folder)
    torch.rand(5)  # what others draw in between changes nothing
    loaded = Run.load(folder, data(case.objective, validation=False), unknown(case))
    assert loaded.steps == at
    assert _trains(loaded) == _trains(whole), "the loaded run trains something else"
    loaded.fit(progress=False)
    assert loaded.history == whole.history, "the losses differ"
    assert _equal(copies(loaded.model), copies(whole.model)), "the weights differ"


def _trains(run: Run) -> set[str]:
    return {n for n, p in named_parameters(run.model) if p.requires_grad}


def check_saved(case: Case, model: Transformer, folder: Path) -> None:
    """The model read back has the same parameters and gives the same logits, and can be taken apart as before."""
    save_model(model, folder)
    read = load_model(folder, unknown(case))
    assert _equal(copies(read), copies(model)), "the weights differ"
    assert torch.equal(logits(read), logits(model)), "the logits differ"
    assert read.adaptations.keys() == model.adaptations.keys()
    assert torch.equal(logits(detach(read)), logits(detach(model))), "taken apart, they differ"


# -- taking off --------------------------------------------------------------------------------------------------


def check_detach(done: Trained) -> None:
    """Without its adaptations the model is the base, bit for bit; without one, what the others left of it."""
    now, objective = copies(done.model), done.run.techniques[0]
    votes = {n: done.run.hooks.only(objective, "trains", name=n, parameter=p) for n, p in named_parameters(done.model)}
    asked = {n for n, said in votes.items() if any(said)}  # the objective's own
    assert torch.equal(logits(detach(done.model)), logits(done.base)), "detached, it is not the base"
    for cls in done.case.adaptations:
        alone, name = trained(done.case.alone(cls)), needs_of(cls).name
        others = set().union(*(trained(done.case.alone(c)).trains for c in done.case.adaptations if c is not cls))
        left = dict(named_parameters(detach(done.model, name)))
        mine = {n for n in alone.trains if n not in trained(done.case.alone()).trains}
        assert left.keys() == now.keys() - mine, f"detaching {name} leaves or takes {left.keys() ^ (now.keys() - mine)}"
        for n, p in left.items():
            if n in asked:
                assert torch.equal(p, now[n]), f"detaching {name} changed {n}"
            elif n not in others:
                assert torch.equal(p, done.given.get(n, now[n])), f"detaching {name} does not undo {n}"
            elif n not in alone.trains:
                assert torch.equal(p, now[n]), f"detaching {name} changed {n}"
    assert _equal(copies(done.model), now), "detaching changed the model it was asked for"


def check_merge(done: Trained) -> None:
    """Folded in, the same function; or, for an adaptation that is no change of a weight, one line that says so."""
    wanted, exact = logits(done.model), pass_on(done.model).double()
    able = [name for name in map(_name, done.case.adaptations) if _merges(done.model, name)]
    for name in able:
        merged = merge(done.model, name)
        torch.testing.assert_close(logits(merged), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(logits(merge(exact, name)), logits(exact), rtol=0, atol=1e-10)
        assert _count(merged) <= _count(done.model), f"merging {name} left more parameters than there were"
    alone = [trained(done.case.alone(cls)).model for cls in done.case.adaptations]
    if all(_merges(model) for model in alone):  # a change built around another may need that one merged with it
        merged, left = merge(done.model), set().union(*(merge(model).adaptations for model in alone))
        torch.testing.assert_close(logits(merged), wanted, rtol=1e-5, atol=1e-5)
        assert set(merged.adaptations) == left, f"merged together, {merged.adaptations.keys() ^ left} differ from alone"
    else:
        assert not _merges(done.model), "not all can be merged, yet together they are"
    assert torch.equal(logits(done.model), wanted), "merging changed the model it was asked for"


def _name(cls: type) -> str:
    return needs_of(cls).name


def _count(model: Transformer) -> int:
    return sum(p.numel() for p in model.parameters())


def _merges(model: Transformer, *name: str) -> bool:
    """Whether it can be folded in; if not, its ValueError is one line that names it."""
    try:
        merge(model, *name)
    except ValueError as error:
        _one_line(error, *name)
        return False
    return True


def _one_line(error: ValueError, name: str = "") -> None:
    assert "\n" not in str(error) and name in str(error).lower(), f"not one line that names {name}: {error}"

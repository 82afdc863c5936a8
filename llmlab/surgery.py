"""Changing a model: wrap its layers, pass it on without copying what is frozen, take wrappers off again.

A wrapper keeps what it wraps as `.base`. Paths and parameter names leave `.base` out, so a layer has one
name whatever is wrapped around it, and techniques find the same layers in any order.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from .seeds import seeded

if TYPE_CHECKING:
    from .model import Transformer

Targets = Sequence[str] | Callable[[str, nn.Module], bool]


class Wrapper(nn.Module):
    """A module around another one, kept as `base`.

    `order` says how far out it sits: 0 for what changes a layer's weight, 1 for what changes its output.
    Equal orders go by class name, the earlier inside. So the list of techniques may come in any order. Ask
    `unwrap(self)` for the layer's own sizes and weight; what other wrappers add to them is not in there.
    """

    order = 1
    owner = ""  # the technique that put it there
    temporary = False  # True: it belongs to one run's training; a model that is passed on or saved goes without
    before_text = False  # True: it only puts entries before the text, so nothing for tokens whose cache holds these
    merged_knobs: ClassVar[dict[str, Any]] = {}  # knobs of the technique that `merged` changes, where it stays

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def merged(self) -> nn.Module:
        """The base with this change folded into a new weight. ValueError where that is impossible.

        What no weight can hold may stay a wrapper, in its plainest form: `merge` works on a copy of the model, so this
        one may change and return itself.
        """
        raise ValueError(f"{self.owner or type(self).__name__} cannot be merged: what it adds is no change of a weight")

    def linear(self) -> nn.Linear:
        """The linear layer that `merged` folds into. ValueError where another technique's change stays in between."""
        if not isinstance(self.base, nn.Linear):
            inner = getattr(self.base, "owner", "") or type(self.base).__name__
            raise ValueError(f"{self.owner} cannot be merged without {inner}, which it is built around: merge both")
        return self.base


def linear_layer(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer of these numbers, (d_out, d_in) and (d_out,); none is drawn."""
    new = nn.Linear(weight.size(1), weight.size(0), bias=bias is not None, device="meta")
    new.weight = nn.Parameter(weight)
    if bias is not None:
        new.bias = nn.Parameter(bias)
    return new


def unwrap(module: nn.Module) -> nn.Module:
    """The layer inside any number of wrappers: ask it for sizes."""
    while isinstance(module, Wrapper):
        module = module.base
    return module


def plain(name: str) -> str:
    """A path or parameter name without the wrappers' `.base`."""
    return ".".join(part for part in name.split(".") if part != "base")


def named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter once, under its plain name."""
    for name, parameter in model.named_parameters():
        yield plain(name), parameter


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All that makes a model what it is: its parameters, and the numbers that modules keep in persistent buffers."""
    yield from named_parameters(model)
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield plain(f"{path}.{name}"), buffer


def named_layers(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module, str]]:
    """(plain path, the module that holds it, attribute) of every layer; what wrappers added is passed over."""
    for attribute, child in list(model.named_children()):
        here = f"{path}.{attribute}" if path else attribute
        yield here, model, attribute
        yield from named_layers(unwrap(child), here)


def replace_modules(model: nn.Module, targets: Targets, wrap: Callable[[nn.Module], Wrapper]) -> list[str]:
    """Put `wrap(layer)` around each layer whose path ends with one of `targets`; return the paths.

    `targets` are names such as "query" or "kv.value", or a function of (path, layer). `wrap` is given the
    bare layer. ValueError names a target that matches nothing.
    """
    found: dict[str, tuple[nn.Module, str]] = {}
    missed = [] if callable(targets) else list(targets)
    for path, holder, attribute in named_layers(model):
        layer = unwrap(getattr(holder, attribute))
        if callable(targets):
            hit = targets(path, layer)
        else:
            hits = [t for t in targets if path == t or path.endswith("." + t)]
            missed = [t for t in missed if t not in hits]
            hit = bool(hits)
        if hit:
            found[path] = (holder, attribute)
    if missed:
        raise ValueError(f"no layer is named {missed[0]!r}: {_suggest(missed[0], model)}")
    if not found:
        raise ValueError("no layer of this model matches the targets given")
    for holder, attribute in found.values():
        _insert(holder, attribute, wrap)
    return list(found)


def _insert(holder: nn.Module, attribute: str, wrap: Callable[[nn.Module], Wrapper]) -> None:
    new = wrap(unwrap(getattr(holder, attribute)))
    module = getattr(holder, attribute)
    while isinstance(module, Wrapper) and _rank(module) > _rank(new):
        holder, attribute, module = module, "base", module.base
    new.base = module
    setattr(holder, attribute, new)


def _rank(wrapper: Wrapper) -> tuple[int, str]:
    return wrapper.order, type(wrapper).__name__


def _suggest(target: str, model: nn.Module) -> str:
    """The nearest name, or the layers with a matrix that this model has most of: those of its blocks."""
    layers = [(path.rsplit(".", 1)[-1], unwrap(getattr(holder, name))) for path, holder, name in named_layers(model)]
    layers = [(name, layer) for name, layer in layers if not name.isdigit()]
    near = difflib.get_close_matches(target.rsplit(".", 1)[-1], sorted({name for name, _ in layers}), 1)
    if near:
        return f"did you mean {near[0]!r}?"
    matrices = Counter(n for n, m in layers if isinstance(w := getattr(m, "weight", None), Tensor) and w.dim() == 2)
    return f"this model has {', '.join(name for name, _ in matrices.most_common(6))} and others"


def adapt(
    model: Transformer, name: str, knobs: dict[str, Any], strict: bool, seed: int, build: Callable[[], Any]
) -> None:
    """Let the technique `name` change `model` through `build`, and note what it added in `model.adaptations`.

    A technique met again continues the parameters it has; with other knobs that is a ValueError if `strict`.
    New weights are drawn from (seed, name), so they do not depend on the order of techniques.
    """
    met = model.adaptations.get(name)
    if met is not None:
        if strict and met["knobs"] != knobs:
            had, asked = (", ".join(f"{k}={v!r}" for k, v in d.items()) for d in (met["knobs"], knobs))
            raise ValueError(
                f"the model already carries {name}({had}), this run asks {name}({asked}): "
                "use the same knobs, or start from merge(model) or detach(model)"
            )
        return
    before = {n for n, _ in named_parameters(model)}
    old = {id(m) for m in model.modules()}
    with seeded(seed, "adapt", name):
        build()
    for module in model.modules():
        if isinstance(module, Wrapper) and id(module) not in old:
            module.owner = name
    added = [n for n, _ in named_parameters(model) if n not in before]
    if added:
        model.adaptations[name] = {"knobs": knobs, "parameters": added, "originals": {}}


def keep_originals(model: Transformer, name: str, knobs: dict[str, Any], trained: Callable[[str], bool]) -> None:
    """Note what the model's own tensors are before the adaptation `name` trains them, so that `detach` undoes it.

    `trained(parameter name)` says which it trains. Nothing is copied here: `own` then clones what trains, and the
    originals go on sharing the storage of the model that was passed on.
    """
    added = {p for a in model.adaptations.values() for p in a["parameters"]}
    entry = model.adaptations.get(name, {"knobs": knobs, "parameters": [], "originals": {}})
    for n, parameter in named_parameters(model):
        if parameter.requires_grad and n not in added and n not in entry["originals"] and trained(n):
            entry["originals"][n] = parameter.data
            model.adaptations[name], model.lent = entry, True


def pass_on(model: Transformer) -> Transformer:
    """A model of its own structure that shares every tensor with `model`; `own` clones those that will train."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.data, requires_grad=p.requires_grad) for p in model.parameters()}
    memo |= {id(b): b for b in model.buffers()}
    memo |= {id(t): t for a in model.adaptations.values() for t in a["originals"].values()}
    memo[id(model.tokenizer)] = model.tokenizer
    copy = deepcopy(model, memo)
    _remove(copy, lambda wrapper: wrapper.base if wrapper.temporary else None)
    model.lent = copy.lent = True
    return copy


def own(model: Transformer) -> None:
    """Give the trainable tensors of a model that shares storage with another a storage of their own."""
    if model.lent:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.clone()
        model.lent = False


def merge(model: Transformer, *names: str) -> Transformer:
    """A model with the weight updates of `names` (default: of every adaptation) folded in, W + ΔW.

    Tensors of the model's own that they trained stay as they are: they are weights already. The given model does not
    change. ValueError where a technique is no change of a weight.
    """
    return _strip(model, names, lambda wrapper: wrapper.merged())


def detach(model: Transformer, *names: str) -> Transformer:
    """A model without the wrappers of `names` (default: of every adaptation); the layers inside are as they were.

    So are the tensors of the model's own that they trained. One that several adaptations trained goes back to what
    it was before the first of those that are taken off.
    """
    return _strip(model, names, lambda wrapper: wrapper.base, undo=True)


def _strip(
    model: Transformer, names: Sequence[str], inside: Callable[[Wrapper], nn.Module], undo: bool = False
) -> Transformer:
    unknown = [n for n in names if n not in model.adaptations]
    if unknown:
        raise ValueError(f"the model carries no {unknown[0]!r}: it has {', '.join(model.adaptations) or 'nothing'}")
    copy = pass_on(model)
    off = [a for n, a in copy.adaptations.items() if not names or n in names]
    _remove(copy, lambda wrapper: inside(wrapper) if not names or wrapper.owner in names else None)
    left = dict(named_parameters(copy))
    for adaptation in reversed(off) if undo else ():  # the earliest has the last word
        for n, original in adaptation["originals"].items():
            left[n].data = original.to(left[n])
    _untie(copy)
    for name, adaptation in copy.adaptations.items():
        if not names or name in names:
            adaptation["originals"] = {}
            _note_what_stays(copy, name, left)
    stays = lambda a: not any(a is o for o in off) or any(p in left for p in a["parameters"])  # noqa: E731
    copy.adaptations = {n: a for n, a in copy.adaptations.items() if stays(a)}
    return copy


def _note_what_stays(model: Transformer, name: str, parameters: dict[str, nn.Parameter]) -> None:
    """Bring the entry of an adaptation up to date, whose wrappers may have another form now."""
    entry = model.adaptations[name]
    stay = [m for m in model.modules() if isinstance(m, Wrapper) and m.owner == name]
    theirs = {id(p) for m in stay for n, p in m.named_parameters() if not n.startswith("base.")}
    entry["parameters"] = [n for n, p in parameters.items() if n in entry["parameters"] or id(p) in theirs]
    for m in stay:
        entry["knobs"] = entry["knobs"] | m.merged_knobs


def _remove(model: nn.Module, replacement: Callable[[Wrapper], nn.Module | None]) -> None:
    """Put `replacement(wrapper)` in the place of each wrapper for which it is not None, from the inside out."""
    for _, holder, attribute in list(named_layers(model)):
        around: list[tuple[nn.Module, str]] = []
        while isinstance(module := getattr(holder, attribute), Wrapper):
            around.append((holder, attribute))
            holder, attribute = module, "base"
        for outer, name in reversed(around):  # of two changes of one weight the outer one meets the inner one's result
            if (instead := replacement(getattr(outer, name))) is not None:
                setattr(outer, name, instead)


def _untie(model: Transformer) -> None:
    """After a merge into a tied head its weight is its own: say so in the config, and tie nothing by halves."""
    stacks = [stack for stack in (model.encoder, model.decoder) if stack is not None]
    table = stacks[0].embeddings.token.weight
    if model.config.tied and unwrap(model.head.output).weight is not table:
        model.config = replace(model.config, tied=False)
        for stack in stacks[1:]:
            stack.embeddings.token.weight = nn.Parameter(table.data.clone(), requires_grad=table.requires_grad)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Clones of the trainable tensors by plain name: all that a reference policy needs to keep."""
    return {name: p.detach().clone() for name, p in named_parameters(model) if p.requires_grad}


@contextmanager
def swapped(model: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """Run with other values of some parameters, such as a snapshot's, then put back what was there."""
    parameters = {name: p for name, p in named_parameters(model) if name in tensors}
    kept = {name: p.data for name, p in parameters.items()}
    try:
        for name, p in parameters.items():
            p.data = tensors[name]
        yield
    finally:
        for name, p in parameters.items():
            p.data = kept[name]

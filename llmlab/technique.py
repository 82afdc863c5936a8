"""What a technique is: a dataclass whose fields are its knobs and whose marked methods are its hooks.

@technique(kind="adaptation")
class Scale:
    '''Multiply every MLP by one trained number.'''
    start: float = knob(1.0, "Value before training.", low=0.0, high=2.0)

    @hookimpl
    def trains(self, name, parameter):
        return name.endswith(".scale")
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, dataclass_transform

from .hookspecs import API
from .hookspecs import hookimpl as hookimpl

if TYPE_CHECKING:
    from .model import ModelConfig

Kind = Literal["objective", "adaptation", "extra"]
Family = Literal["decoder", "encoder", "encoder-decoder"]
FAMILIES: tuple[Family, ...] = ("decoder", "encoder", "encoder-decoder")

T = TypeVar("T")
Objection = Callable[[Any, "ModelConfig"], str | None]  # (instance, the model's shape) -> why they do not fit, or None
Gives = Callable[[Any], str]  # instance -> the columns that its `examples` adds to every row, separated by a space


class Technique(Protocol):
    """Any object with hooks; those made by `technique` also carry what data and company they need."""

    llmlab: ClassVar[Needs]


@dataclass(frozen=True)
class Needs:
    """What a technique says of itself, so that a run can refuse and a panel can grey out before work starts."""

    name: str
    kind: Kind = "extra"
    columns: tuple[str, ...] = ()  # alternatives, each the names of columns separated by a space
    families: tuple[Family, ...] = FAMILIES
    needs: tuple[str, ...] = ()  # hooks that some other technique of the run must implement
    learning_rate: float | None = None
    base: bool = False  # True: it is meant to start from a trained model
    on_policy: bool = False  # True: the model writes its own batches, so they make no validation loss
    dropout: bool = True  # False: the model that trains stays in eval mode
    objection: Objection | None = None
    gives: Gives | None = None
    labels: bool | None = (
        None  # of an objective, False: it predicts no tokens; of another, True: it needs one that does
    )

    def suits(self, columns: Sequence[str]) -> bool:
        """Whether data with these columns has what it needs."""
        return not self.columns or any(set(wanted.split()) <= set(columns) for wanted in self.columns)


def knob(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] | None = None,
    log: bool = False,
) -> Any:
    """A hyper-parameter: a dataclass field with one sentence of help and the values it may take.

    `low` and `high` are inclusive bounds, `choices` an exhaustive list, `log` asks for a
    logarithmic slider. The same field becomes a command-line option, a widget and documentation.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "log": log}
    if isinstance(default, list | dict | set):
        raise TypeError(f"the default of a knob must be immutable, not {default!r}")
    return field(default=default, metadata=metadata)


def knobs(thing: Any) -> dict[str, Field[Any]]:
    """The knobs of a technique (class or instance), or of `Training`, by name."""
    return {f.name: f for f in fields(thing) if "help" in f.metadata}


def values(thing: Any) -> dict[str, Any]:
    """The present value of every knob of an instance."""
    return {name: getattr(thing, name) for name in knobs(thing)}


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Open the message of an error about a knob's value with the knob's name.

    with naming("PPO.gold"):
        judge = reward_function(self.gold)
    """
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise type(error)(f"{what}: {error}") from None


@dataclass_transform(eq_default=False)
def checked(cls: type[T]) -> type[T]:
    """Make `cls` a dataclass that checks its knobs: "LoRA.rank = 0: must be 1 to 64".

    Equality stays identity, since pluggy needs hashable plugins. A misspelt knob names the nearest one.
    """
    inner = cls.__dict__.get("__post_init__")

    def __post_init__(self: Any) -> None:
        for name, f in knobs(self).items():
            complaint = _complaint(getattr(self, name), f)
            if complaint:
                raise ValueError(f"{cls.__name__}.{name} = {getattr(self, name)!r}: must be {complaint}")
            if isinstance(f.default, float) and isinstance(getattr(self, name), int):
                setattr(self, name, float(getattr(self, name)))
        if inner:
            inner(self)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    made: Any = dataclass(eq=False)(cls)
    init = made.__init__

    def __init__(self: Any, *args: Any, **given: Any) -> None:
        names = [f.name for f in fields(made) if f.init]
        for unknown in (n for n in given if n not in names):
            near = difflib.get_close_matches(unknown, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names) or 'none'}"
            raise TypeError(f"{cls.__name__} has no knob {unknown!r}: {hint}")
        init(self, *args, **given)

    __init__.__wrapped__ = init  # type: ignore[attr-defined]  # keeps the signature for help()
    made.__init__ = __init__
    checked_class: type[T] = made
    return checked_class


def _complaint(value: Any, f: Field[Any]) -> str | None:
    """What `value` must be to suit the knob `f`, or None if it does."""
    low, high, choices = f.metadata["low"], f.metadata["high"], f.metadata["choices"]
    if value is None:
        return None if f.default is None else _range(f) or "given"
    if choices is not None:
        return None if value in choices else "one of " + ", ".join(map(str, choices))
    sample = f.default if f.default is not None and f.default is not MISSING else low
    if isinstance(sample, bool):
        return None if isinstance(value, bool) else "True or False"
    if isinstance(sample, int | float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        whole = isinstance(sample, int)
        if not number or (whole and not isinstance(value, int)):
            return f"a {'whole ' if whole else ''}number {_range(f)}".strip()
        inside = math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
        return None if inside else _range(f) or "finite"
    if isinstance(sample, str) and not isinstance(value, str):
        return "text"
    return None


def _range(f: Field[Any]) -> str:
    low, high = f.metadata["low"], f.metadata["high"]
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}" if high is not None else ""


@dataclass_transform(eq_default=False)
def technique(
    *,
    kind: Kind = "extra",
    columns: str | Sequence[str] = (),
    families: Sequence[Family] = FAMILIES,
    needs: Sequence[str] = (),
    learning_rate: float | None = None,
    base: bool = False,
    on_policy: bool = False,
    dropout: bool = True,
    objection: Objection | None = None,
    gives: Gives | None = None,
    labels: bool | None = None,
    api: int = API,
) -> Callable[[type[T]], type[T]]:
    """Make a class a technique.

    `kind`: "objective" owns batches and loss, "adaptation" chooses what trains, "extra" is anything else.
    `columns`: the columns its examples need, alternatives as a list: ["prompt response", "text label"].
    `families`: the model families it works on. `needs`: hooks another technique must implement, such as
    "score". `learning_rate`: what a run uses when its user names none. `base`: it wants a trained model.
    `on_policy`: its batches are written by the model that trains. `dropout`: False where that model is compared with
    what it was, and always where it wrote: with dropout it would be another model, so it trains in eval mode.
    `objection`: a function of an instance and a `ModelConfig` that says in half a sentence, after the technique's name,
    why the two cannot work together, or returns None. `gives`: a function of an instance that names the columns it adds
    to the data's, so that a technique which needs them does not refuse the data. `labels`: False for an objective whose
    batches hold no `labels`, since it predicts no tokens; True for another technique that cannot do without them.
    `api`: version of the hooks it was written for; a later one than this kit's is refused with a ValueError.
    """
    if api > API:
        raise ValueError(f"written for version {api} of the hooks; this llmlab has {API}: upgrade llmlab")

    def make(cls: type[T]) -> type[T]:
        made = checked(cls)
        wanted = (columns,) if isinstance(columns, str) else tuple(columns)
        made.llmlab = Needs(  # type: ignore[attr-defined]
            cls.__name__.lower(),
            kind,
            wanted,
            tuple(families),
            tuple(needs),
            learning_rate,
            base,
            on_policy,
            dropout and not on_policy,
            objection,
            gives,
            labels,
        )
        return made

    return make


def needs_of(plugin: Any) -> Needs:
    """What `plugin` said of itself; a plain object with hooks is an extra that needs nothing."""
    declared = getattr(plugin, "llmlab", None)
    return declared if isinstance(declared, Needs) else Needs(type(plugin).__name__.lower())


def implemented(plugin: Any) -> Iterator[str]:
    """Names of the hooks that `plugin` (class or instance) implements."""
    for attribute in dir(plugin):
        if hasattr(getattr(plugin, attribute, None), f"{hookimpl.project_name}_impl"):
            yield attribute

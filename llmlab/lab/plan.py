"""One run as data: what the panel's toggles say, which can be built, questioned before any work, and written as Python.

1. The code of a run that starts from an earlier run of the panel repeats that run first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..catalogue import find
from ..catalogue import techniques as catalogue
from ..data import Corpus
from ..data.memory import IN_MEMORY
from ..hooks import Hooks, check_company
from ..technique import knobs, needs_of, values
from ..training import Training
from .memory import called, plain, short

if TYPE_CHECKING:
    from ..model import ModelConfig, Transformer
    from ..run import Run
    from ..tokenizer import Tokenizer

Knobs = Mapping[str, Any]
SCRATCH, LAST = "scratch", "last"  # where a run may start, beside models by name


@dataclass(frozen=True)
class Plan:
    """The choices of one run. `data` is what to write, `corpus` what to read; so with `start` and `model`."""

    techniques: Mapping[type, Knobs]
    data: Any
    corpus: Corpus
    start: str
    model: Transformer | None
    training: Knobs
    seed: int = 0
    config: Any = None
    tokenizer: Tokenizer | None = None
    parent: Plan | None = None  # the run it starts from
    stopped: int | None = None  # the step at which it was stopped

    def build(self) -> Run:
        """The run, ready to be fitted. ValueError or TypeError in one line for what cannot work."""
        from ..run import Run

        made = [cls(**values) for cls, values in self.techniques.items()]
        scratch: dict[str, Any] = {} if self.model is not None else {"tokenizer": self.tokenizer, "config": self.config}
        training = Training(**self.training)
        return Run(made, self.corpus, model=self.model, training=training, seed=self.seed, **scratch)

    @property
    def title(self) -> str:
        """Such as "SFT + LoRA"."""
        return " + ".join(cls.__name__ for cls in self.techniques)

    @property
    def name(self) -> str:
        """Such as "SFT + LoRA(rank=4)": with the knobs that differ from their defaults."""
        return " + ".join(_call(cls.__name__, cls, v, short).removesuffix("()") for cls, v in self.techniques.items())

    def reason(self, cls: type) -> str | None:
        """Why `cls`, one of the techniques, cannot be in this run; None if it can. Nothing is built to find out."""
        try:
            made = [each(**values) for each, values in self.techniques.items()]
            hooks = Hooks(made)
            asked, others = [t for t in made if type(t) is cls], [t for t in made if type(t) is not cls]
            given = [column for t in others if (gives := needs_of(t).gives) for column in gives(t).split()]
            columns = dict.fromkeys([*self.corpus.columns, *given])
            check_company(asked, hooks, self.family, list(columns), self.shape)
        except (ValueError, TypeError) as error:
            return str(error)
        return None

    def problem(self) -> str | None:
        """Why this run cannot start, or None."""
        return next(filter(None, map(self.reason, self.techniques)), None)

    @property
    def shape(self) -> ModelConfig | None:
        """The model's, or what an untrained one is configured to be; None for the usual one, which suits them all."""
        if self.model is not None:
            return self.model.config
        if not isinstance(self.config, str):
            return self.config
        from ..model import ModelConfig

        return ModelConfig.preset(self.config)

    @property
    def family(self) -> str:
        """The model's; an untrained one will be as configured, else what the objective prefers."""
        if self.shape is not None:
            return self.shape.family
        wanted = next((cls.llmlab.families for cls in self.techniques if needs_of(cls).kind == "objective"), ())  # type: ignore[attr-defined]
        return "decoder" if "decoder" in wanted or not wanted else wanted[0]

    # -- as a run file -----------------------------------------------------------------------------------------

    def recipe(self) -> dict[str, Any]:
        """The run.json that `llmlab run FILE` repeats; ValueError names what a file cannot hold, and the way out."""
        from ..runfolder import describe

        known = catalogue()
        for cls in self.techniques:
            name = needs_of(cls).name
            if name not in known or known[name].cls is not cls:
                raise ValueError(
                    f"a run file names techniques that llmlab finds, and {cls.__name__} is not among them: put it in "
                    "a file of its own, in a folder that LLMLAB_PLUGINS names"
                )
        for knob, value in self._in_memory():
            raise ValueError(
                f"a run file holds numbers and text, and {knob} is {called(value)} in memory: give it what a file can "
                "name, such as the folder of a saved run"
            )
        if self.corpus.name == IN_MEMORY:
            raise ValueError("a run file names its data, and these rows are in memory: write them to a file first")
        made = [cls(**values) for cls, values in self.techniques.items()]
        return describe(made, self.corpus, self._model(), Training(**self.training), self.seed)

    def _model(self) -> dict[str, Any]:
        if self.model is not None:
            source = getattr(self.model, "source", None)
            if not source:
                raise ValueError(
                    "a run file names its start, and this model is in memory: save its run to a folder first"
                )
            return {"from": str(source)}
        return {} if self.shape is None else {"config": self.shape.to_dict()}

    def _in_memory(self) -> list[tuple[str, Any]]:
        """The knobs that no text can hold, as "Scorer.by", with their values."""
        return [
            (f"{cls.__name__}.{k}", v)
            for cls, given in self.techniques.items()
            for k, v in given.items()
            if not plain(v)
        ]

    # -- as Python ---------------------------------------------------------------------------------------------

    def code(self) -> str:
        """The Python that equals the toggles, ready to run in an empty notebook."""
        chain = self._chain()
        body = "\n\n".join(plan._statement(i, len(chain)) for i, plan in enumerate(chain))
        names = [n for n in ("ModelConfig", "Run", "Training", "corpus", "load") if f"{n}(" in body]
        lines = [f"from llmlab import {', '.join(names)}"]
        used = {cls: None for plan in chain for cls in plan.techniques}
        lines += sorted(f"from {cls.__module__} import {cls.__name__}" for cls in used if cls.__module__ != "__main__")
        return "\n".join(lines) + f"\n\n{body}\n"

    def _chain(self) -> list[Plan]:
        return [*(self.parent._chain() if self.parent else []), self]

    def _statement(self, i: int, total: int) -> str:
        name = "run" if total == 1 else f"run_{i + 1}"
        made = ", ".join(_call(cls.__name__, cls, values) for cls, values in self.techniques.items())
        told = "; ".join(f"{knob}: {called(value)} in memory" for knob, value in self._in_memory())
        lines = [f"{name} = Run(", f"    [{made}]," + (f"  # {told}" if told else ""), f"    data={self._data()}"]
        if self.parent:
            lines.append(f"    model=run_{i}.model,")
        elif self.model is not None:
            source = getattr(self.model, "source", None)
            lines.append(f'    model=load("{source}"),' if source else f"    model=...,  # {self.start}")
        elif self.config is not None:
            lines.append(f"    config={self.config!r},")
        lines += [f"    training={_call('Training', Training, self.training)},", f"    seed={self.seed},", ")"]
        fit = f"fit(steps={self.stopped})  # it was stopped there" if self.stopped else "fit()"
        return "\n".join([*lines, f"{name}.{fit}"])

    def _data(self) -> str:
        if isinstance(self.data, str):
            return f'corpus("{self.data}"),'
        if self.corpus.name == IN_MEMORY:
            return "...,  # your own rows"
        options = "".join(f", {k}={v!r}" for k, v in self.corpus.options.items())
        return f'corpus("{self.corpus.name}"{options}),'


def _write(value: Any) -> str:
    """A value as Python; what no text can hold is left to be filled in, and a comment says with what."""
    return repr(value) if plain(value) else "..."


def _call(name: str, cls: type, given: Knobs, write: Callable[[Any], str] = _write) -> str:
    """`LoRA(rank=4)`: what differs from the defaults."""
    known = knobs(cls)
    changed = (f"{k}={write(v)}" for k, v in given.items() if k not in known or _differs(v, known[k].default))
    return f"{name}({', '.join(changed)})"


def _differs(value: Any, default: Any) -> bool:
    return value is not default and not (plain(value) and plain(default) and value == default)


def resolve(technique: Any) -> tuple[type, dict[str, Any]]:
    """The class of a technique given by name, as a class or as an instance, and the values its knobs begin with.

    ValueError names the nearest one.
    """
    made = find(technique)() if isinstance(technique, str) else technique
    made = made() if isinstance(made, type) and hasattr(made, "llmlab") else made
    if isinstance(made, type) or not hasattr(made, "llmlab"):
        raise TypeError(f"a technique is offered by its name, class or instance, not as {technique!r}")
    return type(made), values(made)

"""What a panel offers and what is chosen: techniques, knobs, data, start and training; no run and no widget."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..data import Corpus
from ..data.memory import IN_MEMORY, as_corpus
from ..technique import implemented, needs_of, values
from ..training import Training, recommended_rate
from .plan import LAST, SCRATCH, Plan, resolve
from .record import Record

if TYPE_CHECKING:
    from ..model import Transformer
    from ..tokenizer import Tokenizer


class Choices:
    """`choose`, `drop`, `set` and `restore` raise ValueError in one line and then change nothing."""

    def __init__(
        self,
        objectives: Iterable[Any],
        adaptations: Iterable[Any],
        data: Iterable[Any] | Mapping[str, Any],
        start: Iterable[str] | Mapping[str, Any],
        training: Mapping[str, Any],
        seed: int = 0,
        config: Any = None,
        extras: Iterable[Any] = (),
        chosen: Iterable[str] = (),
    ) -> None:
        self.knobs: dict[str, dict[str, Any]] = {}
        self.objectives, self.adaptations, self.extras = map(self._offer, (objectives, adaptations, extras))
        self.data = dict(data) if isinstance(data, Mapping) else {_label(d): d for d in data}
        self.models = dict(start) if isinstance(start, Mapping) else {name: name for name in start}
        for what, offered in (("objective", self.objectives), ("corpus", self.data), ("start", self.models)):
            if not offered:
                raise ValueError(f"a panel needs at least one {what} to offer")
        self.training = values(Training(**training))
        self.seed, self.config = seed, config
        self.records: list[Record] = []
        self._corpora: dict[str, Corpus] = {}
        self._tokenizers: dict[tuple[str, str], Tokenizer] = {}
        self._loaded: dict[str, Transformer] = {}
        self._reading = threading.RLock()
        self.added: list[str] = []
        self.dataset, self.start_from, self.objective = next(iter(self.data)), next(iter(self.models)), ""
        wanted = [self._known(name) for name in ([chosen] if isinstance(chosen, str) else chosen)]
        self.added = [name for name in self.additions if name in wanted]  # an objective may need them
        self.objective = next((o for o in self.objectives if not self.reason(o)), next(iter(self.objectives)))
        for name in wanted:
            self.choose(name)

    def _offer(self, techniques: Iterable[Any]) -> dict[str, type]:
        offered = [resolve(t) for t in techniques]
        self.knobs |= {needs_of(cls).name: given for cls, given in offered}
        return {needs_of(cls).name: cls for cls, _ in offered}

    @property
    def additions(self) -> dict[str, type]:
        """What may be switched on beside an objective, in the order that code tells it."""
        return self.adaptations | self.extras

    @property
    def offered(self) -> dict[str, type]:
        """Every technique."""
        return self.objectives | self.additions

    def choose(self, name: str, **changes: Any) -> None:
        """Choose an objective, or add an adaptation or extra, with values for its knobs; ValueError says why not."""
        name = self._known(name)
        cls = self.offered[name]
        new = self.knobs[name] | changes
        was, self.knobs[name] = self.knobs[name], values(cls(**new))  # what it objects to may depend on its knobs
        if (reason := self.reason(name)) is not None:
            self.knobs[name] = was
            raise ValueError(reason)
        if name in self.objectives:
            self.objective = name
        elif name not in self.added:  # kept in the order they are offered, so that code does not depend on clicks
            self.added = [a for a in self.additions if a in self.added or a == name]

    def drop(self, name: str) -> None:
        """Take an adaptation or extra off; its knobs are remembered."""
        name = self._known(name)
        if name in self.objectives:
            raise ValueError(f"a run needs an objective: choose another one instead of dropping {name}")
        self.added = [a for a in self.added if a != name]

    def set(
        self, *, data: str | None = None, start: str | None = None, seed: int | None = None, **training: Any
    ) -> None:
        """Choose the data, the start, the seed, or what `Training` holds. An objective that cannot use it gives way."""
        for what, value, offered in (("data", data, self.data), ("start", start, self.starts)):
            if value is not None and value not in offered:
                raise ValueError(f"{what} {value!r} is not offered here: one of {', '.join(offered)}")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(f"seed = {seed!r}: must be a whole number, at least 0")
        was = self._all()
        try:
            self.training = values(Training(**(self.training | training)))
            self.dataset, self.start_from = data or self.dataset, start or self.start_from
            self.seed = self.seed if seed is None else seed
            if self.reason(self.objective):
                self.objective = next((o for o in self.objectives if not self.reason(o)), self.objective)
        except Exception:  # a file that cannot be read is found here
            self.__dict__.update(was)
            raise

    def restore(self, record: Record) -> None:
        """Choose what an earlier run had."""
        wanted, run = record.choices, f"run {record.number}"
        known = self.offered
        for name in wanted["techniques"]:
            if name not in known:
                raise ValueError(f"{run} used {name}, which is not offered here: there are {', '.join(known)}")
        starts = self.models if record.recorded else self.starts  # another panel's "run 2" is not ours
        for what, value, offered in (
            ("learnt from", wanted["data"], self.data),
            ("started from", wanted["start"], starts),
        ):
            if value not in offered:
                raise ValueError(f"{run} {what} {value}, which is not offered here: there are {', '.join(offered)}")
        objective = next((n for n in wanted["techniques"] if n in self.objectives), None)
        if objective is None:
            raise ValueError(f"{run} has no objective that is offered here: there are {', '.join(self.objectives)}")
        was = self._all()
        try:
            for name, given in wanted["techniques"].items():
                if lost := [k for k, v in given.items() if isinstance(v, dict) and IN_MEMORY in v]:
                    raise ValueError(f"{run} had a {name}.{lost[0]} that was in memory, which a file cannot hold")
                self.knobs[name] = values(known[name](**given))
            self.added = [a for a in self.additions if a in wanted["techniques"]]
            self.objective = objective
            self.set(data=wanted["data"], start=wanted["start"], seed=wanted["seed"], **wanted["training"])
        except Exception:
            self.__dict__.update(was)
            raise

    def _all(self) -> dict[str, Any]:
        names = (
            "dataset",
            "start_from",
            "seed",
            "objective",
            "added",
        )  # lists and texts that are never changed in place
        kept = {name: getattr(self, name) for name in names}
        return kept | {"training": dict(self.training), "knobs": dict(self.knobs)}

    def chosen(self) -> dict[str, Any]:
        """The choices as plain data, which `restore` takes back."""
        names = ([self.objective] if self.objective else []) + self.added
        origin = self.origin
        return {
            "techniques": {name: dict(self.knobs[name]) for name in names},
            "data": self.dataset,
            "start": f"run {origin.number}" if origin else self.start_from,
            "training": dict(self.training),
            "seed": self.seed,
        }

    def _known(self, name: str) -> str:
        name = name.lower()
        if name not in self.knobs:
            raise ValueError(f"{name!r} is not offered here: one of {', '.join(self.knobs)}")
        return name

    @property
    def starts(self) -> dict[str, Any]:
        """Where a run may start: what is offered and, once there are any, the runs that have a model."""
        runs = {f"run {record.number}": record for record in self.records if record.model is not None}
        return self.models | ({LAST: list(runs.values())[-1]} if runs else {}) | runs

    @property
    def origin(self) -> Record | None:
        """The run of this panel that the next one starts from, if it does."""
        found = self.starts[self.start_from]
        return found if isinstance(found, Record) else None

    def reason(self, name: str) -> str | None:
        """Why this technique cannot be chosen now, or None; no work is done to find out."""
        cls = self.offered[name]
        company = [cls, *self._added()] if name in self.objectives else [*self._chosen(), cls]
        return self._missing(cls, company) or self._plan(company).reason(cls)

    def _missing(self, cls: type, company: Iterable[type]) -> str | None:
        """What it needs of another technique that is offered here and not switched on."""
        present = {hook for other in company if other is not cls for hook in implemented(other)}
        for hook in needs_of(cls).needs:
            able = [other.__name__ for other in self.additions.values() if hook in implemented(other)]
            if able and hook not in present:
                return f"{cls.__name__} needs a technique that implements {hook}: switch {' or '.join(able)} on"
        return None

    def problem(self) -> str | None:
        """Why the present choices cannot run, or None."""
        return next(filter(None, map(self.reason, [self.objective, *self.added])), None)

    def advice(self) -> str:
        """What to know of choices that can run."""
        wants = [c.__name__ for c in self._chosen() if needs_of(c).base]
        if wants and self.plan().model is None:
            return f"Ready. {' and '.join(wants)} works best from a trained model; this one starts from random weights."
        return "Ready: press Run."

    def _added(self) -> list[type]:
        return [self.additions[a] for a in self.added]

    def _chosen(self) -> list[type]:
        return [*([self.objectives[self.objective]] if self.objective else []), *self._added()]

    def plan(self) -> Plan:
        """The present choices."""
        return self._plan(self._chosen())

    def _plan(self, classes: Iterable[type]) -> Plan:
        origin = self.origin
        plan = Plan(
            {cls: dict(self.knobs[needs_of(cls).name]) for cls in classes},
            self.data[self.dataset],
            self.corpus,
            self.start_from,
            origin.model if origin else self.model,
            dict(self.training),
            self.seed,
            self.config,
            parent=origin.plan if origin else None,
        )
        return replace(plan, tokenizer=self._tokenizers.get((self.dataset, plan.family)))

    @property
    def rate(self) -> float:
        """The learning rate of the chosen techniques, if none is set."""
        return recommended_rate(self._chosen())

    @property
    def corpus(self) -> Corpus:
        """The chosen data, made on first use."""
        with self._reading:
            if self.dataset not in self._corpora:
                self._corpora[self.dataset] = as_corpus(self.data[self.dataset])
            return self._corpora[self.dataset]

    @property
    def model(self) -> Transformer | None:
        """The chosen model to start from, read on first use; None to start from scratch, or from a run."""
        given = self.models.get(self.start_from, SCRATCH)
        if given == SCRATCH:
            return None
        if not isinstance(given, str):
            return getattr(given, "model", given)  # a run, or a model
        if given not in self._loaded:
            from ..pretrained import load_model

            self._loaded[given] = load_model(given)
        return self._loaded[given]


def _label(data: Any) -> str:
    """How a corpus is called in the panel: "tinytown:qa"."""
    if isinstance(data, str):
        return data
    if isinstance(data, Corpus):
        main = next((str(v) for v in data.options.values() if isinstance(v, str)), "")
        return f"{data.name}:{main}" if main else data.name
    return "in memory"

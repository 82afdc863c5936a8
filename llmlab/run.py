"""A run: techniques, data and a model, put together through the hooks, trained, measured and asked to write."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import loop
from .batch import Batch, Chunk, Order
from .catalogue import make
from .catalogue import techniques as catalogue
from .data import Corpus
from .data.memory import as_corpus
from .fill import fill
from .generate import evaluating, respond
from .hooks import Hooks, check_company
from .hookspecs import hookimpl
from .model import ModelConfig, Transformer
from .parameters import Parameters, parameter_table
from .progress import Progress
from .rollout import Responses
from .seeds import derive, generator, seeded
from .surgery import adapt, keep_originals, named_parameters, own, pass_on
from .technique import FAMILIES, needs_of, values
from .tokenizer import Tokenizer
from .training import Training, recommended_rate

Techniques = Iterable[Any]  # instances, names, or {name: knobs}


class Kernel:
    """What happens at a hook that no technique answers."""

    @hookimpl(trylast=True)
    def build_model(self, config: ModelConfig) -> Transformer:
        return Transformer(config)

    @hookimpl(trylast=True)
    def examples(self, run: Run, split: str) -> Sequence[dict[str, Any]]:
        return run.corpus[split]


def _knobs(technique: Any) -> dict[str, Any]:
    return values(technique) if hasattr(technique, "__dataclass_fields__") else {}


class State(dict[str, dict[str, Any]]):
    """What each technique remembers between steps, `run.state[self]`; kept in checkpoints."""

    def __getitem__(self, key: Any) -> dict[str, Any]:
        return self.setdefault(self._name(key), {})

    def __setitem__(self, key: Any, value: dict[str, Any]) -> None:
        super().__setitem__(self._name(key), value)

    @staticmethod
    def _name(key: Any) -> str:
        return key if isinstance(key, str) else needs_of(key).name


class Run:
    """One training run.

        run = Run([SFT(), LoRA(rank=4)], data=corpus("facts"), model=load("tiny-gpt"))
        run.fit()
        run.generate("What is the currency of Cape Verde?")

    `techniques` are instances, names ("sft") or {"lora": {"rank": 4}}. `data` is a `Corpus`, its name, a
    file, a dict of splits or a list of dicts. `model` is shared, never changed: what trains is cloned;
    without one, `config` (a `ModelConfig` or a preset's name) is built and a tokenizer learnt from the data.
    ValueError or TypeError, in one line, before any work, for what cannot work together.
    """

    def __init__(
        self,
        techniques: Techniques,
        data: Any = None,
        *,
        model: Transformer | None = None,
        training: Training | None = None,
        seed: int = 0,
        config: ModelConfig | str | None = None,
        tokenizer: Tokenizer | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if isinstance(techniques, str | Mapping) or not isinstance(techniques, Iterable):
            techniques = [techniques]
        self.techniques = [make(t) for t in techniques]
        self.training, self.seed = training or Training(), seed
        self.hooks = Hooks(self.techniques, Kernel())
        for hook in ("batches", "compute_loss"):
            if not self.hooks.owners(hook):
                objectives = [n for n, e in catalogue().items() if e.needs.kind == "objective"]
                raise ValueError(f"no technique implements {hook}: add an objective such as {', '.join(objectives)}")
        self.data = None if data is None else as_corpus(data)
        columns = self.data.columns if self.data else None
        check_company(self.techniques, self.hooks, None, columns, self._shape(model, config))
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.source = model.source if model else None  # where a model that was given can be loaded from again
        self.given = model is not None
        self.model = self._make_model(model, config, tokenizer)
        check_company(self.techniques, self.hooks, None, None, self.model.config)
        self._adapt()
        self.step = loop.Step(self.model, self.hooks)
        self.state = State()
        self.position = loop.Position()
        self.pending: deque[Batch] = deque()
        self.history: list[dict[str, float]] = []
        self.evaluations: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}
        self.folder: Path | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self._rows: dict[str, Sequence[dict[str, Any]]] = {}
        self._measured: dict[str, dict[str, float]] | None = None  # losses by split, while evaluating
        self._limit = 0
        self.stopped = ""  # why the last fit ended early
        self.target = self.training.steps  # the step at which the fit in hand, or the next, ends by itself

    # -- putting it together -----------------------------------------------------------------------------------

    def _shape(self, model: Transformer | None, config: ModelConfig | str | None) -> ModelConfig | None:
        """The model's config, as far as it is known before there is one: a technique may build what it likes."""
        if model is not None:
            return model.config
        if self.hooks.owners("build_model"):
            return None
        return ModelConfig.preset(config) if isinstance(config, str) else config or self._usual_config()

    def _make_model(
        self, model: Transformer | None, config: ModelConfig | str | None, tokenizer: Tokenizer | None
    ) -> Transformer:
        if model is not None:
            if config is not None:
                raise ValueError("give a run a model or a config, not both: the model has its own")
            copy = pass_on(model)
            copy.source = None  # it is about to change
            copy.tokenizer = tokenizer or copy.tokenizer
            return copy.to(self.device)
        config = ModelConfig.preset(config) if isinstance(config, str) else config or self._usual_config()
        if tokenizer is None:
            tokenizer = self._learn_tokenizer(config)
        config = ModelConfig.from_dict(config.to_dict() | {"vocab_size": tokenizer.vocab_size})
        with seeded(self.seed, "model"):
            built: Transformer = self.hooks.call("build_model", config=config)
        built.tokenizer = tokenizer
        return built.to(self.device)

    def _usual_config(self) -> ModelConfig:
        """A model of a family that every technique works on: a decoder, if they do not care."""
        families = [f for f in FAMILIES if all(f in needs_of(t).families for t in self.techniques)]
        return ModelConfig.usual(families[0] if families else "decoder")

    def _learn_tokenizer(self, config: ModelConfig) -> Tokenizer:
        if self.data is None:
            raise ValueError("a run without a model needs data to learn a tokenizer from, or a tokenizer")
        text = (v for row in self.data["train"] for v in row.values() if isinstance(v, str))
        return Tokenizer.train(text, config.vocab_size, "wordpiece" if config.family == "encoder" else "bpe")

    def _adapt(self) -> None:
        ranked = sorted(self.techniques, key=lambda t: needs_of(t).kind == "adaptation")  # heads before wrappers
        for t in ranked:
            strict = needs_of(t).kind == "adaptation"
            build = lambda t=t: self.hooks.only(t, "adapt_model", model=self.model)  # noqa: E731
            adapt(self.model, needs_of(t).name, _knobs(t), strict, self.seed, build)
        self.model.to(self.device)
        listed = {needs_of(t).name for t in self.techniques}
        others = [a for owner, a in self.model.adaptations.items() if owner not in listed]
        foreign = {name for a in others for name in (*a["parameters"], *a["originals"])}
        for name, parameter in named_parameters(self.model):
            votes = self.hooks.call("trains", name=name, parameter=parameter)
            parameter.requires_grad_(name not in foreign and (any(votes) or not votes))
        if not any(p.requires_grad for p in self.model.parameters()):
            raise ValueError("nothing would train: every technique votes to freeze every parameter of this model")
        self._keep_originals()
        own(self.model)

    def _keep_originals(self) -> None:
        """Let the model remember what its own tensors are that an adaptation asks to train."""
        parameters = dict(named_parameters(self.model))
        for t in self.techniques:
            if needs_of(t).kind == "adaptation":
                asks = lambda n, t=t: any(self.hooks.only(t, "trains", name=n, parameter=parameters[n]))  # noqa: E731
                keep_originals(self.model, needs_of(t).name, _knobs(t), asks)

    # -- data --------------------------------------------------------------------------------------------------

    @property
    def corpus(self) -> Corpus:
        if self.data is None:
            raise ValueError("this run has no data: give it some, Run(..., data=corpus(name))")
        return self.data

    @property
    def tokenizer(self) -> Tokenizer:
        if self.model.tokenizer is None:
            raise ValueError("this model has no tokenizer: give the run one, Run(..., tokenizer=...)")
        return self.model.tokenizer

    def rows(self, split: str) -> Sequence[dict[str, Any]]:
        """The examples of a split as the techniques made them, computed once. ValueError if there is none."""
        if split not in self._rows:
            rows = self.hooks.call("examples", run=self, split=split)
            if not len(rows):
                raise ValueError(f"the {split} split of {self.corpus.name} gives no example: give more data")
            self._rows[split] = rows
        return self._rows[split]

    def make_batches(self, chunk: Chunk) -> list[Batch]:
        """All batches of one chunk, made in eval mode and without gradients."""
        with evaluating(self.model):
            batches = self.hooks.drain("batches", run=self, examples=chunk)
        return [b.to(self.device) for b in batches]

    # -- training ----------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Optimiser steps taken."""
        return self.position.step

    @property
    def learning_rate(self) -> float:
        """Peak learning rate: `Training`'s, or what the techniques recommend."""
        return self.training.learning_rate or recommended_rate(self.techniques)

    @property
    def metrics(self) -> dict[str, float]:
        """The latest evaluation."""
        return self.evaluations[-1] if self.evaluations else {}

    def fit(self, steps: int | None = None, progress: Progress | bool | None = None) -> Run:
        """Train to `Training.steps`, or for `steps` more; the same run continues where it is.

        Ctrl-C, or `stop()` from another thread, ends it after the step in hand, the model usable. `progress`
        False is silent. RuntimeError if another run is training in this process; FloatingPointError
        if the loss is no longer a number, the weights being those of the last good step.
        """
        loop.fit(self, steps, progress)
        return self

    def stop(self, reason: str = "stopped") -> None:
        """End a running fit after the step in hand."""
        self.stopped = reason

    # -- measuring ---------------------------------------------------------------------------------------------

    def losses(self, split: str = "validation", batches: int = 0) -> dict[str, float]:
        """Mean of every scalar of the loss over a split, or its first `batches`, in eval mode.

        While the run is evaluated, what was measured already is returned.
        """
        measured = self._measured
        if measured is None:
            return self._measure(split, batches)
        if split not in measured:
            measured[split] = self._measure(split, self._limit)
        return dict(measured[split])

    def _measure(self, split: str, limit: int) -> dict[str, float]:
        rows, seed = self.rows(split), derive(self.seed, "evaluate")
        order = Order(rows, self.training.batch_size, seed, whole=True).epoch(0)
        sums: dict[str, float] = defaultdict(float)
        total = 0
        for ids in order[: limit or None]:
            for batch in self.make_batches(Chunk([rows[i] for i in ids], ids, 0, seed)):
                weight, total = batch.weight, total + batch.weight
                with evaluating(self.model):
                    for name, value in self.step(batch).items():
                        sums[name] += float(value) * weight
        return {name: value / max(1, total) for name, value in sums.items()}

    def evaluate(self, split: str = "validation", batches: int = 0) -> dict[str, float]:
        """Measure on a split: the mean losses, and what the techniques measure. `batches` limits the work; 0 is all."""
        self._measured, self._limit = {}, batches
        try:
            with evaluating(self.model):
                policy = any(needs_of(t).on_policy for t in self.techniques)
                found = {} if policy else self.losses(split)
                for answer in self.hooks.call("evaluate", run=self, split=split):
                    found |= answer
        finally:
            self._measured = None
        return found

    def parameters(self) -> Parameters:
        """The table of trainable and frozen parameters."""
        return parameter_table(self.model)

    # -- asking ------------------------------------------------------------------------------------------------

    def respond(self, prompts: Sequence[str] | Sequence[list[int]], **settings: Any) -> Responses:
        """Answer B prompts, texts or ids; `settings` are those of `generate`, greedy unless told otherwise."""
        return respond(self.model, prompts, **({"seed": self.seed} | settings))

    def generate(self, prompt: str | Sequence[str], **settings: Any) -> Any:
        """Continue a text, or each of several; `settings` (temperature, max_new_tokens, …) are those of `generate`."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        text = self.respond(prompts, **settings).text
        return text[0] if isinstance(prompt, str) else text

    def fill(self, text: str | Sequence[str], best: int = 5) -> Any:
        """An encoder's best guesses for the blanks, ___, of a text, or of each of several; see `llmlab.fill`."""
        found = fill(self.model, [text] if isinstance(text, str) else list(text), best)
        return found[0] if isinstance(text, str) else found

    def score(self, prompts: Sequence[str], responses: Responses) -> Tensor:
        """The sum of all rewards the techniques give, shape (B,). ValueError if none does, or of another shape."""
        with evaluating(self.model):
            rewards = self.hooks.call("score", run=self, prompts=prompts, responses=responses)
        if not rewards:
            raise ValueError("no technique implements score: add a reward to the run")
        for reward in rewards:
            if tuple(reward.shape) != (len(responses),):
                raise ValueError(
                    f"a reward has shape {tuple(reward.shape)}: one number a response is ({len(responses)},)"
                )
        return torch.stack([r.float() for r in rewards]).sum(0)

    def generator(self, *purpose: object) -> torch.Generator:
        """A generator keyed by the run's seed and a purpose."""
        return generator(self.seed, *purpose)

    # -- keeping -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the run folder: `run.json`, the model, and a checkpoint from which it goes on bit for bit."""
        from .runfolder import save

        return save(self, Path(folder))

    def save_patch(self, file: str | Path) -> Path:
        """Write what differs from the model it started from to one file, which `llmlab.load` reads; see `patch.py`.

        ValueError if that model was in memory.
        """
        from .patch import save_patch
        from .pretrained import load_model

        if not self.source:
            raise ValueError(
                "this run started from no model that can be loaded again: say what it differs from, "
                "save_patch(run.model, base, file)"
            )
        return save_patch(self.model, load_model(self.source, self.techniques), file)

    @classmethod
    def load(cls, folder: str | Path, data: Any = None, techniques: Iterable[Any] = ()) -> Run:
        """Read a run folder; `fit` then goes on where it stopped.

        What was in memory is given again: `data`, and `techniques` defined in a notebook or holding a function.
        """
        from .runfolder import load

        return load(Path(folder), data, techniques)

    def __repr__(self) -> str:
        names = ", ".join(type(t).__name__ for t in self.techniques)
        data = self.data.name if self.data else "no data"
        return f"Run([{names}], {data}, {self.steps} of {self.training.steps} steps)"

"""Everything that is seen of a run, whether it trains here, is over, or comes from a file; with or without its model.

1. A file keeps five digits of a loss and none of the weights: some ten kilobytes a run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint import read_json
from ..data.memory import IN_MEMORY
from .samples import Sample
from .tables import words

if TYPE_CHECKING:
    from ..model import Transformer
    from ..run import Run
    from .plan import Plan

FORMAT = 1
KEY, FILE = "llmlab_recording", "recording.json"  # what tells a recording, and its name in a run folder
NO_HEADLINE = ("step", "loss", "floor", "perplexity")  # told of elsewhere, or by the loss
REWARDS = ("gold", "score")  # of these two the first that is known tells most of a run without a validation loss


@dataclass
class Record:
    """One run and what was seen of it. While it trains, its lists are the run's own and grow with it."""

    technique: str  # "SFT + LoRA"
    name: str  # "SFT + LoRA(rank=4)": with the knobs that differ from their defaults
    dataset: str
    start: str
    choices: dict[str, Any]  # what a panel needs to choose the same again
    code: str
    recipe: dict[str, Any] | None  # the run file, or None if a file cannot hold it
    target: int  # steps it was asked for
    history: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    trainable: int = 0
    total: int = 0
    seconds: float = 0.0
    outcome: str = ""  # "done", "stopped" or "failed"
    versions: dict[str, str] = field(default_factory=dict)
    number: int = 0  # its place in the ledger
    plan: Plan | None = None
    run: Run | None = None
    model: Transformer | None = None
    recorded: bool = False  # it comes from a file
    replayed: bool = False  # it is being played again

    @property
    def title(self) -> str:
        """Such as "SFT + LoRA on tinytown:qa"."""
        return f"Replay of run {self.number}: {self.told}" if self.replayed else self.told

    @property
    def told(self) -> str:
        return f"{self.technique} on {self.dataset}"

    @property
    def steps(self) -> int:
        """Steps taken."""
        return int(self.history[-1]["step"]) if self.history else 0

    @property
    def end(self) -> int:
        """The step at which its chart ends."""
        return self.steps if self.outcome in ("stopped", "failed") else max(self.target, self.steps)

    @property
    def share(self) -> float:
        """Trainable share of its parameters, 0 to 1."""
        return self.trainable / max(1, self.total)

    @property
    def headline(self) -> str:
        """One more measure beside the loss, such as "accuracy 0.83", or nothing; without a loss the reward, and KL."""
        last = self.evaluations[-1] if self.evaluations else {}
        found = {k: v for k, v in last.items() if k not in NO_HEADLINE and isinstance(v, int | float)}
        rewards = [name for name in REWARDS if name in found and last.get("loss") is None]
        told = [*rewards[:1], *(["kl"] if "kl" in found else [])] if rewards else list(found)[:1]
        return ", ".join(f"{words(name)} {found[name]:.3g}" for name in told)

    def row(self) -> dict[str, Any]:
        """Its line in the ledger; losses are of the validation set, None where there are none."""
        losses = [e["loss"] for e in self.evaluations if e.get("loss") is not None]
        return {
            "number": self.number,
            "techniques": self.name,
            "data": self.dataset,
            "start": self.start,
            "steps": self.steps,
            "share": self.share,
            "before": losses[0] if losses else None,
            "after": losses[-1] if losses else None,
            "measure": self.headline,
            "seconds": self.seconds,
            "outcome": ("recorded, " if self.recorded else "") + self.outcome,
        }

    # -- as a file ---------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Everything but the weights."""
        curve = [(row["step"], _short(row["loss"])) for row in self.history]
        kept = {
            KEY: FORMAT,
            **{name: getattr(self, name) for name in _PLAIN},
            "curve": {"step": [step for step, _ in curve], "loss": [loss for _, loss in curve]},
            "evaluations": [{k: _finite(v) for k, v in found.items()} for found in self.evaluations],
            "samples": [asdict(sample) for sample in self.samples],
        }
        return json.dumps(kept, allow_nan=False, default=lambda v: {IN_MEMORY: type(v).__name__}) + "\n"

    @classmethod
    def from_json(cls, kept: Any, path: object) -> Record:
        """The inverse; ValueError in one line if `kept` is no recording, or a later format's."""
        if not isinstance(kept, Mapping) or not isinstance(kept.get(KEY), int):
            raise ValueError(f"{path} is no recording of a run: lab.share(file) writes one")
        if kept[KEY] > FORMAT:
            raise ValueError(f"{path} is a recording in format {kept[KEY]}; this llmlab reads {FORMAT}: upgrade llmlab")
        try:
            curve = zip(kept["curve"]["step"], kept["curve"]["loss"], strict=True)
            made = cls(
                **{name: _of_kind(name, kind, kept[name]) for name, kind in _PLAIN.items()},
                history=[{"step": int(step), "loss": _number(loss)} for step, loss in curve],
                evaluations=[_measured(found) for found in kept["evaluations"]],
                samples=[Sample(**sample) for sample in kept["samples"]],
                recorded=True,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path} is a damaged recording: {what}") from error
        return made


# fields that a file holds as they are, and what they must be
_PLAIN: dict[str, Any] = {
    **dict.fromkeys(("technique", "name", "dataset", "start", "code", "outcome"), str),
    **dict.fromkeys(("choices", "versions"), dict),
    "recipe": dict | None,
    **dict.fromkeys(("target", "trainable", "total"), int),
    "seconds": int | float,
}


def _of_kind(name: str, kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {value!r}")
    return value


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(loss: float) -> float | None:
    return float(f"{loss:.5g}") if math.isfinite(loss) else None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _measured(found: Mapping[str, Any]) -> dict[str, Any]:
    plain = {k: v for k, v in found.items() if isinstance(v, int | float | str)}
    return plain | {"step": int(found["step"])}


def read(path: str | Path) -> Record:
    """The recording in a file, or in a run folder that has one. FileNotFoundError or ValueError in one line."""
    path = Path(path)
    return Record.from_json(read_json(path / FILE if path.is_dir() else path), path)


def read_run(folder: Path) -> Record:
    """What a run folder without a recording tells, such as one that `llmlab run` wrote: all but samples and seconds."""
    recipe = read_json(folder / "run.json")
    try:
        lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
        history = [{"step": row["step"], "loss": _number(row["loss"])} for row in map(json.loads, lines)]
        chosen = [next(iter(technique.items())) for technique in recipe["techniques"]]
        names = " + ".join(name for name, _ in chosen)
        source = (recipe["model"] or {}).get("from", "scratch")
        data = (recipe["data"] or {}).get("name", "no data")
        target = recipe["training"]["steps"]
        choices = {"techniques": dict(chosen), "data": data, "start": source, "training": recipe["training"]}
        choices["seed"] = recipe["seed"]
        last = recipe.get("results") or {}
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise ValueError(f"{folder} is no run folder of llmlab: {type(error).__name__} {error}") from error
    again = f'from llmlab import Run\n\nrun = Run.load("{folder}")\n'
    outcome = "done" if history and history[-1]["step"] >= target else "stopped"
    seen = [_measured(last)] if last else []
    return Record(
        names, names, data, source, choices, again, recipe, target, history, seen, recorded=True, outcome=outcome
    )

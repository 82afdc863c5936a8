"""The model card of a run, MODEL_CARD.md (Mitchell et al. 2019): what it was made from, how, and how it was measured.

Every number is taken from the run. What no run can know (what the model is for, whom its mistakes hurt) is asked of a
person in one line, and what a person has written there, or under a heading of their own, stays when the card is written
again.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from . import __version__
from .checkpoint import read_json
from .data.memory import IN_MEMORY
from .parameters import Parameters
from .pretrained import HERE
from .technique import needs_of, values

if TYPE_CHECKING:
    from .run import Run

FILE = "MODEL_CARD.md"
ASKED = {  # sections that only a person can write
    "Intended use": "What is the model for, by whom, and what is it not for?",
    "Who is affected": "Whom do its answers concern, and how could they be wrong about groups of people?",
    "Ethical considerations": "Does its data hold personal information, with what right, and what could go wrong?",
}
NOBODY = "_Nobody has written this yet._"


def model_card(run: Run, before: str = "") -> str:
    """The card as Markdown; `before` is the card that stands there, whose human sections are kept."""
    kept = _sections(before)
    made = {
        "Model": _model(run),
        "Intended use": kept.get("Intended use", _ask("Intended use")),
        "Who is affected": kept.get("Who is affected", _ask("Who is affected")),
        "Training data": _data(run),
        "Training": _training(run),
        "Evaluation": _evaluation(run),
        "Ethical considerations": kept.get("Ethical considerations", _ask("Ethical considerations")),
        "Limits": _limits(run),
    }
    own = {title: body for title, body in kept.items() if title not in made}
    head = (
        "# Model card\n\nllmlab writes this card anew each time the run is saved, except for what people write under "
        f"{', '.join(ASKED)}, and under headings of their own: that stays."
    )
    return "\n\n".join([head, *(f"## {title}\n\n{body}" for title, body in (made | own).items())]) + "\n"


def _sections(card: str) -> dict[str, str]:
    """What stands under each heading of the second level."""
    parts = re.split(r"^## +(.+?) *$", card, flags=re.M)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def _ask(title: str) -> str:
    return f"{NOBODY} {ASKED[title]}"


def _list(facts: dict[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value not in (None, ""))


def _model(run: Run) -> str:
    config = run.model.config
    shape = f"{config.layers} layers, width {config.width}, {config.heads} heads, context {config.context}"
    table: Parameters = run.parameters()
    return _list(
        {
            "design": f"{config.family}, {shape}, vocabulary {config.vocab_size:,}",
            "parameters": f"{table.total:,}, of which {table.trainable:,} train ({table.share:.2%})",
            "started from": _origin(run),
            "written by": f"llmlab {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        }
    )


def _origin(run: Run) -> str:
    """What is known of the model that it started from."""
    if not run.given:
        return "random weights"
    if not run.source:
        return "a model in memory, of which nothing is recorded"
    card = HERE / str(run.source) / "card.json"
    if not card.is_file():
        return f"`{run.source}`"
    known = read_json(card)
    data = f"{known['data']['name']} ({known['data']['licence']})"
    return f"`{run.source}`: {' + '.join(known['techniques'])}, {known['tokens']:,} tokens of {data}"


def _data(run: Run) -> str:
    data = run.data
    if data is None:
        return "- none is recorded"
    options = ", ".join(f"{name}={value!r}" for name, value in data.options.items())
    name = "given in memory: the card knows no origin" if data.name == IN_MEMORY else f"{data.name} {options}".strip()
    return _list(
        {
            "name": name,
            "source": None if data.name == IN_MEMORY else data.source,
            "licence": "not recorded" if data.name == IN_MEMORY else data.licence,
            "examples": ", ".join(f"{len(rows):,} {split}" for split, rows in data.splits.items()),
            "columns": ", ".join(data.columns),
            "fingerprint": f"`{data.fingerprint}`, equal for equal data",
        }
    )


def _training(run: Run) -> str:
    lines = [f"- {_technique(t)}" for t in run.techniques]
    settings = values(run.training) | {"learning_rate": run.learning_rate}
    of = f" of {run.training.steps:,}" if run.steps != run.training.steps else ""
    shown = {name: settings[name] for name in ("batch_size", "accumulate", "learning_rate", "schedule", "precision")}
    facts = {"steps": f"{run.steps:,}{of}", **{n.replace("_", " "): v for n, v in shown.items()}, "seed": run.seed}
    if run.training.keep_best and run.best:
        facts["weights kept"] = f"those of step {run.best['step']:,}, the best validation loss"
    return "\n".join([*lines, _list(facts), "- everything else: `run.json`, which repeats the run"])


def _technique(technique: Any) -> str:
    known = hasattr(technique, "__dataclass_fields__")
    knobs = (
        ", ".join(f"{name} {json.dumps(v, default=_in_memory)}" for name, v in values(technique).items())
        if known
        else ""
    )
    return f"technique: {needs_of(technique).name}" + (f" ({knobs})" if knobs else "")


def _in_memory(value: Any) -> str:
    """What a file cannot hold, such as a model or a function, by its name alone."""
    return f"{IN_MEMORY}: {getattr(value, '__qualname__', type(value).__qualname__)}"


def _evaluation(run: Run) -> str:
    if not run.evaluations:
        return "_Nothing was measured._"
    first, last, limit = run.evaluations[0], run.evaluations[-1], run.training.evaluate_batches
    names = [name for name in last if name != "step"]
    part = f"the first {limit} batches of " if limit else ""
    head = [f"On {part}the validation split of the data above:", ""]
    head += [f"| measure | step {first.get('step', 0):,} | step {last.get('step', run.steps):,} |", "|---|---|---|"]
    return "\n".join(head + [f"| {name} | {_number(first.get(name))} | {_number(last[name])} |" for name in names])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _limits(run: Run) -> str:
    return "\n".join(_limit_lines(run))


def _limit_lines(run: Run) -> Iterator[str]:
    measured = ", ".join(name for name in run.metrics if name != "step") or "nothing"
    yield f"- Measured was {measured}, and nothing else: not other data, other groups of people, or who misuses it."
    yield "- One seed; another gives other numbers."
    yield "- A model may repeat what it has read: what must not be repeated should not be in its data."
    if run.given:
        yield "- What the model that it started from had learnt, it may have kept."

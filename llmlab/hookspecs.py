"""Every place where a technique may change a run, in the order the kernel reaches it. Read this first.

A hook names only the arguments it wants. `@hookimpl` marks an implementation; `@hookimpl(wrapper=True)`
one that sees and may change what the others answer, through one `yield`.

    run = Run([SFT(), LoRA(rank=4)], data)          called
    |-- build_model        who makes the network    once, if the run was given no model
    |-- adapt_model        surgery                  once, in place
    |-- trains             votes                    once a parameter
    `-- fit
        |-- before_fit     preparation              once in the run's life
        |-- examples       rows of text             once a split, the result kept
        |-- evaluate       numbers to watch         at the start, every N steps, at the end
        |-- batches        tensors                  per chunk of examples
        |   `-- score      rewards                  when `batches` asks for them
        |-- compute_loss   the objective            per batch
        `-- after_step     onlookers                after each optimiser step
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .batch import Batch
    from .model import ModelConfig, Output
    from .rollout import Responses
    from .run import Run

API = 1  # raised when a hook changes its meaning or its arguments

hookspec = HookspecMarker("llmlab")
hookimpl = HookimplMarker("llmlab")


@hookspec(firstresult=True)
def build_model(config: ModelConfig) -> nn.Module | None:
    """Make the network, when the run was given none.

    One technique at most may answer; without an answer the kernel builds what `config` describes.

        @hookimpl
        def build_model(self, config):
            return Transformer(replace(config, family="encoder"))
    """


@hookspec
def adapt_model(model: nn.Module) -> None:
    """Change `model` in place: wrap layers, add a head. Called once, never again on a model that has it.

    Freeze nothing here (see `trains`). Each technique draws its new weights from a generator of its own,
    so they do not depend on its place in the list.

        @hookimpl
        def adapt_model(self, model):
            replace_modules(model, ["mlp"], lambda mlp: Scaled(mlp))
    """


@hookspec
def trains(name: str, parameter: nn.Parameter) -> bool | None:
    """Vote on one parameter. Any True wins, else any False freezes it, else it trains.

    `name` is the path without wrappers: "blocks.0.attention.query.weight" whatever wraps that layer.
    An adaptation answers False for what is not its own; an objective never answers False. None: no opinion.

        @hookimpl
        def trains(self, name):
            return name.endswith("bias")
    """


@hookspec
def before_fit(run: Run) -> None:
    """Called once in a run's life, model complete and on its device; never again after a load.

    What must survive a load belongs in `run.state[self]`: numbers, text and tensors in dicts and lists.
    So does a reference, the model as it was: `snapshot(run.model)`, and `swapped(run.model, it)` where it is asked.

        @hookimpl
        def before_fit(self, run):
            run.state[self]["reference"] = snapshot(run.model)
    """


@hookspec(firstresult=True)
def examples(run: Run, split: str) -> Sequence[dict[str, Any]] | None:
    """Give the rows of a split, any Sequence of dicts. Called once a run and split; the result is kept.

    Without an answer the rows come from the run's data. Wrap this hook to rewrite or tokenise them.

        @hookimpl(wrapper=True)
        def examples(self, run, split):
            rows = yield
            return [row for row in rows if row["response"]]
    """


@hookspec(firstresult=True)
def batches(run: Run, examples: Sequence[dict[str, Any]]) -> Iterator[Batch] | None:
    """Yield one or more batches made from a few `examples`: one technique, the objective, answers.

    All of a chunk's batches are made before any is trained on, so they may not depend on updates
    between them. `examples` is a `Chunk`: `examples.generators()` gives one seeded generator a row, for
    masks and samples that repeat whatever the batch size or the number of processes; a purpose each gives several a
    row. It is called in eval mode, without gradients; tensors may be made on the CPU. `Batch(count=…)` says of how
    many things the loss is the mean, where that is neither labels nor rows.

        @hookimpl
        def batches(self, run, examples):
            tokens = pad([row["tokens"] for row in examples])
            yield Batch({"tokens": tokens}, {"labels": shift(tokens)})
    """


@hookspec
def score(run: Run, prompts: Sequence[str], responses: Responses) -> Tensor | None:
    """Reward each response, shape (B,). Asked for by an objective through `run.score`, which sums all answers.

    `responses` has `text` (B strings), `tokens` (B, T) and `mask` (B, T), True on real tokens.

        @hookimpl
        def score(self, responses):
            return torch.tensor([-float(len(text)) for text in responses.text])
    """


@hookspec(firstresult=True)
def compute_loss(model: nn.Module, batch: Batch, output: Output) -> dict[str, Tensor] | None:
    """Turn the output for one batch into a dict of scalars; `"loss"` is the one minimised.

    One technique, the objective, answers; wrappers may add terms. Ask `model.loss(output, labels)` or
    `model.logprobs(output, labels)`: logits then exist only where there is a label, as those of
    `model.logits(output, labels != IGNORE)` do, (N, V). `batch["labels"]` (B, T) is for objectives that predict tokens,
    and already beside the outputs: nothing is to be shifted. A technique that cannot do without says
    `@technique(labels=True)`. `model(**batch.inputs)` is another pass, with other dropout.

    It is called in training and, in eval mode and without gradients, in measuring; a term that is only for training
    asks `torch.is_grad_enabled()`, for an objective may train in eval mode.

        @hookimpl
        def compute_loss(self, model, batch, output):
            return {"loss": model.loss(output, batch["labels"])}
    """


@hookspec
def evaluate(run: Run, split: str) -> dict[str, float] | None:
    """Measure the model on a split, in eval mode and without gradients; the answers are merged.

    Called at the start, every `Training.evaluate_every` steps, at the end, and by `run.evaluate(split)`.
    The kernel adds the mean of every scalar of `compute_loss`; `run.losses(split)` has it already. Not so where the
    model writes its own batches (`on_policy`): what is to be watched is then measured here.

        @hookimpl
        def evaluate(self, run, split):
            return {"perplexity": math.exp(run.losses(split)["loss"])}
    """


@hookspec
def after_step(run: Run, step: int, metrics: dict[str, float]) -> None:
    """Called after each optimiser step with that step's plain floats (loss, learning_rate, ...).

    `run.stop()` ends the fit after this step. What is returned is ignored.

        @hookimpl
        def after_step(self, run, step, metrics):
            chart.add(step, metrics["loss"])
    """

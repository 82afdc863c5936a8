"""The one training loop: batches -> model -> loss -> backward -> step. It knows no technique."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .batch import Batch, Chunk, Order
from .hooks import Hooks
from .precision import computing
from .progress import Progress, choose_progress
from .seeds import drawing, seeded
from .speed import tune_process
from .surgery import named_parameters, own, snapshot
from .technique import needs_of
from .training import make_optimizer

if TYPE_CHECKING:
    from .run import Run

_training = threading.Lock()  # dropout draws from the process's generator, so one fit at a time


class Step(nn.Module):
    """Forward pass and loss as one module, so that engines that wrap modules (DDP, FSDP) wrap both."""

    def __init__(self, model: nn.Module, hooks: Hooks) -> None:
        super().__init__()
        self.model = model
        self.hooks = hooks

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The dict of losses of one batch. ValueError unless it is a dict with a scalar "loss"."""
        output = self.model(**batch.inputs)
        losses = self.hooks.call("compute_loss", model=self.model, batch=batch, output=output)
        if not isinstance(losses, dict) or "loss" not in losses:
            owner = " and ".join(self.hooks.owners("compute_loss"))
            raise ValueError(f'{owner}.compute_loss must return a dict of scalars with the key "loss"')
        return losses


@dataclass
class Position:
    """How far a run is: optimiser steps, passes over the data, and chunks taken in this pass."""

    step: int = 0
    epoch: int = 0
    chunk: int = 0
    rng: Tensor | None = None  # where the process's generator is for this run: dropout draws from it
    worse: int = 0  # evaluations in a row without a better validation loss


def fit(run: Run, steps: int | None, progress: Progress | bool | None) -> None:
    """See `Run.fit`."""
    at = run.position
    target = run.training.steps if steps is None else at.step + steps
    if not _training.acquire(blocking=False):
        raise RuntimeError("another run is training in this process: stop it first, or wait for it")
    try:
        tune_process()
        run.stopped, run.target = "", target
        show = choose_progress(progress)
        with _interruptible(run):
            _prepare(run)
            show.start(run, at.step, target)
            try:
                _train(run, target, show)
            finally:
                run.model.eval()
                show.finish(run)
    finally:
        _training.release()


def _prepare(run: Run) -> None:
    at = run.position
    own(run.model)  # it may have been passed on since the last fit
    run.model.source = None  # no longer what was loaded or saved
    if run.optimizer is None:
        run.optimizer = make_optimizer(
            [(n, p) for n, p in named_parameters(run.model) if p.requires_grad], run.training
        )
    if at.rng is None:  # the run's first fit
        with seeded(run.seed, "fit"):
            run.hooks.call("before_fit", run=run)
            at.rng = torch.get_rng_state()


@contextmanager
def _own_generator(at: Position) -> Iterator[None]:
    """Lend the process's generator to one step of the run; what others draw between two steps changes neither."""
    with drawing, torch.random.fork_rng(devices=[]):
        assert at.rng is not None  # set by the first fit
        torch.set_rng_state(at.rng)
        yield
        at.rng = torch.get_rng_state()


def _train(run: Run, target: int, show: Progress) -> None:
    at, settings = run.position, run.training
    horizon = max(settings.steps, target)  # the schedule's length does not depend on where a fit stops
    stream = _batches(run)
    if at.step == 0 and not run.evaluations:
        _evaluate(run, show)
    while at.step < target and not run.stopped:
        with _own_generator(at):
            batches = [next(stream) for _ in range(settings.accumulate)]
            metrics = _step(run, batches, horizon)
        at.step += 1
        metrics = {"step": at.step, **metrics}
        run.history.append(metrics)
        show.step(run, metrics)
        if at.step % settings.evaluation_interval == 0 or at.step == target:
            _evaluate(run, show)
        _take_best(run, target)  # so that the last `after_step` sees the model as it stays
        run.hooks.call("after_step", run=run, step=at.step, metrics=metrics)
        if run.folder and settings.save_every and at.step % settings.save_every == 0 and at.step < target:
            run.save(run.folder)
    if run.stopped and run.history and run.evaluations and run.evaluations[-1]["step"] != at.step:
        _evaluate(run, show)
        _take_best(run, target)


def _take_best(run: Run, target: int) -> None:
    """Put the best weights back, if that is asked for; a run that was interrupted stays, for it may go on as it is."""
    at, settings = run.position, run.training
    over = at.step >= target or 0 < settings.patience <= at.worse
    if settings.keep_best and run.best and over:
        with torch.no_grad():
            for name, p in named_parameters(run.model):
                if name in run.best["weights"]:
                    p.copy_(run.best["weights"][name])


def _batches(run: Run) -> Iterator[Batch]:
    """Batches for ever, from where the run is. What a chunk gave and was not yet used waits in `run.pending`."""
    at, rows = run.position, run.rows("train")
    order = Order(rows, run.training.batch_size, run.seed)
    chunks = order.epoch(at.epoch)
    empty = 0
    while True:
        while not run.pending:
            if at.chunk >= len(order):
                at.epoch, at.chunk = at.epoch + 1, 0
                chunks = order.epoch(at.epoch)
            ids = chunks[at.chunk]
            run.pending.extend(run.make_batches(Chunk([rows[i] for i in ids], ids, at.epoch, run.seed, training=True)))
            at.chunk += 1
            empty = 0 if run.pending else empty + 1
            if empty > len(order):
                owner = " and ".join(run.hooks.owners("batches"))
                raise ValueError(f"{owner} made no batch in a whole pass over the data: check its rows")
        yield run.pending.popleft()


def _step(run: Run, batches: list[Batch], horizon: int) -> dict[str, float]:
    """One optimiser step on one or more batches, each counting by its labels: as if they were one batch."""
    settings, optimizer = run.training, run.optimizer
    run.model.train(all(needs_of(t).dropout for t in run.techniques))
    assert optimizer is not None
    weights = [batch.weight for batch in batches]
    total = max(1, sum(weights))
    metrics: dict[str, float] = {}
    optimizer.zero_grad(set_to_none=True)
    for batch, weight in zip(batches, weights, strict=True):
        with computing(run.model, settings.precision):
            losses = run.step(batch)
        (losses["loss"] if len(batches) == 1 else losses["loss"] * (weight / total)).backward()
        for name, value in losses.items():
            metrics[name] = metrics.get(name, 0.0) + float(value.detach()) * weight / total
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf, foreach=True))
    _refuse_nonsense(run, metrics["loss"], norm)
    rate = settings.rate(run.steps, horizon, run.learning_rate)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return metrics | {"learning_rate": rate, "gradient_norm": norm}


def _refuse_nonsense(run: Run, loss: float, norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's length is {norm}"
    owner = " and ".join(run.hooks.owners("compute_loss"))
    likely = (
        f"the learning rate {run.learning_rate:g} is too high, try {run.learning_rate / 10:g}"
        if run.steps
        else "its inputs or its loss are wrong before any step was taken"
    )
    raise FloatingPointError(
        f"{what} at step {run.steps + 1} of {owner}: probably {likely}; the weights are those of the last good step"
    )


def _evaluate(run: Run, show: Progress) -> None:
    if "validation" not in run.corpus.splits:
        return
    at, settings = run.position, run.training
    found: dict[str, Any] = {"step": at.step, **run.evaluate("validation", settings.evaluate_batches)}
    run.evaluations.append(found)
    show.evaluated(run, found)
    loss = found.get("loss")
    if loss is None:
        return
    if not run.best or loss < run.best["loss"]:
        run.best = {"loss": loss, "step": at.step, "weights": snapshot(run.model) if settings.keep_best else {}}
        at.worse = 0
    else:
        at.worse += 1
        if settings.patience and at.worse >= settings.patience:
            run.stop(f"no better validation loss in {at.worse} evaluations")


@contextmanager
def _interruptible(run: Run) -> Iterator[None]:
    """Ctrl-C asks for a stop after the step in hand; a second one insists."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, frame: Any) -> None:
        if run.stopped:
            raise KeyboardInterrupt
        run.stop("interrupted")

    before = signal.signal(signal.SIGINT, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

"""Distillation: learn all that a teacher thinks of each next token, beside the token itself (Hinton et al. 2015).

    L = (1 - α) CE(y, softmax z) + α T² KL(q ‖ p)        q = softmax(z_teacher / T), p = softmax(z / T)

KL = Σ_v q_v log(q_v / p_v), mean over the tokens that have a label. Its gradient by z is (p - q) / T, and T² makes up
for it and for q and p being nearer to each other at a high T. What the teacher says is data, made with the batches; it
reads what the student reads. Without a teacher that is the model itself as it was before the first step, so that what
it knew is kept (Li & Hoiem 2016, Learning without Forgetting).

1. This is the word-level distillation of Kim & Rush (2016). Their other one, at the level of sequences, is to train on
   what a teacher wrote, which needs no technique.
2. What the teacher says is kept whole: V numbers a label, from when a batch is made until its step.
3. What is measured is the objective's own loss, as without a teacher, and KL beside it; `loss` in the history is L.
4. DistilBERT's third term, on hidden vectors (Sanh et al. 2019), is left out, and its start from the teacher's layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llmlab.batch import Batch, Chunk
from llmlab.generate import evaluating
from llmlab.losses import IGNORE
from llmlab.model import Transformer
from llmlab.precision import computing
from llmlab.pretrained import load_model
from llmlab.surgery import pass_on, snapshot, swapped
from llmlab.technique import hookimpl, knob, naming, technique

TEACHER = "teacher"  # among a batch's targets: log q (N, V) at its N labels


def divergence(logits: Tensor, log_q: Tensor, T: float) -> Tensor:
    """KL(q ‖ p) in nats, the mean over N labels, with p = softmax(z / T): (N, V), (N, V) -> ()."""
    return F.kl_div((logits / T).log_softmax(-1), log_q, reduction="batchmean", log_target=True)


def _objection(distillation: Any, config: Any) -> str | None:
    teacher = _in_memory(distillation.teacher)
    return _mismatch(teacher, config) if isinstance(teacher, Transformer) else None


@technique(kind="extra", objection=_objection, labels=True)
class Distillation:
    """Distillation: learn from a teacher's whole distribution of each next token, beside the token itself."""

    teacher: Any = knob(None, "A model, its name or folder; none: the model itself, as it was before the first step.")
    temperature: float = knob(2.0, "T: divides both logits; higher shows more of the unlikely.", low=0.1, high=100.0)
    weight: float = knob(
        0.3, "α: the teacher's share of the loss; the objective's own has the rest.", low=0.0, high=1.0
    )

    def __post_init__(self) -> None:
        if isinstance(self.teacher, PathLike):
            self.teacher = str(self.teacher)  # a run file holds text
        self._found: tuple[Any, Transformer] | None = None

    @hookimpl
    def before_fit(self, run: Any) -> None:
        if self._teacher(run) is run.model:
            if not run.given:
                raise ValueError(
                    "Distillation.teacher: nothing is given, and a new model has nothing to teach itself: "
                    "name a teacher, Distillation('tiny-gpt'), or give the run a trained model"
                )
            run.state[self]["start"] = snapshot(run.model)

    @hookimpl(wrapper=True, tryfirst=True)  # outermost: the teacher reads what the student is going to read
    def batches(self, run: Any, examples: Chunk) -> Any:
        made = yield
        return self._taught(run, made)

    def _taught(self, run: Any, made: Iterator[Batch]) -> Iterator[Batch]:
        teacher, start = self._teacher(run), run.state[self].get("start", {})
        for batch in (b.to(run.device) for b in made):
            labels = batch["labels"]  # (B, T)
            precise = computing(teacher, run.training.precision)
            with naming("Distillation.teacher"), evaluating(teacher), swapped(teacher, start), precise:
                logits = teacher.logits(teacher(**batch.inputs), labels != IGNORE)  # (N, V)
            batch.targets[TEACHER] = (logits / self.temperature).log_softmax(-1)
            yield batch

    @hookimpl(wrapper=True, trylast=True)  # innermost: the weights are the objective's and the teacher's shares
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> Any:
        losses = yield
        T, alpha, hard = self.temperature, self.weight, losses["loss"]
        kl = divergence(model.logits(output, batch["labels"] != IGNORE), batch[TEACHER], T)
        if not torch.is_grad_enabled():  # measured, not learnt
            return losses | {"divergence": kl}
        return losses | {"loss": (1 - alpha) * hard + alpha * T**2 * kl, "hard_loss": hard, "divergence": kl}

    def _teacher(self, run: Any) -> Transformer:
        """Who teaches this run's model; that it can is checked once."""
        if self._found is None or self._found[0] is not run.model:
            with naming("Distillation.teacher"):
                self._found = run.model, self._find(run.model)
        return self._found[1]

    def _find(self, student: Transformer) -> Transformer:
        given = load_model(self.teacher) if isinstance(self.teacher, str) else _in_memory(self.teacher)
        if given is None:
            return student
        if not isinstance(given, Transformer):
            raise TypeError(f"a teacher is a model, a run, a name or a folder, not {given!r:.60}")
        if (why := _mismatch(given, student.config)) is not None:
            raise ValueError(why)
        if given.tokenizer != student.tokenizer or given.config.vocab_size != student.config.vocab_size:
            raise ValueError(
                "the teacher's tokens are not the student's: make the student with its tokenizer, "
                "Run(…, tokenizer=teacher.tokenizer), or give a teacher that has the student's"
            )
        teacher = pass_on(given)  # what is given stays where it is
        return teacher.requires_grad_(False).to(next(student.parameters()).device)


def _in_memory(teacher: Any) -> Any:
    """The model itself, of a run that is given."""
    return getattr(teacher, "model", teacher)


def _mismatch(teacher: Transformer, config: Any) -> str | None:
    """Why a model of this shape cannot learn from the teacher, or None."""
    theirs, its = teacher.config.family, config.family
    if theirs != its:
        return f"takes no {theirs} as teacher of this {its}, whose batches it cannot read: give it another teacher"
    return None

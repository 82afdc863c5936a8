"""Supervised fine-tuning: learn to answer from prompts and responses (Ouyang et al. 2022, section 3.5).

    L = -1/|y| Σ_t log p(y_t | x, y_1 … y_{t-1})        x the prompt, y the response and its end mark

1. A text longer than the context is cut: the response at its end, down to half of the context, then the prompt at its
   beginning. `cut` among the measures is the share of such texts.
2. Answers are compared without the white space around them.
3. Packing fills rows first come, first served; it does not look for the tightest fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from llmlab.answers import compare, read_pairs, usual_measure
from llmlab.batch import Batch, Chunk, pad
from llmlab.data.pairs import PAIRS
from llmlab.losses import IGNORE
from llmlab.metrics import ANSWERS, perplexity
from llmlab.surgery import Wrapper, replace_modules
from llmlab.technique import hookimpl, knob, technique


class NoisyEmbeddings(Wrapper):
    """NEFTune (Jain et al. 2023): while training, add noise U(-1, 1) · α / √(T D) to the embeddings (B, T, D)."""

    temporary = True  # part of the training, not of the model

    def __init__(self, embeddings: nn.Module, alpha: float) -> None:
        super().__init__(embeddings)
        self.alpha = alpha

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        x: Tensor = self.base(*args, **kwargs)
        if not self.training:
            return x
        return x + torch.empty_like(x).uniform_(-1, 1) * (self.alpha / math.sqrt(x.size(-2) * x.size(-1)))


class Rows(list[dict[str, Any]]):
    """What is trained on: each row one document or, packed, several. `pairs` are the documents one by one.

    `facts` says of the split what needs no model: its floor, the share that was cut. `measure` suits its answers.
    """

    def __init__(
        self, rows: list[dict[str, Any]], pairs: list[dict[str, Any]], facts: dict[str, float], measure: str
    ) -> None:
        super().__init__(rows)
        self.pairs, self.facts, self.measure = pairs, facts, measure
        self.lengths = [sum(len(d["tokens"]) - 1 for d in row["documents"]) for row in rows]


@technique(kind="objective", columns=PAIRS, families=["decoder"], learning_rate=1e-3, base=True)
class SFT:
    """Supervised fine-tuning: learn to answer from prompts and responses."""

    mask_prompt: bool = knob(True, "Learn the response alone; off, the prompt's tokens are in the loss too.")
    packing: bool = knob(False, "Put several short examples in one row, none of which sees another.")
    smoothing: float = knob(0.0, "Label smoothing ε: the share of certainty spread over all tokens.", low=0.0, high=0.5)
    neftune: float = knob(0.0, "Noise α on the embeddings while training; the paper uses 5 to 15.", low=0.0, high=100.0)
    answers: int = knob(16, "Answers an evaluation writes and compares with the right ones.", low=0, high=1000)
    longest: int = knob(32, "Longest right answer, in tokens, that is compared so.", low=1, high=4096)
    measure: str = knob(
        "auto",
        "How answers are compared: words (exact match, F1), classes (accuracy, macro F1), BLEU or ROUGE; auto: classes "
        "where the data has labels, else words.",
        choices=("auto", *ANSWERS),
    )

    @hookimpl
    def adapt_model(self, model: nn.Module) -> None:
        if self.neftune:
            replace_modules(model, ["embeddings"], lambda layer: NoisyEmbeddings(layer, self.neftune))

    @hookimpl(wrapper=True, tryfirst=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        tok, room = run.tokenizer, run.model.room
        texts = read_pairs("SFT", rows, split, empty=not self.mask_prompt)
        asked = tok.encode_all([prompt for prompt, _ in texts])
        answered = tok.encode_all([response for _, response in texts])
        pairs: list[dict[str, Any]] = []
        cut = 0
        for (_, response), x, y in zip(texts, asked, answered, strict=True):
            x, y = [tok.bos, *x], [*y, tok.eos]
            cut += len(x) + len(y) > room
            y = y[: max(room // 2, room - len(x))]
            x = x[-(room - len(y)) :]
            pairs.append({"tokens": x + y, "start": len(x), "response": response})
        nats, facts = [row.get("nats") for row in rows], {}
        if cut:
            facts["cut"] = cut / len(pairs)
        elif self.mask_prompt and None not in nats:
            facts["floor"] = sum(nats) / sum(len(p["tokens"]) - p["start"] for p in pairs)
        packed = _pack(pairs, room) if self.packing else [{"documents": [p]} for p in pairs]
        return Rows(packed, pairs, facts, usual_measure(rows, texts))

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        """Each document is shifted by itself, so that no token is predicted from the document before it."""
        tokens, labels, owners = [], [], []
        for row in examples:
            documents = row["documents"]
            shown = [0 if not self.mask_prompt else d["start"] - 1 for d in documents]
            tokens.append([t for d in documents for t in d["tokens"][:-1]])
            labels.append(
                [t for d, n in zip(documents, shown, strict=True) for t in [IGNORE] * n + d["tokens"][n + 1 :]]
            )
            owners.append([i for i, d in enumerate(documents) for _ in d["tokens"][:-1]])
        inputs = {"tokens": pad(tokens, run.tokenizer.pad)}  # (B, T); padding is on the right, where nothing sees it
        if self.packing:
            owner = pad(owners, -1)
            inputs["keep"] = owner[:, :, None] == owner[:, None, :]  # (B, T, T)
        yield Batch(inputs, {"labels": pad(labels, IGNORE)})

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        return {"loss": model.loss(output, batch["labels"], self.smoothing if model.training else 0.0)}

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        rows = run.rows(split)
        found = {"perplexity": perplexity(run.losses(split)["loss"])} | rows.facts
        short = [p for p in rows.pairs if len(p["tokens"]) - p["start"] <= self.longest][: self.answers]
        prompts, right = [p["tokens"][: p["start"]] for p in short], [p["response"] for p in short]
        return found | compare(
            run, prompts, right, self.longest, rows.measure if self.measure == "auto" else self.measure
        )


def _pack(pairs: list[dict[str, Any]], room: int) -> list[dict[str, Any]]:
    """Rows of documents that together have at most `room` input tokens."""
    rows: list[list[dict[str, Any]]] = [[]]
    used = 0
    for p in pairs:
        need = len(p["tokens"]) - 1
        if rows[-1] and used + need > room:
            rows.append([])
            used = 0
        rows[-1].append(p)
        used += need
    return [{"documents": documents} for documents in rows]

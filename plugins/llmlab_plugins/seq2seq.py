"""Sequence to sequence: an encoder reads, a decoder writes (Vaswani et al. 2017; Raffel et al. 2020, T5).

    L = -1/|y| Σ_t log p(y_t | x, y_1 … y_{t-1})        x what the encoder reads, y the target and its end mark

A row that is a pair (a prompt and its response, a source and its target, a text and its label) is learnt as it is. A
row that is text becomes a pair by T5's span corruption: some spans are cut out, a sentinel in the place of each, and
the target lists what was cut.

    the town hall opens at nine  ->  x = the <0> opens at <1> </s>    y = <0> town hall <1> nine </s>

1. Texts are joined and cut into windows. A window starts with text that stays and ends with a span that is cut, as in
   T5's code; the closing sentinel of the paper's figure is therefore never needed.
2. A source that does not fit the context loses its end, and so does a target; `cut` among the measures is the share
   of such pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from llmlab.answers import compare, read_pairs, usual_measure
from llmlab.batch import Batch, Chunk, pad
from llmlab.data.pairs import PAIRS
from llmlab.losses import IGNORE
from llmlab.metrics import ANSWERS, perplexity
from llmlab.technique import hookimpl, knob, technique
from llmlab.tokenizer import Tokenizer
from llmlab.windows import Windows, join


class Rows(list[dict[str, Any]]):
    """What is trained on: rows with `source` and `target` ids, or with the `window` that is yet to be corrupted.

    `facts` says of the split what needs no model: its floor, the share that was cut. `measure` suits its answers.
    """

    def __init__(
        self, pairs: list[dict[str, Any]], windows: list[dict[str, Any]], facts: dict[str, float], measure: str
    ) -> None:
        super().__init__([*pairs, *windows])
        self.pairs, self.facts, self.measure = pairs, facts, measure
        self.lengths = [len(r["window"]) if "window" in r else len(r["source"]) + len(r["target"]) for r in self]


@technique(kind="objective", columns=[*PAIRS, "text"], families=["encoder-decoder"], learning_rate=2e-3)
class Seq2Seq:
    """Sequence to sequence: an encoder reads the source, a decoder writes the target (2017, T5)."""

    smoothing: float = knob(0.0, "Label smoothing ε; 0.1 in 2017.", low=0.0, high=0.5)
    window: int = knob(128, "Tokens of a text that are corrupted together.", low=8, high=8192, log=True)
    rate: float = knob(0.15, "Share of a text's tokens that is cut out.", low=0.01, high=0.9)
    span: float = knob(3.0, "Mean length of what is cut out at a place, in tokens.", low=1.0, high=64.0)
    answers: int = knob(16, "Answers an evaluation writes and compares with the right ones.", low=0, high=1000)
    longest: int = knob(32, "Longest right answer, in tokens, that is compared so.", low=1, high=4096)
    measure: str = knob(
        "auto",
        "How answers are compared: words (exact match, F1), classes (accuracy, macro F1), BLEU or ROUGE; auto: classes "
        "where the data has labels, else words.",
        choices=("auto", *ANSWERS),
    )

    @hookimpl(wrapper=True, tryfirst=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        tok, room = run.tokenizer, run.model.room
        texts = [row for row in rows if "text" in row and "label" not in row]
        told = [row for row in rows if "text" not in row or "label" in row]
        read = read_pairs("Seq2Seq", told, split)
        ids = list(zip(*(tok.encode_all([pair[i] for pair in read]) for i in (0, 1)), strict=True))
        pairs = [
            {"source": [*x[: room - 1], tok.eos], "target": [*y, tok.eos][:room], "response": response}
            for (x, y), (_, response) in zip(ids, read, strict=True)
        ]
        windows: list[dict[str, Any]] = []
        if texts:
            if not tok.sentinels:
                raise ValueError(
                    "this tokenizer has no sentinels for span corruption: give pairs, or train a tokenizer"
                )
            windows = [{"window": w["tokens"]} for w in Windows(join(texts, tok)[0], min(self.window, room - 1))]
            windows = [w for w in windows if len(w["window"]) > 1]  # a single token leaves nothing to read
        nats, facts = [row.get("nats") for row in told], {}
        cut = sum(max(len(x), len(y)) >= room for x, y in ids)
        if cut:
            facts["cut"] = cut / len(pairs)
        elif pairs and not texts and None not in nats:
            facts["floor"] = sum(nats) / sum(len(p["target"]) for p in pairs)
        return Rows(pairs, windows, facts, usual_measure(told, read))

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        tok, sources, targets = run.tokenizer, [], []
        for row, draw in zip(examples, examples.generators("spans"), strict=True):
            if "window" in row:
                source, target = self.corrupt(row["window"].tolist(), tok, draw)
            else:
                source, target = row["source"], row["target"]
            sources.append(source)
            targets.append(target)
        inputs = {"tokens": pad([[tok.bos, *t[:-1]] for t in targets], tok.pad), "source": pad(sources, tok.pad)}
        keep = pad([[1] * len(s) for s in sources]).bool()  # (B, S)
        yield Batch(inputs | ({} if keep.all() else {"source_keep": keep}), {"labels": pad(targets, IGNORE)})  # (B, T)

    def corrupt(self, tokens: list[int], tok: Tokenizer, draw: torch.Generator) -> tuple[list[int], list[int]]:
        """What is left of the tokens, and what was cut, a sentinel before each; both end with the end mark."""
        source, target = [], []
        at = 0
        for sentinel, stay, cut in zip(tok.sentinels, *self.spans(len(tokens), len(tok.sentinels), draw), strict=False):
            source += [*tokens[at : at + stay], sentinel]
            target += [sentinel, *tokens[at + stay : at + stay + cut]]
            at += stay + cut
        return [*source, tok.eos], [*target, tok.eos]

    def spans(self, length: int, most: int, draw: torch.Generator) -> tuple[list[int], list[int]]:
        """Lengths of the parts that stay and of those that are cut, in turns; `length` is at least 2."""
        noise = min(max(1, round(self.rate * length)), length - 1)
        count = min(max(1, round(noise / self.span)), noise, length - noise, most)
        return _parts(length - noise, count, draw), _parts(noise, count, draw)

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        return {"loss": model.loss(output, batch["labels"], self.smoothing if model.training else 0.0)}

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        rows = run.rows(split)
        found = {"perplexity": perplexity(run.losses(split)["loss"])} | rows.facts
        short = [p for p in rows.pairs if len(p["target"]) <= self.longest][: self.answers]
        sources, right = [p["source"] for p in short], [p["response"] for p in short]
        return found | compare(
            run, sources, right, self.longest, rows.measure if self.measure == "auto" else self.measure
        )


def _parts(total: int, count: int, draw: torch.Generator) -> list[int]:
    """`total` as a sum of `count` whole numbers of at least 1, each way equally likely."""
    cuts = (torch.randperm(total - 1, generator=draw)[: count - 1] + 1).sort().values.tolist()
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]

"""Supervised fine-tuning: learn to answer from examples of prompts and responses (Ouyang et al. 2022, section 3.5).

    L = -1/|y| Σ_t log p(y_t | x, y_1 … y_{t-1})        x the prompt, y the response and its end mark

1. A text longer than the context loses the beginning of its prompt; a response that does not fit loses its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from llmlab.batch import Batch, Chunk, pad
from llmlab.data.pairs import PAIRS, as_pair
from llmlab.losses import IGNORE
from llmlab.metrics import accuracy, perplexity, token_f1
from llmlab.technique import hookimpl, knob, technique


class Pairs(list[dict[str, Any]]):
    """Tokenised rows; like lengths are batched together."""

    floor: float | None = None

    @property
    def lengths(self) -> list[int]:
        return [len(row["tokens"]) for row in self]


@technique(kind="objective", columns=PAIRS, families=["decoder"], learning_rate=1e-3, base=True)
class SFT:
    """Supervised fine-tuning: learn to answer from prompts and responses."""

    mask_prompt: bool = knob(True, "Learn the response alone; off, the prompt's tokens are in the loss too.")
    answers: int = knob(16, "Answers an evaluation writes and compares with the right ones.", low=0, high=1000)
    longest: int = knob(32, "Longest right answer, in tokens, that is compared so.", low=1, high=4096)

    @hookimpl(wrapper=True, tryfirst=True)
    def examples(self, run: Any, split: str) -> Any:
        rows = yield
        tok, room = run.tokenizer, run.model.config.context
        pairs = [as_pair(row) for row in rows]
        asked = tok.encode_all([prompt for prompt, _ in pairs])
        answered = tok.encode_all([response for _, response in pairs])
        kept = Pairs()
        for (prompt, response), x, y in zip(pairs, asked, answered, strict=True):
            y = [*y, tok.eos][: room - 1]
            x = [tok.bos, *x][-(room - len(y)) :]
            kept.append({"tokens": x + y, "start": len(x), "prompt": prompt, "response": response})
        nats = [row.get("nats") for row in rows]
        if self.mask_prompt and None not in nats:
            kept.floor = sum(nats) / sum(len(row["tokens"]) - row["start"] for row in kept)
        return kept

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        tokens = pad([row["tokens"] for row in examples], run.tokenizer.pad)  # (B, T+1)
        labels = pad([row["tokens"] for row in examples], IGNORE)
        if self.mask_prompt:
            for line, row in zip(labels, examples, strict=True):
                line[: row["start"]] = IGNORE
        yield Batch({"tokens": tokens[:, :-1]}, {"labels": labels[:, 1:]})  # padding is on the right: unseen

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        return {"loss": model.loss(output, batch["labels"])}

    @hookimpl
    def evaluate(self, run: Any, split: str) -> dict[str, float]:
        rows = run.rows(split)
        found = {"perplexity": perplexity(run.losses(split)["loss"])}
        if rows.floor is not None:
            found["floor"] = rows.floor
        short = [row for row in rows if len(row["tokens"]) - row["start"] <= self.longest][: self.answers]
        if short:
            prompts = [row["tokens"][: row["start"]] for row in short]
            said = [text.strip() for text in run.respond(prompts, max_new_tokens=self.longest).text]
            wanted = [row["response"].strip() for row in short]
            found |= {"exact_match": accuracy(said, wanted), "f1": token_f1(said, wanted)}
        return found

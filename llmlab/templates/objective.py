"""Template: focal loss, in which tokens that the model is sure of count for little (Lin et al. 2017).

    L = -1/T Σ_t (1 - p_t)^γ log p_t        p_t = p(y_t | x, y_1 … y_{t-1}), for the T tokens of the response y

1. A prompt that leaves no room for its response loses its beginning, and a long response its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from llmlab.batch import Batch, Chunk
from llmlab.data.pairs import PAIRS, as_pair
from llmlab.generate import as_prompt
from llmlab.losses import IGNORE, mean_over
from llmlab.rollout import lined_up
from llmlab.technique import hookimpl, knob, technique


@technique(kind="objective", columns=PAIRS, families=["decoder", "encoder-decoder"], learning_rate=1e-3, base=True)
class Template:
    """Learn responses by the focal loss: what the model is sure of counts for little."""

    gamma: float = knob(2.0, "γ: how fast a token counts for less as p grows; 0: not.", low=0.0, high=10.0)

    @hookimpl
    def batches(self, run: Any, examples: Chunk) -> Iterator[Batch]:
        """Rows of text to tensors: what the model reads, and the labels (B, T), IGNORE but for the response."""
        tok, half = run.tokenizer, run.model.room // 2
        pairs = [as_pair(row) for row in examples]
        prompts = [as_prompt(run.model, prompt)[-half:] for prompt, _ in pairs]
        responses = [[*tok.encode(response), tok.eos][:half] for _, response in pairs]
        inputs, labels = lined_up(run.model, prompts, responses)
        yield Batch(inputs, {"labels": labels})

    @hookimpl
    def compute_loss(self, model: Any, batch: Batch, output: Any) -> dict[str, Tensor]:
        """Scalars by name; "loss" is the one that is minimised, the others are shown."""
        labels = batch["labels"]
        logp = model.logprobs(output, labels)  # (B, T), 0 where there is no label
        focal = -((1 - logp.exp()) ** self.gamma) * logp
        mask = labels != IGNORE
        return {"loss": mean_over(focal, mask), "cross_entropy": mean_over(-logp, mask).detach()}

"""BitFit: train the biases alone; every weight matrix stays as it is (Ben Zaken et al. 2021).

    y = W x + b    and in a layer norm    y = g ⊙ (x - μ) / σ + b        b trains, W and g do not

1. The paper also trains a new classifier for each task. Tasks of this kit are texts, written by the head that the model
   already has: its matrix, mostly the embeddings' own, stays frozen; a bias that it has trains with the others.
2. A model without some of the biases trains those it has: of "query and MLP", a Qwen2 has the queries' alone.
"""

from __future__ import annotations

from llmlab.model import ModelConfig
from llmlab.technique import hookimpl, knob, technique

# how a parameter's name ends. The paper's two are b_q and b_m2, inside the MLP's activation: that layer is `up` here
ENDS = {"all": (".bias",), "query and MLP": (".query.bias", ".mlp.up.bias", ".mlp.gate.bias")}


def without_biases(technique: BitFit, config: ModelConfig) -> str | None:
    """Why there is nothing to train in a model of this shape, or None."""
    others = config.norm == "layernorm" or config.head_bias or config.head_transform or config.pooler
    if config.bias != "none" or (technique.which == "all" and others):
        return None
    kinds = "no biases" if not others else 'no biases in queries and MLP, choose which="all"'
    return f"trains biases, and this model has {kinds}: choose another adaptation, or a model with biases"


@technique(kind="adaptation", learning_rate=2e-2, base=True, objection=without_biases)
class BitFit:
    """Train the biases alone; freeze every matrix, gain and embedding."""

    which: str = knob(
        "all", "All biases, or the paper's two kinds: the queries' and the MLP's middle.", choices=[*ENDS]
    )

    @hookimpl
    def trains(self, name: str) -> bool:
        return name.endswith(ENDS[self.which])

"""Prefix-tuning: train keys and values that stand before the text in every layer (Li & Liang 2021).

    attention of token t:   softmax(q_t [P_K; K]ᵀ / √(D/H)) [P_V; V]         P_K, P_V: n rows for each layer and head
    P[i] = W₂ tanh(W₁ P′[i] + b₁) + b₂                                      P (n, 2·L·d), P′ (n, d) with the MLP trained

The model's own weights stay as they are. The MLP is there for training: `merge` computes P once and drops it. Every
token sees the prefix, which takes n places of the context. Unlike other adaptations it does not start at the base.

1. Each stack has one P′ and one MLP. A decoder's makes the prefix of its cross-attention too; the paper's code has a
   third for that.
2. P′ is as wide as the model. Layers share tanh(W₁ P′ + b₁) and each computes it anew, which is little beside the text.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmlab.cache import Cache
from llmlab.generate import evaluating
from llmlab.layers import split_heads
from llmlab.surgery import Wrapper, named_layers, replace_modules, unwrap
from llmlab.technique import hookimpl, knob, technique


class VirtualTokens(nn.Module):
    """P: what n virtual tokens hold in every attention layer of one stack, as a table or made by an MLP."""

    def __init__(self, length: int, width: int, columns: int, hidden: int) -> None:
        super().__init__()
        self.length, self.hidden = length, hidden
        self.wanted = True  # False while a cache holds them already
        if hidden:
            self.embedding = nn.Parameter(torch.randn(length, width))  # P′
            self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, columns)
        else:
            self.table = nn.Parameter(torch.randn(length, columns))

    def forward(self, columns: slice = slice(None)) -> Tensor:
        """Columns of P: (n, columns)."""
        if not self.hidden:
            return self.table[:, columns]
        return F.linear(self.features(), self.down.weight[columns], self.down.bias[columns])

    def features(self) -> Tensor:
        """What the MLP's last layer reads: (n, hidden)."""
        return torch.tanh(self.up(self.embedding))

    @torch.no_grad()
    def start(self, P: Tensor) -> None:
        """Begin at P (n, columns): the least change of W₂ that makes it, exact if n is at most the MLP's width."""
        if not self.hidden:
            self.table.copy_(P)
        else:
            self.down.weight += (torch.linalg.pinv(self.features()) @ (P - self())).T

    @torch.no_grad()
    def drop_mlp(self) -> None:
        """Keep P alone."""
        if self.hidden:
            self.table = nn.Parameter(self())
            self.hidden = 0
            del self.embedding, self.up, self.down


class PrefixPositions(Wrapper):
    """The text stands after n virtual tokens."""

    before_text = True
    merged_knobs: ClassVar = {"hidden": 0}

    def __init__(self, positions: nn.Module, prefix: VirtualTokens, context: int) -> None:
        super().__init__(positions)
        self.prefix, self.context = prefix, context

    def forward(self, new: int, past: int, keep: Tensor | None) -> Tensor:
        positions: Tensor = self.base(new, past, keep) + self.prefix.length
        reach = int(positions.max()) + 1
        if reach > self.context:
            n, room = self.prefix.length, self.context
            raise ValueError(f"{reach - n} tokens and a prefix of {n} do not fit the context of {room}: shorten one")
        self.prefix.wanted = past == 0
        return positions

    def merged(self) -> nn.Module:
        self.prefix.drop_mlp()
        return self


class PrefixKeyValue(Wrapper):
    """Keys and values of one layer, (B, T, D) -> two of (B, K, n + T, D/H), those of the virtual tokens first."""

    before_text = True
    merged_knobs: ClassVar = {"hidden": 0}

    def __init__(self, kv: nn.Module, prefix: VirtualTokens, columns: slice) -> None:
        super().__init__(kv)
        self.prefix, self.columns = prefix, columns

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.base(x)
        if not self.prefix.wanted:
            return k, v
        P = split_heads(self.prefix(self.columns)[None], 2 * k.size(1)).type_as(k)
        P_K, P_V = P.expand(len(x), -1, -1, -1).chunk(2, 1)  # (B, K, n, D/H)
        return torch.cat([P_K, k], 2), torch.cat([P_V, v], 2)

    def merged(self) -> nn.Module:
        self.prefix.drop_mlp()
        return self


@technique(kind="adaptation", learning_rate=3e-3, base=True)
class Prefix:
    """Train keys and values before the text in every layer; freeze the model."""

    length: int = knob(10, "Virtual tokens n; they take n places of the context.", low=1, high=1024, log=True)
    hidden: int = knob(
        512, "Width of the MLP that makes the prefix; 0 trains the prefix itself, at a rate near 0.3.", low=0, high=8192
    )
    words: str = knob("", "Text whose keys and values the prefix starts from (a decoder's); empty: random numbers.")

    @hookimpl
    def adapt_model(self, model: Any) -> None:
        context = model.config.context
        if self.length >= context:
            raise ValueError(f"Prefix.length = {self.length}: leaves no room in the model's context of {context}")
        start = self.activations(model) if self.words else None
        size = 2 * (model.config.kv_heads or model.config.heads) * model.config.head_width  # of one layer
        stacks: list[Any] = [unwrap(s) for s in (model.encoder, model.decoder) if s is not None]
        for stack in stacks:
            layers = [path for path, *_ in named_layers(stack) if path.endswith(".kv")]
            prefix = VirtualTokens(self.length, model.config.width, len(layers) * size, self.hidden)
            prefix.to(stack.embeddings.token.weight)
            if start is not None:
                prefix.start(start)
            columns = iter([slice(i * size, (i + 1) * size) for i in range(len(layers))])
            replace_modules(stack, ["positions"], lambda layer: PrefixPositions(layer, prefix, context))  # noqa: B023
            replace_modules(stack, ["kv"], lambda layer: PrefixKeyValue(layer, prefix, next(columns)))  # noqa: B023

    def activations(self, model: Any) -> Tensor:
        """Keys and values of `words`, repeated to n tokens: (n, 2·L·d). With them the prefix is those words."""
        if model.encoder is not None or model.tokenizer is None:
            raise ValueError(f"Prefix.words = {self.words!r}: needs a decoder with a tokenizer; leave it empty")
        ids = model.tokenizer.encode(self.words)
        ids = (ids * self.length)[: self.length]
        cache = Cache(0)
        with evaluating(model):
            model(torch.tensor([ids], device=next(model.parameters()).device), cache=cache)
        stores = [block.attention.read() for block in cache.blocks]
        return torch.cat([t[0].transpose(0, 1).flatten(1) for kv in stores for t in kv], -1)

    @hookimpl
    def trains(self, name: str) -> bool:
        return ".prefix." in name

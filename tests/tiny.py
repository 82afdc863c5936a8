"""Tiny models in double precision, and wrappers that follow the kernel's seams, for tests of the kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from llmlab.model import ModelConfig, Transformer
from llmlab.surgery import Wrapper, replace_modules
from llmlab_plugins.lora import LoRA

V, T = 41, 11
TIGHT = dict(rtol=0, atol=1e-12)


def build(seed: int = 0, **settings: Any) -> Transformer:
    """A tiny model in double precision and eval mode, with weights large enough that every part matters."""
    torch.manual_seed(seed)
    sizes = dict(vocab_size=V, context=24, layers=2, heads=4, width=16, positions="learned", init_std=0.3)
    model = Transformer(ModelConfig(**{**sizes, **settings})).double().eval()
    for p in model.parameters():
        if p.dim() == 1:  # biases and gains start at 0 and 1, where mistakes hide
            nn.init.normal_(p, mean=p.mean().item(), std=0.2)
    return model


def some(rows: int = 3, length: int = T, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, V, (rows, length), generator=torch.Generator().manual_seed(seed))


LLAMA = dict(positions="rotary", norm="rmsnorm", gated=True, activation="silu", bias="none", tied=False)
VARIANTS: dict[str, dict[str, Any]] = {
    "learned": {},
    "rotary": LLAMA,
    "grouped": {**LLAMA, "kv_heads": 2, "bias": "qkv"},
    "one key head": {"kv_heads": 1},
    "sinusoidal post-norm": dict(
        positions="sinusoidal", norm_position="post", activation="relu", scale_embeddings=True
    ),
    "relative": dict(
        positions="relative",
        relative_buckets=8,
        relative_span=11,
        scale_attention=False,
        scale_logits=True,
        bias="none",
    ),
    "head and embedding norm": dict(norm_embeddings=True, head_transform=True, head_bias=True, activation="gelu"),
}
variants = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)


class Prefix(Wrapper):
    """Two trained entries before the keys and values of a layer."""

    def __init__(self, base):
        super().__init__(base)
        size = base.key.out_features // base.heads
        self.k, self.v = (nn.Parameter(torch.randn(1, base.heads, 2, size).double()) for _ in "kv")

    def forward(self, x):
        k, v = self.base(x)
        return tuple(torch.cat([p.expand(len(x), -1, -1, -1), t], 2) for p, t in ((self.k, k), (self.v, v)))


class CountingPrefix(Wrapper):
    def forward(self, new, past, keep):
        return self.base(new, past, keep) + 2


class Bottleneck(Wrapper):
    def __init__(self, base, width=16):
        super().__init__(base)
        self.down, self.up = nn.Linear(width, 3).double(), nn.Linear(3, width).double()

    def forward(self, *args, **kwargs):
        h = self.base(*args, **kwargs)
        return h + self.up(torch.relu(self.down(h)))


class Scale(Wrapper):
    def __init__(self, base):
        super().__init__(base)
        self.scale = nn.Parameter(torch.randn(base.out_features).double())

    def forward(self, x):
        return self.base(x) * self.scale


def add_prefix(model):
    replace_modules(model, ["kv"], Prefix)
    replace_modules(model, ["positions"], CountingPrefix)


def add_lora(model):
    LoRA(rank=2).adapt_model(model)
    for name, p in model.named_parameters():
        if "lora_b" in name:
            nn.init.normal_(p, std=0.3)


WRAPPERS = {
    "bare": lambda model: None,
    "lora": add_lora,
    "prefix": add_prefix,
    "bottleneck": lambda model: replace_modules(model, ["attention", "mlp"], Bottleneck),
    "scale": lambda model: replace_modules(model, ["kv.key", "kv.value"], Scale),
    "all": lambda model: [add(model) for name, add in WRAPPERS.items() if name not in ("all", "bare")],
}

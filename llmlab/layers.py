"""The parts of a Transformer, each short enough to be read aloud: norms, positions, attention, feed-forward, block.

Letters in shapes, here and in the whole kit: B rows of a batch, T tokens now, S tokens attended to
(the past and a prefix included), D width, H heads, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from .cache import BlockCache, Store
    from .model import ModelConfig

Angles = tuple[Tensor, Tensor]  # cosines and sines, each (T, D/H) or (B, 1, T, D/H)


def make_norm(config: ModelConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016), (x - mean) / std * g + b; or RMSNorm (Zhang & Sennrich 2019), x / rms * g."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.width, eps=config.norm_eps)
    return nn.LayerNorm(config.width, eps=config.norm_eps)


class Positions(nn.Module):
    """Says where each token stands: 0, 1, 2, … over the tokens that are kept.

    A technique that puts something before the text wraps this module and adds what it put there.
    """

    def forward(self, new: int, past: int, keep: Tensor | None) -> Tensor:
        """Positions of the last `new` tokens after `past` ones: (T,), or (B, T) where `keep` leaves some out.

        `keep` is (B, S), or (B, T, S) where tokens differ in what they see: then a token's position is the
        number of tokens before it that it sees, so that each of several packed documents starts from 0.
        """
        if keep is None:
            return torch.arange(past, past + new)
        count = keep.cumsum(-1)[:, -new:] if keep.dim() == 2 else keep.tril(past).sum(-1)
        return (count - 1).clamp(min=0)


class LearnedPositions(nn.Embedding):
    """One trained vector per position (GPT-2, BERT): (T,) or (B, T) -> (…, T, D)."""


class SinusoidalPositions(nn.Module):
    """Waves of falling frequency (Vaswani et al. 2017, section 3.5): (T,) or (B, T) -> (…, T, D).

    PE(p, 2i) = sin(p / 10000^(2i/D)),  PE(p, 2i+1) = cos(p / 10000^(2i/D))
    """

    table: Tensor

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        frequency = 10000 ** (-torch.arange(0, width, 2) / width)  # (D/2,)
        angle = torch.arange(context)[:, None] * frequency  # (context, D/2)
        self.register_buffer("table", torch.stack([angle.sin(), angle.cos()], -1).flatten(1), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        return self.table[positions]


class RotaryPositions(nn.Module):
    """Angles by which queries and keys are turned (RoPE, Su et al. 2021); nothing is added to the embeddings.

    The dot product of a query turned by p·θ and a key turned by s·θ depends on p - s alone.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, context: int, head_width: int, base: float) -> None:
        super().__init__()
        frequency = base ** (-torch.arange(0, head_width, 2) / head_width)  # (D/2H,)
        angle = torch.outer(torch.arange(context).float(), frequency).repeat(1, 2)  # (context, D/H)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, positions: Tensor) -> Angles:
        cos, sin = self.cos[positions], self.sin[positions]
        return (cos, sin) if positions.dim() == 1 else (cos.unsqueeze(1), sin.unsqueeze(1))  # room for H


class RelativeBias(nn.Module):
    """What each head adds to a score by how far the key stands from the query (T5, Raffel et al. 2020, section 2.1).

    Distances fall into buckets: half of them hold one distance each, the others ever more, up to `relative_span`,
    beyond which all share the last. Where a layer sees both sides, each side has half of the buckets.
    """

    def __init__(self, config: ModelConfig, causal: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(config.relative_buckets, config.heads)
        self.causal, self.span = causal, config.relative_span

    def forward(self, T: int, S: int) -> Tensor:
        """For the last T of S tokens: (H, T, S)."""
        distance = torch.arange(1 - S, T, device=self.table.weight.device)  # key minus query, T + S - 1 of them
        by_distance = self.table(self.bucket(distance)).t()  # (H, T + S - 1)
        return by_distance.unfold(-1, S, 1).flip(1)

    def bucket(self, distance: Tensor) -> Tensor:
        """Bucket of each distance, key minus query: negative before the query."""
        buckets, first = self.table.num_embeddings, 0 * distance
        if not self.causal:
            buckets //= 2
            first = buckets * (distance > 0)
        far = distance.neg().clamp(min=0) if self.causal else distance.abs()
        exact = buckets // 2
        log = torch.log(far.clamp(min=exact) / exact) / math.log(self.span / exact)  # 0 to 1 up to the span
        wide = (exact + log * (buckets - exact)).long().clamp(max=buckets - 1)
        return first + torch.where(far < exact, far, wide)


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Turn the last T entries of `x` (B, H, S, D/H); earlier ones (a prefix) have no place in the text."""
    cos, sin = (a.to(x.dtype) for a in angles)
    T = cos.size(-2)
    prefix, x = x[..., : x.size(-2) - T, :], x[..., x.size(-2) - T :, :]
    left, right = x.chunk(2, -1)
    turned = x * cos + torch.cat([-right, left], -1) * sin
    return torch.cat([prefix, turned], -2) if prefix.size(-2) else turned


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, H, T, D/H)"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class KeyValue(nn.Module):
    """Keys and values of a sequence (B, T, D) -> two of (B, H, T, D/H). Replaceable: a prefix makes both longer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.kv_heads or config.heads
        size = self.heads * config.head_width
        self.key = nn.Linear(config.width, size, bias=config.bias != "none")
        self.value = nn.Linear(config.width, size, bias=config.bias != "none")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return split_heads(self.key(x), self.heads), split_heads(self.value(x), self.heads)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, equation 1): softmax(Q Kᵀ / √(D/H)) V, then a projection.

    With `context` it looks at another sequence (cross-attention). With fewer key than query heads it is
    grouped-query attention (Ainslie et al. 2023).
    """

    def __init__(self, config: ModelConfig, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = config.heads, causal, config.dropout
        self.scale = config.head_width**-0.5 if config.scale_attention else 1.0
        size = config.heads * config.head_width
        self.query = nn.Linear(config.width, size, bias=config.bias != "none")
        self.kv = KeyValue(config)
        self.out = nn.Linear(size, config.width, bias=config.bias == "all")
        self.recorder: Callable[[Tensor], None] | None = None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        keep: Tensor | None = None,
        cache: Store | None = None,
        angles: Angles | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D). `keep` is False where nothing may look, right-aligned with the keys.

        (B, S) hides a key from every token, (B, T, S) from chosen ones. `bias` (H, T, S) is added to the scores of
        the text's keys.
        """
        q = split_heads(self.query(x), self.heads)  # (B, H, T, D/H)
        if context is not None and cache is not None and cache.length:
            k, v = cache.read()  # what cross-attention looks at does not change while we write
        else:
            looked_at = x if context is None else context
            k, v = self.kv(looked_at)  # (B, H, S, D/H)
            if angles is not None:
                q, k = rotate(q, angles), rotate(k, angles)
            if cache is not None:
                k, v = cache.append(k, v, looked_at.size(1))
        if k.size(1) != self.heads:  # grouped queries: each key head serves several query heads
            k, v = (t.repeat_interleave(self.heads // t.size(1), 1) for t in (k, v))
        y = self.attend(q, k, v, keep, bias)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, H, T, D/H) -> (B, T, D)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, bias: Tensor | None = None) -> Tensor:
        T, S = q.size(-2), k.size(-2)
        dropout = self.dropout if self.training else 0.0
        fused = self.recorder is None and not _slow_when_fused(q, S)
        if fused and self.causal and keep is None and bias is None and T == S:  # the plain case, which needs no mask
            return F.scaled_dot_product_attention(q, k, v, None, dropout, is_causal=True, scale=self.scale)
        mask = visible(T, S, self.causal, keep, q.device)
        if bias is not None:
            bias = F.pad(bias, (S - bias.size(-1), 0)).to(q.dtype)  # 0 for what stands before the text
            mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
        if fused:
            return F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        scores = (q * self.scale) @ k.transpose(-1, -2)  # (B, H, T, S)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf")) if bias is None else scores + mask
        weights = scores.softmax(-1)
        if self.recorder is not None:
            self.recorder(weights.detach())
        return F.dropout(weights, dropout) @ v


def _slow_when_fused(q: Tensor, S: int) -> bool:
    """Torch's fused attention is slow backwards in bfloat16 on processors; for short texts, do it by hand."""
    return q.dtype == torch.bfloat16 and q.device.type == "cpu" and S <= 512


def visible(T: int, S: int, causal: bool, keep: Tensor | None, device: torch.device | None = None) -> Tensor | None:
    """What each of T queries may look at among S keys, True where it may: (T, S) or (B, 1, T, S); None for all.

    Both ends line up on the right, so keys without a place in the text (a prefix) are seen by all. In a causal
    layer a token always sees itself, so that no row is empty.
    """
    past = torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T) if causal and T > 1 else None
    if keep is None:
        return past
    mask = keep[:, None, None, :] if keep.dim() == 2 else keep[:, None]  # (B, 1, 1 or T, text)
    mask = F.pad(mask, (S - mask.size(-1), 0), value=True).expand(-1, 1, T, S)
    return mask if past is None else mask & past | past.triu(S - T)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
}


class MLP(nn.Module):
    """Feed-forward on each token alone: W2 act(W1 x), or gated as in LLaMA: W2 (act(Wg x) * W1 x) (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bias = config.bias == "all"
        self.up = nn.Linear(config.width, config.mlp_width, bias=bias)
        self.gate = nn.Linear(config.width, config.mlp_width, bias=bias) if config.gated else None
        self.act = ACTIVATIONS[config.activation]()
        self.down = nn.Linear(config.mlp_width, config.width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)"""
        if self.gate is None:
            return self.down(self.act(self.up(x)))
        return self.down(self.act(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """One layer: attention, perhaps a look at an encoder's memory, feed-forward; each added to its input.

    Pre-norm (GPT-2, LLaMA): x + f(norm(x)). Post-norm (2017, BERT): norm(x + f(x)).
    """

    def __init__(self, config: ModelConfig, causal: bool, cross: bool) -> None:
        super().__init__()
        self.pre = config.norm_position == "pre"
        self.attention, self.norm_attention = Attention(config, causal), make_norm(config)
        self.cross = Attention(config, causal=False) if cross else None
        self.norm_cross = make_norm(config) if cross else None
        self.mlp, self.norm_mlp = MLP(config), make_norm(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        memory: Tensor | None = None,
        memory_keep: Tensor | None = None,
        cache: BlockCache | None = None,
        angles: Angles | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); `memory` is (B, S, D)."""
        own, other = (None, None) if cache is None else (cache.attention, cache.cross)
        x = self.add(x, self.norm_attention, lambda h: self.attention(h, None, keep, own, angles, bias))
        if self.cross is not None and self.norm_cross is not None:
            look = self.cross
            x = self.add(x, self.norm_cross, lambda h: look(h, context=memory, keep=memory_keep, cache=other))
        return self.add(x, self.norm_mlp, self.mlp)

    def add(self, x: Tensor, norm: nn.Module, f: Callable[[Tensor], Tensor]) -> Tensor:
        """The residual connection, with the norm before or after."""
        return x + self.dropout(f(norm(x))) if self.pre else norm(x + self.dropout(f(x)))


class Embeddings(nn.Module):
    """Tokens to vectors: (B, T) -> (B, T, D), with what the family adds: position, token type, norm, scale."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.width) if config.scale_embeddings else 1.0
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position: nn.Module | None = None
        if config.positions == "learned":
            self.position = LearnedPositions(config.context, config.width)
        elif config.positions == "sinusoidal":
            self.position = SinusoidalPositions(config.context, config.width)
        self.segment = nn.Embedding(config.token_types, config.width) if config.token_types else None
        self.norm = make_norm(config) if config.norm_embeddings else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor, types: Tensor | None = None) -> Tensor:
        x = self.token(tokens)
        if self.scale != 1.0:
            x = x * self.scale
        if self.position is not None:
            x = x + self.position(positions).to(x.dtype)
        if self.segment is not None:
            x = x + (self.segment.weight[0] if types is None else self.segment(types))
        return self.dropout(x if self.norm is None else self.norm(x))

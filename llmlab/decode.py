"""A shortcut for writing text: the step that adds one token a row, computed from plain weights.

1. With one token a row, calling modules costs more than the arithmetic. This file does the same sums without
   them; `generate` works as well without this file, only slower.
2. Where a module is not what it seems (a wrapper that is no change of a weight and puts nothing before the text, a
   hook, a recorder of attention), there is no shortcut.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cache import Cache
from .layers import MLP, Attention, Block, Embeddings, KeyValue, Positions, RelativeBias, RotaryPositions, rotate
from .model import Head, Stack, Transformer
from .surgery import Wrapper

M = TypeVar("M", bound=nn.Module)
Map = Callable[[Tensor], Tensor]


class Look(NamedTuple):
    """Cross-attention as functions of (B, …) vectors; its keys and values stand in the cache."""

    norm: Map
    query: Map
    out: Map


class Layer(NamedTuple):
    """One block as functions of (B, …) vectors. `qkv` gives queries, keys and values at once, `up` also the gate."""

    norm_attention: Map
    qkv: Map
    out: Map
    cross: Look | None
    norm_mlp: Map
    up: Map
    act: Map
    down: Map


def shortcut(
    model: Transformer, cache: Cache, keep: Tensor | None, source_keep: Tensor | None, rows: int, steps: int
) -> Map | None:
    """A function from the newest tokens (B,) to the next token's logits (B, V), or None where there is no shortcut.

    `cache` holds the prompts of B `rows` already, and `steps` tokens may follow; `keep` (B, S + steps) says which
    of all these count, `source_keep` (B, S) which of what the encoder read.
    """
    try:
        return _step(bare(model, Transformer), cache, keep, source_keep, rows == 1 and steps >= 16)
    except _InTheWay:
        return None


def _step(model: Transformer, cache: Cache, keep: Tensor | None, source_keep: Tensor | None, stream: bool) -> Map:
    config = model.config
    assert model.decoder is not None  # an encoder alone writes nothing
    decoder = bare(model.decoder, Stack)
    attend = partial(F.scaled_dot_product_attention, scale=config.head_width**-0.5 if config.scale_attention else 1.0)
    H, K = config.heads, config.kv_heads or config.heads
    layers = [_layer(bare(block, Block), stream) for block in decoder.blocks]
    final, head = _norm(decoder.norm), bare(model.head, Head)
    transform, output = head.transform, _linear(head.output, stream=stream)
    embeddings = bare(decoder.embeddings, Embeddings)
    rotary = None if decoder.rotary is None else bare(decoder.rotary, RotaryPositions)
    total = cache.length + cache.room
    _bare_inside(decoder.positions, Positions)
    positions = decoder.positions(total, 0, keep).to(embeddings.token.weight.device)
    before = [stores.attention.length - cache.length for stores in cache.blocks]  # entries that are no text
    masks: list[Tensor | None] = [None] * len(layers)  # (B, 1, 1, S of that layer), added to the scores
    dtype = embeddings.token.weight.dtype
    if keep is not None:
        masks = [_mask(keep, n, dtype) for n in before]
    looks: list[Tensor | None] = [None] * len(layers)  # the same for what the encoder read
    if source_keep is not None:
        looks = [_mask(source_keep, stores.cross.length - source_keep.size(1), dtype) for stores in cache.blocks]
    relative = None if decoder.relative is None else bare(decoder.relative, RelativeBias)
    biases: Tensor | None = None if relative is None else relative(1, total).view(1, K, H // K, total)
    pre = config.norm_position == "pre"

    def step(new: Tensor) -> Tensor:
        n, B = cache.length, len(new)
        here = positions[..., n : n + 1]
        angles = None if rotary is None else rotary(here)
        x = embeddings(new[:, None], here)[:, 0]  # (B, D)
        for layer, stores, mask, look, extra in zip(layers, cache.blocks, masks, looks, before, strict=True):
            h = layer.norm_attention(x) if pre else x
            qkv = layer.qkv(h).view(B, H + 2 * K, 1, -1)
            q, k, v = qkv.split((H, K, K), 1)  # (B, H or K, 1, D/H)
            if angles is not None:
                q, k = rotate(q, angles), rotate(k, angles)
            keys, values = stores.attention.append(k, v, 1)  # (B, K, S, D/H)
            q = q.reshape(B, K, H // K, -1)  # the queries that share a key stand where tokens would
            seen = None if mask is None else mask[..., : keys.size(2)]
            if biases is not None:
                bias = F.pad(biases[..., total - n - 1 :], (extra, 0))  # the new token's, on all before it
                seen = bias if seen is None else seen + bias
            y = layer.out(attend(q, keys, values, seen).reshape(B, -1))
            x = x + y if pre else layer.norm_attention(x + y)
            if layer.cross is not None:
                h = layer.cross.norm(x) if pre else x
                q = layer.cross.query(h).view(B, K, H // K, -1)
                y = layer.cross.out(attend(q, *stores.cross.read(), look).reshape(B, -1))
                x = x + y if pre else layer.cross.norm(x + y)
            h = layer.norm_mlp(x) if pre else x
            y = layer.up(h)
            if config.gated:
                gate, y = y.chunk(2, -1)
                y = layer.act(gate) * y
            else:
                y = layer.act(y)
            y = layer.down(y)
            x = x + y if pre else layer.norm_mlp(x + y)
        cache.length += 1
        return output(transform(final(x)))

    return step


def _mask(keep: Tensor, before: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores, (B, 1, 1, before + S), where `keep` is (B, S)."""
    mask = torch.zeros_like(keep, dtype=dtype).masked_fill(~keep, float("-inf"))
    return F.pad(mask[:, None, None, :], (before, 0))


class _InTheWay(Exception):
    pass


def bare(module: nn.Module, kind: type[M]) -> M:
    """The module, if calling it runs its class's own code and nothing else."""
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    if type(module) is not kind or hooked:
        raise _InTheWay
    return module


def _bare_inside(module: nn.Module, kind: type[M]) -> M:
    """The module inside wrappers that have had their say once the cache holds the prompt."""
    while isinstance(module, Wrapper) and module.before_text:
        module = bare(module, type(module)).base
    return bare(module, kind)


def _layer(block: Block, stream: bool) -> Layer:
    attention, mlp = bare(block.attention, Attention), bare(block.mlp, MLP)
    kv = _bare_inside(attention.kv, KeyValue)
    cross = None
    if attention.recorder is not None:
        raise _InTheWay
    if block.cross is not None and block.norm_cross is not None:
        look = bare(block.cross, Attention)
        if look.recorder is not None:
            raise _InTheWay
        cross = Look(_norm(block.norm_cross), _linear(look.query, stream=stream), _linear(look.out, stream=stream))
    return Layer(
        _norm(block.norm_attention),
        _linear(attention.query, kv.key, kv.value, stream=stream),
        _linear(attention.out, stream=stream),
        cross,
        _norm(block.norm_mlp),
        _linear(*([] if mlp.gate is None else [mlp.gate]), mlp.up, stream=stream),
        mlp.act,
        _linear(mlp.down, stream=stream),
    )


def _linear(*layers: nn.Module, stream: bool) -> Map:
    """Linear layers with the same input as one, their weight updates folded in.

    A single row makes nothing of a weight but read it once, which is faster where its lines in memory are long: so
    `stream` turns a tall matrix around.
    """
    merged = [_merged(layer) for layer in layers]
    weights: list[Tensor] = [m.weight for m in merged]
    biases: list[Tensor] = [m.bias for m in merged if m.bias is not None]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    if stream and weight.size(0) > weight.size(1):
        weight = weight.t().contiguous().t()
    return partial(F.linear, weight=weight, bias=torch.cat(biases) if biases else None)


def _merged(layer: nn.Module) -> nn.Linear:
    if isinstance(layer, Wrapper) and not layer._forward_hooks and not layer._forward_pre_hooks:
        bare(layer.base, nn.Linear)
        try:
            layer = layer.merged()
        except ValueError as error:
            raise _InTheWay from error
    return bare(layer, nn.Linear)


def _norm(module: nn.Module) -> Map:
    if type(module) is nn.Identity:
        return bare(module, nn.Identity)
    if type(module) is nn.RMSNorm:
        norm = bare(module, nn.RMSNorm)
        return partial(F.rms_norm, normalized_shape=norm.normalized_shape, weight=norm.weight, eps=norm.eps)
    layer = bare(module, nn.LayerNorm)
    shape = list(layer.normalized_shape)
    return partial(F.layer_norm, normalized_shape=shape, weight=layer.weight, bias=layer.bias, eps=layer.eps)

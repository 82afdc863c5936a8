"""A shortcut for writing text: the step that adds one token a row, computed from a plain decoder's weights.

1. With one token a row, calling modules costs more than the arithmetic. This file does the same sums without
   them; `generate` works as well without this file, only slower.
2. Where a module is not what it seems (a wrapper that is no change of a weight, a hook, a recorder of
   attention, an encoder to look at), there is no shortcut.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cache import Cache
from .layers import MLP, Attention, Block, Embeddings, KeyValue, Positions, RotaryPositions, rotate
from .model import Head, Stack, Transformer
from .surgery import Wrapper

M = TypeVar("M", bound=nn.Module)
Map = Callable[[Tensor], Tensor]


class Layer(NamedTuple):
    """One block as functions of (B, …) vectors. `qkv` gives queries, keys and values at once, `up` also the gate."""

    norm_attention: Map
    qkv: Map
    out: Map
    norm_mlp: Map
    up: Map
    act: Map
    down: Map


def shortcut(model: Transformer, cache: Cache, keep: Tensor | None, rows: int, steps: int) -> Map | None:
    """A function from the newest tokens (B,) to the next token's logits (B, V), or None where there is no shortcut.

    `cache` holds the prompts of B `rows` already, and `steps` tokens may follow; `keep` (B, S + steps) says which
    of all these count.
    """
    try:
        return _step(bare(model, Transformer), cache, keep, rows == 1 and steps >= 16)
    except _InTheWay:
        return None


def _step(model: Transformer, cache: Cache, keep: Tensor | None, stream: bool) -> Map:
    config = model.config
    if model.encoder is not None or model.decoder is None:
        raise _InTheWay
    decoder = bare(model.decoder, Stack)
    if decoder.relative is not None or not config.scale_attention:
        raise _InTheWay
    H, K = config.heads, config.kv_heads or config.heads
    layers = [_layer(bare(block, Block), stream) for block in decoder.blocks]
    final, head = _norm(decoder.norm), bare(model.head, Head)
    transform, output = head.transform, _linear(head.output, stream=stream)
    embeddings = bare(decoder.embeddings, Embeddings)
    rotary = None if decoder.rotary is None else bare(decoder.rotary, RotaryPositions)
    total = cache.length + cache.room
    positions = bare(decoder.positions, Positions)(total, 0, keep).to(embeddings.token.weight.device)
    mask = None  # (B, 1, 1, total), added to the scores
    if keep is not None:
        mask = torch.zeros_like(keep, dtype=embeddings.token.weight.dtype).masked_fill(~keep, float("-inf"))
        mask = mask[:, None, None, :]
    pre = config.norm_position == "pre"

    def step(new: Tensor) -> Tensor:
        n, B = cache.length, len(new)
        here = positions[..., n : n + 1]
        angles = None if rotary is None else rotary(here)
        x = embeddings(new[:, None], here)[:, 0]  # (B, D)
        for layer, stores in zip(layers, cache.blocks, strict=True):
            h = layer.norm_attention(x) if pre else x
            qkv = layer.qkv(h).view(B, H + 2 * K, 1, -1)
            q, k, v = qkv.split((H, K, K), 1)  # (B, H or K, 1, D/H)
            if angles is not None:
                q, k = rotate(q, angles), rotate(k, angles)
            keys, values = stores.attention.append(k, v, 1)  # (B, K, S, D/H)
            q = q.reshape(B, K, H // K, -1)  # the queries that share a key stand where tokens would
            seen = None if mask is None else mask[..., : keys.size(2)]
            y = layer.out(F.scaled_dot_product_attention(q, keys, values, seen).reshape(B, -1))
            x = x + y if pre else layer.norm_attention(x + y)
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


class _InTheWay(Exception):
    pass


def bare(module: nn.Module, kind: type[M]) -> M:
    """The module, if calling it runs its class's own code and nothing else."""
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    if type(module) is not kind or hooked:
        raise _InTheWay
    return module


def _layer(block: Block, stream: bool) -> Layer:
    attention, mlp = bare(block.attention, Attention), bare(block.mlp, MLP)
    kv = bare(attention.kv, KeyValue)
    if attention.recorder is not None or block.cross is not None:
        raise _InTheWay
    return Layer(
        _norm(block.norm_attention),
        _linear(attention.query, kv.key, kv.value, stream=stream),
        _linear(attention.out, stream=stream),
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

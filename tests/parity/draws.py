"""A peer's model of sizes that a seed draws: layers, heads, key heads, widths, vocabulary, context, activation."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from llmlab.tokenizer import Tokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'llmlab[bench]' to compare with it"
)

WORDS = ["Ada", "Ben", "and", "find", "the", "old", "red", "lamp", "near", "very", "small", "green", "by", "our"]
TEXTS = [" ".join(random.Random(i).choices(WORDS, k=9)) for i in range(80)]


@dataclass
class Sizes:
    """What every family has, under the names that LLaMA and BERT have for it."""

    draw: random.Random
    tok: Tokenizer
    layers: int
    heads: int
    size: int  # of a head
    inner: int
    context: int
    eps: float
    tied: bool
    common: dict[str, Any]  # vocabulary and special ids

    @property
    def plain(self) -> dict[str, Any]:
        return self.common | dict(
            hidden_size=self.heads * self.size,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=self.context,
        )


def gpt2(s: Sizes) -> Any:
    off = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    sizes = dict(n_positions=s.context, n_embd=s.heads * s.size, n_layer=s.layers, n_head=s.heads, n_inner=s.inner)
    act = dict(activation_function=s.draw.choice(["gelu_new", "gelu"]), layer_norm_epsilon=s.eps)
    config = transformers.GPT2Config(**s.common, **sizes, **off, **act, tie_word_embeddings=s.tied)
    return transformers.GPT2LMHeadModel(config)


def rotary(s: Sizes) -> dict[str, Any]:
    groups = s.draw.choice([k for k in range(1, s.heads + 1) if s.heads % k == 0])
    theta = s.draw.choice([100.0, 10000.0, 500000.0])
    new = int(transformers.__version__.split(".")[0]) >= 5
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": theta}} if new else {"rope_theta": theta}
    return s.plain | rope | dict(num_key_value_heads=groups, rms_norm_eps=s.eps, tie_word_embeddings=s.tied)


def llama(s: Sizes) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**rotary(s)))


def qwen2(s: Sizes) -> Any:
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**rotary(s)))


def bert(s: Sizes) -> Any:
    off = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    act = dict(hidden_act=s.draw.choice(["gelu", "relu"]), layer_norm_eps=s.eps, type_vocab_size=2)
    return transformers.BertForMaskedLM(transformers.BertConfig(**s.plain, **off, **act))


def t5(s: Sizes) -> Any:
    sizes = dict(d_model=s.heads * s.size, d_kv=s.size, d_ff=s.inner, num_layers=s.layers, num_heads=s.heads)
    buckets = dict(relative_attention_num_buckets=s.draw.choice([6, 8, 12]), relative_attention_max_distance=19)
    act = dict(feed_forward_proj=s.draw.choice(["relu", "gated-gelu"]), layer_norm_epsilon=s.eps, dropout_rate=0.0)
    start = dict(n_positions=s.context, decoder_start_token_id=s.tok.bos, tie_word_embeddings=s.tied)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(**s.common, **sizes, **buckets, **act, **start)
    )
    if not s.tied:  # version 5 ties it all the same, but reads and writes such files
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
    return model


def bart(s: Sizes) -> Any:
    each = dict(layers=s.layers, ffn_dim=s.inner, attention_heads=s.heads)
    stacks = {f"{stack}_{name}": value for stack in ("encoder", "decoder") for name, value in each.items()}
    start = dict(decoder_start_token_id=s.tok.bos, forced_eos_token_id=None)
    sizes = dict(d_model=s.heads * s.size, max_position_embeddings=s.context, dropout=0.0, activation_function="gelu")
    return transformers.BartForConditionalGeneration(transformers.BartConfig(**s.common, **stacks, **sizes, **start))


FAMILIES = {"gpt2": gpt2, "llama": llama, "qwen2": qwen2, "bert": bert, "t5": t5, "bart": bart}


def drawn(family: str, seed: int) -> tuple[Any, Tokenizer, random.Random]:
    """One of the peer's models with random numbers, a tokenizer for it, and the generator to draw on."""
    draw = random.Random(f"{family} {seed}")
    kind, least = ("wordpiece", 90) if family == "bert" else ("bpe", 310)
    tok = Tokenizer.train(TEXTS, least + draw.randint(0, 5), kind)
    sizes = Sizes(
        draw,
        tok,
        layers=draw.randint(1, 3),
        heads=draw.choice([1, 2, 3, 4, 6]),
        size=draw.choice([2, 4, 6, 10] if family in ("llama", "qwen2") else [3, 5, 6, 7]),
        inner=draw.randint(7, 50),
        context=draw.randint(34, 50),
        eps=10.0 ** -draw.randint(3, 8),
        tied=draw.random() < 0.5,
        common=dict(
            vocab_size=tok.vocab_size + draw.randint(0, 30),
            bos_token_id=tok.bos,
            eos_token_id=tok.eos,
            pad_token_id=tok.pad,
        ),
    )
    torch.manual_seed(seed)
    model = FAMILIES[family](sizes)
    with torch.no_grad():
        for p in model.parameters():  # large enough that every part matters, gains near 1
            p.copy_(torch.randn_like(p) * 0.3 + (p if p.dim() == 1 else 0))
    return model.eval(), tok, draw

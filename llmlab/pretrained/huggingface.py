"""Reads a folder in Hugging Face's layout as one of our models: gpt2, llama, qwen2, bert, t5.

1. Only what the kit's Transformer can compute exactly is read; anything else is refused in one line that names it.
2. Where T5's head is untied, its two stacks share an embedding; ours are then two, equal at first.
3. A tokenizer that lacks a special token uses another one in its place: most have no padding, so the end mark pads.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..checkpoint import read_json
from ..model import ModelConfig, Transformer
from ..surgery import named_parameters
from ..tokenizer import Tokenizer

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

# Our layer -> theirs; # is a number. "/1" takes the second third of a matrix that holds queries, keys and values.
GPT2 = {
    "decoder.embeddings.token": "transformer.wte",
    "decoder.embeddings.position": "transformer.wpe",
    "decoder.blocks.#.norm_attention": "transformer.h.#.ln_1",
    "decoder.blocks.#.attention.query": "transformer.h.#.attn.c_attn/0",
    "decoder.blocks.#.attention.kv.key": "transformer.h.#.attn.c_attn/1",
    "decoder.blocks.#.attention.kv.value": "transformer.h.#.attn.c_attn/2",
    "decoder.blocks.#.attention.out": "transformer.h.#.attn.c_proj",
    "decoder.blocks.#.norm_mlp": "transformer.h.#.ln_2",
    "decoder.blocks.#.mlp.up": "transformer.h.#.mlp.c_fc",
    "decoder.blocks.#.mlp.down": "transformer.h.#.mlp.c_proj",
    "decoder.norm": "transformer.ln_f",
    "head.output": "lm_head",
}
LLAMA = {
    "decoder.embeddings.token": "model.embed_tokens",
    "decoder.blocks.#.norm_attention": "model.layers.#.input_layernorm",
    "decoder.blocks.#.attention.query": "model.layers.#.self_attn.q_proj",
    "decoder.blocks.#.attention.kv.key": "model.layers.#.self_attn.k_proj",
    "decoder.blocks.#.attention.kv.value": "model.layers.#.self_attn.v_proj",
    "decoder.blocks.#.attention.out": "model.layers.#.self_attn.o_proj",
    "decoder.blocks.#.norm_mlp": "model.layers.#.post_attention_layernorm",
    "decoder.blocks.#.mlp.gate": "model.layers.#.mlp.gate_proj",
    "decoder.blocks.#.mlp.up": "model.layers.#.mlp.up_proj",
    "decoder.blocks.#.mlp.down": "model.layers.#.mlp.down_proj",
    "decoder.norm": "model.norm",
    "head.output": "lm_head",
}
BERT = {
    "encoder.embeddings.token": "bert.embeddings.word_embeddings",
    "encoder.embeddings.position": "bert.embeddings.position_embeddings",
    "encoder.embeddings.segment": "bert.embeddings.token_type_embeddings",
    "encoder.embeddings.norm": "bert.embeddings.LayerNorm",
    "encoder.blocks.#.attention.query": "bert.encoder.layer.#.attention.self.query",
    "encoder.blocks.#.attention.kv.key": "bert.encoder.layer.#.attention.self.key",
    "encoder.blocks.#.attention.kv.value": "bert.encoder.layer.#.attention.self.value",
    "encoder.blocks.#.attention.out": "bert.encoder.layer.#.attention.output.dense",
    "encoder.blocks.#.norm_attention": "bert.encoder.layer.#.attention.output.LayerNorm",
    "encoder.blocks.#.mlp.up": "bert.encoder.layer.#.intermediate.dense",
    "encoder.blocks.#.mlp.down": "bert.encoder.layer.#.output.dense",
    "encoder.blocks.#.norm_mlp": "bert.encoder.layer.#.output.LayerNorm",
    "pooler": "bert.pooler.dense",
    "head.transform.0": "cls.predictions.transform.dense",
    "head.transform.2": "cls.predictions.transform.LayerNorm",
    "head.output": "cls.predictions.decoder",
}
T5 = {
    "encoder.embeddings.token": "shared",
    "decoder.embeddings.token": "shared",  # a copy where the head has a matrix of its own, as in T5 1.1 and FLAN-T5
    "encoder.relative.table": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    "encoder.blocks.#.norm_attention": "encoder.block.#.layer.0.layer_norm",
    "encoder.blocks.#.attention.query": "encoder.block.#.layer.0.SelfAttention.q",
    "encoder.blocks.#.attention.kv.key": "encoder.block.#.layer.0.SelfAttention.k",
    "encoder.blocks.#.attention.kv.value": "encoder.block.#.layer.0.SelfAttention.v",
    "encoder.blocks.#.attention.out": "encoder.block.#.layer.0.SelfAttention.o",
    "encoder.blocks.#.norm_mlp": "encoder.block.#.layer.1.layer_norm",
    "encoder.blocks.#.mlp.up": "encoder.block.#.layer.1.DenseReluDense.wi",
    "encoder.blocks.#.mlp.down": "encoder.block.#.layer.1.DenseReluDense.wo",
    "encoder.norm": "encoder.final_layer_norm",
    "decoder.relative.table": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    "decoder.blocks.#.norm_attention": "decoder.block.#.layer.0.layer_norm",
    "decoder.blocks.#.attention.query": "decoder.block.#.layer.0.SelfAttention.q",
    "decoder.blocks.#.attention.kv.key": "decoder.block.#.layer.0.SelfAttention.k",
    "decoder.blocks.#.attention.kv.value": "decoder.block.#.layer.0.SelfAttention.v",
    "decoder.blocks.#.attention.out": "decoder.block.#.layer.0.SelfAttention.o",
    "decoder.blocks.#.norm_cross": "decoder.block.#.layer.1.layer_norm",
    "decoder.blocks.#.cross.query": "decoder.block.#.layer.1.EncDecAttention.q",
    "decoder.blocks.#.cross.kv.key": "decoder.block.#.layer.1.EncDecAttention.k",
    "decoder.blocks.#.cross.kv.value": "decoder.block.#.layer.1.EncDecAttention.v",
    "decoder.blocks.#.cross.out": "decoder.block.#.layer.1.EncDecAttention.o",
    "decoder.blocks.#.norm_mlp": "decoder.block.#.layer.2.layer_norm",
    "decoder.blocks.#.mlp.up": "decoder.block.#.layer.2.DenseReluDense.wi",
    "decoder.blocks.#.mlp.down": "decoder.block.#.layer.2.DenseReluDense.wo",
    "decoder.norm": "decoder.final_layer_norm",
    "head.output": "lm_head",
}
# T5's second version has two matrices where ours are `gate` and `up`
T5_GATED = T5 | {
    f"{stack}.blocks.#.mlp.{ours}": f"{stack}.block.#.layer.{i}.DenseReluDense.{theirs}"
    for stack, i in (("encoder", 1), ("decoder", 2))
    for ours, theirs in (("gate", "wi_0"), ("up", "wi_1"))
}


def load_huggingface(folder: str | Path) -> Transformer:
    """The model, and the tokenizer if the folder has one. ValueError or FileNotFoundError says what is missing."""
    folder = Path(folder)
    theirs = read_json(folder / "config.json")
    kind = theirs.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(f"{folder} holds a {kind!r} model: supported are {', '.join(FAMILIES)}")
    describe, names, prefix = FAMILIES[kind]
    if kind == "t5" and "gated" in theirs.get("feed_forward_proj", ""):
        names = T5_GATED
    weights = _weights(folder, prefix)
    settings = describe(theirs, weights)
    act = settings["activation"]
    if act not in ACTIVATIONS:
        raise ValueError(f"{folder}: activation {act!r} is not supported: one of {', '.join(ACTIVATIONS)}")
    model = Transformer(ModelConfig(**{**settings, "activation": ACTIVATIONS[act], "vocab_size": theirs["vocab_size"]}))
    with torch.no_grad():
        for name, parameter in named_parameters(model):
            found = _find(name, names, weights, transposed=kind == "gpt2")
            if found is None or found.shape != parameter.shape:
                had = "nothing" if found is None else f"shape {tuple(found.shape)}"
                raise ValueError(
                    f"{folder} has {had} for {name}, shape {tuple(parameter.shape)}: is it a language model?"
                )
            parameter.copy_(found)
    if (folder / "tokenizer.json").is_file():
        model.tokenizer = _tokenizer(folder, SPELLINGS | {"bos": ("<pad>",)} if kind == "t5" else SPELLINGS)
    return model.eval()


def _weights(folder: Path, prefix: str) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    files = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else ["model.safetensors"]
    weights: dict[str, Tensor] = {}
    for file in files:
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} holds no {file}: only safetensors are read, never pickled weights")
        try:
            weights |= load_file(folder / file)
        except SafetensorError as error:
            raise ValueError(f"{folder / file} is damaged: {error}") from error
    bare = not any(name.startswith(prefix) for name in weights)  # saved without its head, as GPT-2's original was
    return {(prefix + name if bare else name): t for name, t in weights.items()}


def _find(name: str, names: dict[str, str], weights: dict[str, Tensor], transposed: bool) -> Tensor | None:
    """Their tensor for our parameter `name`."""
    layer, leaf = name.rsplit(".", 1)
    number = re.search(r"(?<=blocks\.)\d+", layer)
    key = re.sub(r"(?<=blocks\.)\d+", "#", layer)
    path, _, third = names[key].replace("#", number[0] if number else "#").partition("/")
    old = {"weight": "gamma", "bias": "beta"}[leaf]  # BERT's norms as they were first named
    spellings = [f"{path}.{leaf}", f"{path}.{old}"]
    if path == "cls.predictions.decoder":
        spellings.append(f"cls.predictions.{leaf}")
    found = next((weights[s] for s in spellings if s in weights), None)
    if found is None:
        return None
    if transposed and ".h." in path and found.dim() == 2:
        found = found.t()
    return found.chunk(3)[int(third)] if third else found


def _refuse(theirs: dict[str, Any], **supported: Any) -> None:
    """ValueError if a setting has another value than the one supported."""
    for name, value in supported.items():
        if theirs.get(name, value) not in (value, None):
            raise ValueError(f"config.json: {name} = {theirs[name]!r} is not supported, only {value!r}")


def _gpt2(theirs: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any]:
    _refuse(theirs, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return dict(
        positions="learned",
        context=theirs["n_positions"],
        layers=theirs["n_layer"],
        heads=theirs["n_head"],
        width=theirs["n_embd"],
        mlp_width=theirs.get("n_inner") or 0,
        norm_eps=theirs.get("layer_norm_epsilon", 1e-5),
        activation=theirs.get("activation_function", "gelu_new"),
        tied=theirs.get("tie_word_embeddings", True),
    )


def _llama(theirs: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any]:
    heads, width = theirs["num_attention_heads"], theirs["hidden_size"]
    rope = {**(theirs.get("rope_scaling") or {}), **(theirs.get("rope_parameters") or {})}
    _refuse(rope, rope_type="default", type="default")
    _refuse(theirs, attention_bias=False, mlp_bias=False, use_sliding_window=False, head_dim=width // heads)
    return dict(
        context=theirs["max_position_embeddings"],
        layers=theirs["num_hidden_layers"],
        heads=heads,
        kv_heads=theirs.get("num_key_value_heads") or 0,
        width=width,
        mlp_width=theirs["intermediate_size"],
        positions="rotary",
        rotary_base=float(rope.get("rope_theta") or theirs.get("rope_theta") or 10000.0),
        norm="rmsnorm",
        norm_eps=theirs.get("rms_norm_eps", 1e-6),
        activation=theirs.get("hidden_act", "silu"),
        gated=True,
        bias="qkv" if theirs["model_type"] == "qwen2" else "none",
        tied=theirs.get("tie_word_embeddings", False),
    )


def _bert(theirs: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any]:
    _refuse(theirs, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    return ModelConfig.preset(
        "bert",
        context=theirs["max_position_embeddings"],
        layers=theirs["num_hidden_layers"],
        heads=theirs["num_attention_heads"],
        width=theirs["hidden_size"],
        mlp_width=theirs["intermediate_size"],
        norm_eps=theirs.get("layer_norm_eps", 1e-12),
        token_types=theirs.get("type_vocab_size", 2),
        pooler="bert.pooler.dense.weight" in weights,
        tied=theirs.get("tie_word_embeddings", True),
        dropout=0.0,
    ).to_dict() | {"activation": theirs.get("hidden_act", "gelu")}


def _t5(theirs: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any]:
    layers, heads, width = theirs["num_layers"], theirs["num_heads"], theirs["d_model"]
    if heads * theirs["d_kv"] != width:
        raise ValueError(f"config.json: {heads} heads of {theirs['d_kv']} do not make up the width {width}")
    _refuse(theirs, num_decoder_layers=layers)
    gated, _, act = theirs.get("feed_forward_proj", "relu").rpartition("-")
    first = theirs.get("scale_decoder_outputs", theirs.get("tie_word_embeddings", True))  # the version of 2019
    return ModelConfig.preset(
        "t5",
        context=theirs.get("n_positions", 512),  # what it was trained on: relative positions know no end
        layers=layers,
        heads=heads,
        width=width,
        mlp_width=theirs["d_ff"],
        norm_eps=theirs.get("layer_norm_epsilon", 1e-6),
        gated=bool(gated),
        relative_buckets=theirs.get("relative_attention_num_buckets", 32),
        relative_span=theirs.get("relative_attention_max_distance", 128),
        scale_logits=first,
        tied="lm_head.weight" not in weights,
        dropout=0.0,
    ).to_dict() | {"activation": "gelu_new" if gated and act == "gelu" else act}


Describe = Callable[[dict[str, Any], dict[str, Tensor]], dict[str, Any]]
FAMILIES: dict[str, tuple[Describe, dict[str, str], str]] = {
    "gpt2": (_gpt2, GPT2, "transformer."),
    "llama": (_llama, LLAMA, "model."),
    "qwen2": (_llama, LLAMA, "model."),
    "bert": (_bert, BERT, "bert."),
    "t5": (_t5, T5, ""),
}

# What a role is called, most telling name first; a role without a name of its own takes the end mark's. In T5 the
# padding also starts an answer.
SPELLINGS = {
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|endoftext|>"),
    "bos": ("<s>", "<bos>", "[CLS]", "<|begin_of_text|>", "<|endoftext|>"),
    "eos": ("</s>", "<eos>", "[SEP]", "<|end_of_text|>", "<|endoftext|>"),
    "mask": ("<mask>", "[MASK]"),
    "sep": ("<sep>", "[SEP]"),
    "unk": ("<unk>", "[UNK]"),
}


def _tokenizer(folder: Path, spellings: dict[str, tuple[str, ...]]) -> Tokenizer:
    settings = folder / "tokenizer_config.json"
    given = read_json(settings) if settings.is_file() else {}
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    chosen = {role: given.get(f"{role}_token") or "" for role in spellings}
    named = {role: name["content"] if isinstance(name, dict) else name for role, name in chosen.items()}
    return Tokenizer.foreign(text, {role: [named[role], *names] for role, names in spellings.items()})

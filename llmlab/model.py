"""One configurable Transformer: decoder, encoder or both, in the styles of 2017, BERT, GPT-2, T5, LLaMA, Qwen2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cache import Cache
from .layers import ACTIVATIONS, Attention, Block, Embeddings, Positions, RelativeBias, RotaryPositions, make_norm
from .losses import IGNORE, labelled, linear_cross_entropy

if TYPE_CHECKING:
    from .tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes a model. Sizes default to what trains in seconds on a laptop.

    `mlp_width` 0 means 4 × width, `kv_heads` 0 means as many as heads. `bias` is "all", "none" or "qkv"
    (queries, keys and values alone, as in Qwen2). T5 does not divide attention's scores by √(D/H) (`scale_attention`)
    and divides what enters the head by √D (`scale_logits`). ValueError on sizes that do not fit together.
    """

    family: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    vocab_size: int = 2048
    context: int = 256
    layers: int = 4
    heads: int = 4
    width: int = 128
    mlp_width: int = 0
    kv_heads: int = 0
    positions: Literal["learned", "sinusoidal", "rotary", "relative"] = "rotary"
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    norm_position: Literal["pre", "post"] = "pre"
    norm_eps: float = 1e-5
    norm_embeddings: bool = False
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "gelu_tanh"
    gated: bool = False
    bias: Literal["all", "none", "qkv"] = "all"
    tied: bool = True
    scale_embeddings: bool = False
    token_types: int = 0
    head_transform: bool = False
    head_bias: bool = False
    pooler: bool = False
    rotary_base: float = 10000.0
    relative_buckets: int = 32
    relative_span: int = 128
    scale_attention: bool = True
    scale_logits: bool = False
    dropout: float = 0.0
    init_std: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        for name in ("vocab_size", "context", "layers", "heads", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"ModelConfig.{name} = {getattr(self, name)}: must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be split over {self.heads} heads: choose a multiple")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key heads: choose a divisor")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need an even width per head, not {self.head_width}")
        if self.positions == "sinusoidal" and self.width % 2:
            raise ValueError(f"sinusoidal positions need an even width, not {self.width}")
        if self.positions == "relative" and (self.relative_buckets < 4 or self.relative_span <= self.relative_buckets):
            raise ValueError(
                f"{self.relative_buckets} buckets for a span of {self.relative_span}: at least 4, and a longer span"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}: one of {', '.join(ACTIVATIONS)}")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModelConfig:
        """The choices of a published family at this kit's size: transformer, bert, gpt2, t5, llama or qwen2."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}: one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **changes})

    @classmethod
    def usual(cls, family: str) -> ModelConfig:
        """What a run without a model or config builds: what learns fast at this size.

        Rotary positions and norms before the layers: measured, a BERT of 2018's design still only counts words after
        300 steps of masked language modelling (loss 5.4), with these two changes it reads its neighbours (loss 2.6).
        An encoder-decoder after 300 steps on Tinytown's pairs, AdamW: 2.97 as in 2017 (rate 2e-3), 2.09 as T5 (4e-3),
        1.66 so (4e-3).
        """
        if family == "encoder":
            return cls.preset("bert", positions="rotary", norm_position="pre", dropout=0.0)
        return cls(family="encoder-decoder", layers=3) if family == "encoder-decoder" else cls()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; ValueError names a field this version does not know."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown model setting {unknown[0]!r}: was it saved by a later llmlab?")
        return cls(**values)


_LLAMA = dict(positions="rotary", norm="rmsnorm", norm_eps=1e-6, activation="silu", gated=True, bias="none", tied=False)
PRESETS: dict[str, dict[str, Any]] = {
    "transformer": dict(  # Vaswani et al. 2017
        family="encoder-decoder",
        positions="sinusoidal",
        norm_position="post",
        activation="relu",
        scale_embeddings=True,
        dropout=0.1,
    ),
    "bert": dict(  # Devlin et al. 2018
        family="encoder",
        positions="learned",
        norm_position="post",
        norm_eps=1e-12,
        norm_embeddings=True,
        activation="gelu",
        token_types=2,
        head_transform=True,
        head_bias=True,
        pooler=True,
        dropout=0.1,
    ),
    "gpt2": dict(positions="learned", dropout=0.1),  # Radford et al. 2019
    "t5": dict(  # Raffel et al. 2020
        family="encoder-decoder",
        positions="relative",
        scale_attention=False,
        scale_logits=True,
        norm="rmsnorm",
        norm_eps=1e-6,
        activation="relu",
        bias="none",
        dropout=0.1,
    ),
    "llama": _LLAMA,  # Touvron et al. 2023
    "qwen2": {**_LLAMA, "bias": "qkv"},
}


class Output(NamedTuple):
    """What a forward pass returns; logits are asked for where they are needed (`model.logits`)."""

    hidden: Tensor  # (B, T, D) after the last norm
    memory: Tensor | None = None  # (B, S, D) the encoder's side of an encoder-decoder


class Stack(nn.Module):
    """Embeddings and blocks: (B, T) token ids -> (B, T, D)."""

    def __init__(self, config: ModelConfig, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embeddings, self.positions = Embeddings(config), Positions()
        self.rotary = (
            RotaryPositions(config.context, config.head_width, config.rotary_base)
            if config.positions == "rotary"
            else None
        )
        self.relative = RelativeBias(config, causal) if config.positions == "relative" else None
        self.blocks = nn.ModuleList(Block(config, causal, cross) for _ in range(config.layers))
        self.norm = make_norm(config) if config.norm_position == "pre" else nn.Identity()

    def forward(
        self,
        tokens: Tensor,
        keep: Tensor | None = None,
        memory: Tensor | None = None,
        memory_keep: Tensor | None = None,
        types: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        past, new = (cache.length if cache else 0), tokens.size(1)
        if keep is not None and (keep.dtype != torch.bool or keep.size(-1) != past + new):
            found = f"{keep.dtype} of shape {tuple(keep.shape)}"
            raise ValueError(f"`keep` must be bool and cover all {past + new} tokens so far, but is {found}")
        positions = self.positions(new, past, keep)
        reach = int(positions.max()) + 1
        if reach > self.config.context:
            raise ValueError(
                f"{reach} tokens do not fit the model's context of {self.config.context}: shorten the text"
            )
        positions = positions.to(tokens.device)
        angles = None if self.rotary is None else self.rotary(positions)
        bias = None if self.relative is None else self.relative(new, past + new)
        x = self.embeddings(tokens, positions, types)
        for i, block in enumerate(self.blocks):
            x = block(x, keep, memory, memory_keep, None if cache is None else cache.block(i), angles, bias)
        if cache is not None:
            cache.length += new
        return self.norm(x)


class Scaled(nn.Module):
    """x times a constant."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by


class Head(nn.Module):
    """Hidden vectors to logits, (…, D) -> (…, V); before it BERT's dense layer and norm or T5's 1/√D, if configured."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.transform: nn.Module = nn.Identity()
        if config.head_transform:
            dense = nn.Linear(config.width, config.width)
            self.transform = nn.Sequential(dense, ACTIVATIONS[config.activation](), make_norm(config))
        elif config.scale_logits:
            self.transform = Scaled(config.width**-0.5)
        self.output = nn.Linear(config.width, config.vocab_size, bias=config.head_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.output(self.transform(hidden))


class Transformer(nn.Module):
    """The model of every lesson: `decoder`, `encoder` or both, and a head over the vocabulary.

    `tokenizer` travels with the weights. `adaptations` lists what techniques have built into it, and what its own
    tensors were before they trained them: name -> {"knobs": …, "parameters": […], "originals": {…}}.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer: Tokenizer | None = None
        self.adaptations: dict[str, dict[str, Any]] = {}
        self.source: str | None = None  # where the same weights can be loaded from
        self.lent = False  # shares tensors with another model
        both = config.family == "encoder-decoder"
        self.encoder = Stack(config, causal=False) if config.family != "decoder" else None
        self.decoder = Stack(config, causal=True, cross=both) if config.family != "encoder" else None
        self.head = Head(config)
        self.pooler = nn.Linear(config.width, config.width) if config.pooler else None
        self.heads = nn.ModuleDict()  # what techniques read off the hidden vectors, by name (`heads.ScalarHead`)
        self.initialise()
        self.tie()

    def initialise(self) -> None:
        """Normal weights and zero biases; what enters the residual stream is scaled by 1/√(2 layers) as in GPT-2.

        `init_std` 0.05 suits a width near 128; the papers use 0.02 at width 768.
        """
        config, std = self.config, self.config.init_std
        # tokens start at unit size: once multiplied by √D in 2017, at once in T5, which divides before the head instead
        tokens = config.width**-0.5 if config.scale_embeddings else 1.0 if config.scale_logits else std
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=tokens if name.endswith(".token") else std)
                if isinstance(module, nn.Linear):
                    if config.norm_position == "post":
                        nn.init.xavier_uniform_(module.weight)  # post-norm starts flat at std 0.02
                    elif name.endswith((".out", ".down")):
                        nn.init.normal_(module.weight, std=std / (2 * config.layers) ** 0.5)
                    elif name.endswith(".query") and not config.scale_attention:
                        nn.init.normal_(module.weight, std=std * config.head_width**-0.5)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    def tie(self) -> None:
        """Let the tokens' embedding serve both stacks and the head, where the config says so."""
        stacks = [stack for stack in (self.encoder, self.decoder) if stack is not None]
        if self.config.tied:
            for stack in stacks:
                stack.embeddings.token.weight = stacks[0].embeddings.token.weight
            self.head.output.weight = stacks[0].embeddings.token.weight

    def forward(
        self,
        tokens: Tensor,
        keep: Tensor | None = None,
        *,
        source: Tensor | None = None,
        source_keep: Tensor | None = None,
        memory: Tensor | None = None,
        types: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Output:
        """`tokens` (B, T) ids; `keep` (B, S) False on padding, over all tokens so far.

        `keep` may also say what each token sees, (B, T, S): so documents are packed into one row.

        An encoder-decoder also takes `source` (B, S) ids with their `source_keep`, or the `memory` of an
        earlier pass; `types` (B, T) are BERT's segment ids; a `cache` makes this the next part of a text.
        """
        if self.decoder is None:
            assert self.encoder is not None
            return Output(self.encoder(tokens, keep, types=types))
        if self.encoder is not None and memory is None:
            if source is None:
                raise ValueError("an encoder-decoder needs `source` beside `tokens`")
            memory = self.encoder(source, source_keep)
        return Output(self.decoder(tokens, keep, memory, source_keep, types, cache), memory)

    @property
    def room(self) -> int:
        """Tokens of a text that fit: the context, less what stands before the text (a prefix)."""
        stacks = [stack for stack in (self.encoder, self.decoder) if stack is not None]
        return self.config.context - max(int(stack.positions(1, 0, None).max()) for stack in stacks)

    def logits(self, output: Output, positions: Tensor | None = None) -> Tensor:
        """Scores of the next token: (B, T, V), or (N, V) at the N places where `positions` (B, T) is True."""
        hidden = output.hidden if positions is None else output.hidden[positions]
        return self.head(hidden).float()

    def logprobs(self, output: Output, labels: Tensor, temperature: float = 1.0) -> Tensor:
        """log p of each label, (B, T) -> (B, T); 0 where the label is ignored, and no logits made there.

        `temperature` is the one that the labels were drawn at: it divides the logits.
        """
        where = labels != IGNORE
        logits = self.logits(output, where) / temperature
        chosen = logits.log_softmax(-1).gather(-1, labels[where][:, None]).squeeze(-1)
        return chosen.new_zeros(labels.shape).masked_scatter(where, chosen)

    def loss(self, output: Output, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy in nats over the labels (B, T) that are not ignored; `smoothing` is label smoothing's ε.

        ValueError if every label is ignored: such a batch has nothing to teach.
        """
        hidden, target = labelled(output.hidden, labels)
        hidden, last = self.head.transform(hidden), self.head.output
        if type(last) is nn.Linear and not smoothing:
            return linear_cross_entropy(hidden, last.weight, last.bias, target)
        return F.cross_entropy(last(hidden).float(), target, label_smoothing=smoothing)

    def pooled(self, output: Output) -> Tensor:
        """BERT's summary of a text, tanh(W h₀): (B, T, D) -> (B, D). ValueError without a pooler."""
        if self.pooler is None:
            raise ValueError("this model has no pooler: set ModelConfig.pooler")
        return torch.tanh(self.pooler(output.hidden[:, 0]))


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Collect attention maps: path of the layer -> one (B, H, T, S) tensor a call.

    with record_attention(model) as maps:
        model(tokens)
    maps["decoder.blocks.0.attention"][0][0, 0]    # first layer, first row, first head: (T, S)
    """
    maps: dict[str, list[Tensor]] = {}

    def into(name: str) -> Callable[[Tensor], None]:
        return lambda weights: maps.setdefault(name, []).append(weights)

    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, Attention)]
    try:
        for name, layer in layers:
            layer.recorder = into(".".join(part for part in name.split(".") if part != "base"))
        yield maps
    finally:
        for _, layer in layers:
            layer.recorder = None

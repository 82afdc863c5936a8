"""Writing text token by token, with a cache of keys and values: greedy or sampled, many prompts at once.

1. Sampling inverts the distribution function with one uniform number a token, drawn beforehand from a generator
   of each row's own: a row's answer does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .batch import pad
from .cache import Cache
from .decode import shortcut
from .model import Transformer
from .rollout import Responses
from .seeds import generator
from .tokenizer import BLANK


class Generated(NamedTuple):
    """New tokens (B, T), padded on the right, and `mask` (B, T), True on real ones, the end mark included."""

    tokens: Tensor
    mask: Tensor

    def rows(self) -> list[list[int]]:
        return [t[m].tolist() for t, m in zip(self.tokens, self.mask, strict=True)]


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no gradients, and the mode that was there afterwards."""
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was)


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop: int | None = None,
    pad_id: int = 0,
    bos: int | None = None,
    seed: int = 0,
    draws: Sequence[torch.Generator] | None = None,
    cached: bool = True,
) -> Generated:
    """Continue each of B prompts (ids) by at most `max_new_tokens`, or until `stop`.

    `temperature` 0 is greedy. `top_k` > 0 keeps the k likeliest tokens; of these, `top_p` < 1 keeps the fewest
    whose share reaches p (nucleus, Holtzman et al. 2019). The same `seed` gives the same text; `draws` are
    one generator a row instead. Prompts may differ in length. For an encoder-decoder the prompts are
    what the encoder reads, and the answer starts from `bos`. The context's end ends a text too.
    ValueError on an empty prompt, one that fills the context, an id or a setting out of range, or an encoder.
    """
    _check(model, prompts, max_new_tokens, temperature, top_k, top_p)
    device = next(model.parameters()).device
    B, both = len(prompts), model.encoder is not None
    inputs = pad(prompts, pad_id, left=not both).to(device)  # (B, S)
    uneven = len({len(p) for p in prompts}) > 1
    keep = pad([[1] * len(p) for p in prompts], left=not both).bool().to(device) if uneven else None
    source, source_keep = (inputs, keep) if both else (None, None)
    if both:
        if bos is None:
            raise ValueError("an encoder-decoder starts its answer from `bos`: give its id")
        inputs, keep = torch.full((B, 1), bos, device=device), None
    room = _room(model, inputs, keep, max_new_tokens)  # (B,) or (1,)
    steps = int(room.max())
    allowed = torch.arange(steps, device=device) < room[:, None]  # (B, steps) or (1, steps)
    if keep is not None:  # one mask serves every step
        keep = torch.cat([keep, allowed], 1)  # (B, S + steps)
    draws = draws or [generator(seed, "generate", i) for i in range(B)]
    uniform = torch.stack([torch.rand(steps, generator=g) for g in draws]).to(device) if temperature else None

    out = torch.full((B, steps), pad_id, device=device)
    mask = torch.zeros(B, steps, dtype=torch.bool, device=device)
    alive = torch.ones(B, dtype=torch.bool, device=device)
    with evaluating(model), torch.inference_mode():
        forward = _forward(model, inputs, keep, source, source_keep, steps, cached)
        new = None
        for t in range(steps):
            logits = forward(new)  # (B, V)
            new = choose(logits.float(), temperature, top_k, top_p, None if uniform is None else uniform[:, t])
            alive = alive & allowed[:, t]
            out[:, t] = torch.where(alive, new, out[:, t])
            mask[:, t] = alive
            if stop is not None:
                alive = alive & (new != stop)
                if not alive.any():
                    break
    used = int(mask.any(0).sum())
    return Generated(out[:, :used].clone(), mask[:, :used].clone())


def _room(model: Transformer, inputs: Tensor, keep: Tensor | None, new: int) -> Tensor:
    """How many tokens each row may still write, (B,) or (1,); ValueError where that is none."""
    assert model.decoder is not None
    reach = model.decoder.positions(inputs.size(1), 0, keep)[..., -1].reshape(-1) + 1
    room = (model.config.context - reach).clamp(max=new)
    if room.min() < 1:
        raise ValueError(
            f"a prompt of {int(reach.max())} tokens leaves no room in a context of {model.config.context}: shorten it"
        )
    return room.to(inputs.device)


def _forward(
    model: Transformer,
    tokens: Tensor,
    keep: Tensor | None,
    source: Tensor | None,
    source_keep: Tensor | None,
    steps: int,
    cached: bool,
) -> Callable[[Tensor | None], Tensor]:
    """A function from the newest token of each row (B,), at first None, to the next one's logits (B, V)."""
    cache = Cache(steps) if cached else None
    memory: Tensor | None = None
    step: Callable[[Tensor], Tensor] | None = None

    def forward(new: Tensor | None) -> Tensor:
        nonlocal tokens, memory, step
        if new is not None:
            if step is not None:
                return step(new)
            tokens = new[:, None] if cached else torch.cat([tokens, new[:, None]], 1)
        seen = None if keep is None else keep[:, : tokens.size(1) + (cache.length if cache else 0)]
        output = model(tokens, seen, source=source, source_keep=source_keep, memory=memory, cache=cache)
        memory = output.memory
        if new is None and cache is not None:
            step = shortcut(model, cache, keep, source_keep, len(tokens), steps)
        return model.head(output.hidden[:, -1])

    return forward


def as_prompt(model: Transformer, text: str) -> list[int]:
    """A text as the model is asked: ids after BOS for a decoder, before EOS for an encoder to read.

    What an encoder reads may have blanks, ___, which become T5's sentinels: the decoder then writes what is missing.
    """
    tok = model.tokenizer
    assert tok is not None
    if model.encoder is None:
        return [tok.bos, *tok.encode(text)]
    first, *rest = tok.encode_all(text.split(BLANK) if tok.sentinels else [text])
    if len(rest) > len(tok.sentinels):
        raise ValueError(f"a text with {len(rest)} blanks: this model tells {len(tok.sentinels)} apart")
    return [*first, *(i for s, part in zip(tok.sentinels, rest, strict=False) for i in (s, *part)), tok.eos]


def respond(model: Transformer, prompts: Sequence[str] | Sequence[list[int]], **settings: Any) -> Responses:
    """Answer B prompts, texts or ids (`as_prompt`), in text, by the model's own tokenizer.

    `settings` are those of `generate`, greedy unless told otherwise.
    """
    tok = model.tokenizer
    if tok is None:
        raise ValueError("this model has no tokenizer, so it reads no text: give it one, model.tokenizer = ...")
    ids: list[list[int]] = [as_prompt(model, p) if isinstance(p, str) else p for p in prompts]
    known = {"temperature": 0.0, "stop": tok.eos, "pad_id": tok.pad, "bos": tok.bos}
    out = generate(model, ids, **(known | settings))
    return Responses([tok.decode(row) for row in out.rows()], out.tokens, out.mask)


def choose(logits: Tensor, temperature: float, top_k: int, top_p: float, uniform: Tensor | None) -> Tensor:
    """One token a row: (B, V), with numbers in [0, 1) of shape (B,), -> (B,). Greedy at temperature 0."""
    if temperature == 0 or uniform is None:
        return logits.argmax(-1)
    p = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)
    order = None
    if top_k:
        p, order = p.topk(min(top_k, p.size(-1)))
    if top_p < 1:
        if order is None:
            p, order = p.sort(-1, descending=True)
        before = p.cumsum(-1) - p  # the token that crosses top_p stays, so that one is always left
        p = p.masked_fill(before >= top_p * p.sum(-1, keepdim=True), 0.0)
    reached = p.cumsum(-1)  # its last entry is never reached: torch.rand gives at most 1 - 2⁻²⁴
    place = torch.searchsorted(reached, uniform[:, None] * reached[:, -1:], right=True)  # (B, 1)
    return (place if order is None else order.gather(-1, place)).squeeze(-1)


def _check(
    model: Transformer, prompts: Sequence[Sequence[int]], new: int, temperature: float, top_k: int, top_p: float
) -> None:
    if model.config.family == "encoder":
        raise ValueError("an encoder fills blanks (`fill`) and writes no text: use a decoder or an encoder-decoder")
    if not prompts or not all(len(p) for p in prompts):
        raise ValueError("every prompt needs at least one token: start it with BOS")
    low, high = min(map(min, prompts)), max(map(max, prompts))
    if low < 0 or high >= model.config.vocab_size:
        wrong = low if low < 0 else high
        raise ValueError(f"id {wrong} in a prompt: this model's vocabulary has ids 0 to {model.config.vocab_size - 1}")
    for name, value, good, rule in (
        ("max_new_tokens", new, new >= 1, "at least 1"),
        ("temperature", temperature, temperature >= 0, "at least 0"),
        ("top_k", top_k, top_k >= 0, "at least 0"),
        ("top_p", top_p, 0 < top_p <= 1, "above 0, at most 1"),
    ):
        if not good:
            raise ValueError(f"{name} = {value}: must be {rule}")

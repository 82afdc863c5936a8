"""The logit lens: what a model would say next if it stopped after each layer (nostalgebraist 2020).

    lens_l = Head(Norm(h_l)),    l = 0 … L

h_0 is what the embeddings give, h_l what block l adds up to. The last norm and the head are those that the model
learnt for h_L, so lens_L is the model's own answer; for the layers below it is a reading, not a fact.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from .generate import evaluating
from .model import Output, Transformer


def logit_lens(model: Transformer, tokens: Tensor, **inputs: Any) -> Tensor:
    """Logits after the embeddings and after each of L blocks: (B, T) ids -> (L + 1, B, T, V).

    `inputs` are further arguments of the model, such as `keep` or an encoder-decoder's `source`; it is the decoder that
    is read where there are two.
    """
    stack = model.decoder if model.decoder is not None else model.encoder
    assert stack is not None
    hidden: list[Tensor] = []
    with ExitStack() as hooks, evaluating(model):
        first = stack.blocks[0].register_forward_pre_hook(lambda _, given: hidden.append(given[0]))
        hooks.callback(first.remove)
        for block in stack.blocks:
            handle = block.register_forward_hook(lambda _, given, made: hidden.append(made))
            hooks.callback(handle.remove)
        model(tokens, **inputs)
        return torch.stack([model.logits(Output(stack.norm(h))) for h in hidden])

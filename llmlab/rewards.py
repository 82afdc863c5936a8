"""Rewards: one number for each answer, from a trained model, from a rule, or from any Python function.

reward = reward_function("gold")                         # Tinytown's judge
reward = reward_function("runs/reward-1")                # a model with a reward head: a run folder or a patch
reward = reward_function(lambda prompts, responses: [-len(text) for text in responses])
reward(prompts, responses)                               # B texts and the responses to them -> (B,)

Responses are `Responses`, as `run.respond` gives them, or B texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from .batch import by_length, pad
from .generate import as_prompt, evaluating
from .heads import at_end
from .model import Transformer
from .rollout import Responses

Answers = Responses | Sequence[str]
Reward = Callable[[Sequence[str], Answers], Tensor]
HEAD = "reward"  # the head's name in `model.heads`
ROWS = 64  # answers read at a time


def reward_function(by: Any) -> Reward:
    """What scores answers: of "gold", a model with a reward head (or its run, folder or patch file), or a function.

    A function is given the prompts and the responses, two lists of B texts, and returns B numbers. ValueError or
    TypeError in one line for anything else; FileNotFoundError for a folder that is not there.
    """
    if isinstance(by, str | PathLike):
        if by == "gold":
            return _checked(_gold, "the gold judge")
        from .pretrained import load_model

        by = load_model(str(by))
    model = getattr(by, "model", by)
    if isinstance(model, Transformer):
        if HEAD not in model.heads:
            raise ValueError("this model has no reward head: train one first, Run([Reward()], preferences).fit()")
        head: Any = model.heads[HEAD]
        return lambda prompts, responses: head.standard(score_answers(model, prompts, _texts(responses)))
    if not callable(by):
        raise TypeError(f"a reward is a model, a folder, a function or 'gold', not {by!r}")
    return _checked(by, getattr(by, "__name__", type(by).__name__))


def _texts(responses: Answers) -> list[str]:
    return list(responses.text if isinstance(responses, Responses) else responses)


def _checked(function: Callable[[list[str], list[str]], Any], name: str) -> Reward:
    def reward(prompts: Sequence[str], responses: Answers) -> Tensor:
        found = function(list(prompts), _texts(responses))
        try:
            given = torch.as_tensor(found, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"the reward {name} gave {found!r:.60}: it gives a list of one number for each") from None
        if given.shape != (len(responses),):
            raise ValueError(
                f"the reward {name} gave {tuple(given.shape)} numbers for {len(responses)} responses: it gives one each"
            )
        if not given.isfinite().all():
            raise ValueError(f"the reward {name} gave a number that is not finite: check what it divides by")
        return given.to(responses.tokens.device) if isinstance(responses, Responses) else given

    return reward


def _gold(prompts: list[str], responses: list[str]) -> list[float]:
    from .data.tinytown import judge

    return [judge(prompt, response).reward for prompt, response in zip(prompts, responses, strict=True)]


def answered(model: Transformer, prompts: Sequence[str], responses: Sequence[str]) -> dict[str, Tensor]:
    """What the model reads of B prompts with their answers, each closed by the end mark.

    `tokens` and `keep` (B, T) and, for an encoder-decoder, the prompts as `source`. A text longer than the context
    loses the prompt's beginning, then the answer's.
    """
    tok, room = model.tokenizer, model.room
    assert tok is not None
    device = next(model.parameters()).device
    endings = [[*ids, tok.eos][-room + 1 :] for ids in tok.encode_all(list(responses))]
    inputs: dict[str, Tensor] = {}
    if model.encoder is not None and model.decoder is not None:
        asked = [as_prompt(model, prompt)[-room:] for prompt in prompts]
        inputs = {"source": pad(asked, tok.pad), "source_keep": pad([[1] * len(x) for x in asked]).bool()}
        rows = [[tok.bos, *y] for y in endings]
    else:
        asked = [[tok.bos, *ids] for ids in tok.encode_all(list(prompts))]
        rows = [[*(x[-(room - len(y)) :] if len(y) < room else []), *y] for x, y in zip(asked, endings, strict=True)]
    inputs |= {"tokens": pad(rows, tok.pad), "keep": pad([[1] * len(row) for row in rows]).bool()}
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def score_answers(model: Transformer, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
    """The raw scores of B answers by a model with a reward head, (B,): read at the last real token, the end mark."""
    device = next(model.parameters()).device

    def answer(rows: list[int]) -> list[float]:
        inputs = answered(model, [prompts[i] for i in rows], [responses[i] for i in rows])
        scores = model.heads[HEAD](model(**inputs).hidden)  # (B, T)
        return at_end(scores, inputs["keep"]).tolist()

    with evaluating(model):
        lengths = [len(x) + len(y) for x, y in zip(prompts, responses, strict=True)]
        return torch.tensor(by_length(lengths, ROWS, answer), device=device)

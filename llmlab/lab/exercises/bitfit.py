"""Exercises of lesson 44, BitFit."""

from __future__ import annotations

from typing import Any

from . import NotYet, as_number, call, close, exercise, need, number


@exercise("bitfit.1", expects="a whole number")
def how_many(answer: Any) -> str:
    """GPT-2's smallest model: 12 layers of width 768 and a norm at the end."""
    D, layers = 768, 12
    attention, mlp, norms = 4 * D, 4 * D + D, 2 * D
    layer = attention + mlp + norms
    need(answer != layer, "that is one layer; there are twelve, and a norm after them")
    need(answer != layers * layer, "that leaves out the norm after the last layer")
    need(answer != layers * (attention + mlp), "norms have biases, too")
    need(
        answer != layers * (attention + 2 * D + norms) + D, "the MLP's first layer has four times the width as outputs"
    )
    need(answer != layers * (layer + norms) + 2 * D, "of a norm's two vectors one is a gain, which does not train")
    number(answer, layers * layer + D, "a linear layer has as many biases as outputs: list all of one layer, norms too")
    return "8,448 a layer, 102,144 together: 0.08 % of GPT-2's 124 million."


@exercise("bitfit.2", expects="a function folded(W_o, b_o, b_v)")
def folding(answer: Any) -> str:
    """b_o + W_o b_v does what the two biases do."""
    import torch

    draw = torch.Generator().manual_seed(0)
    for D, size in ((4, 4), (6, 4), (3, 8)):
        W, b_o, b_v = (torch.randn(*shape, generator=draw) for shape in ((D, size), (D,), (size,)))
        got = call(answer, W, b_o, b_v, what="folded")
        if isinstance(got, torch.Tensor) and got.shape == b_o.shape:
            need(not torch.allclose(got, W @ b_v), "what the output projection added before is lost")
            need(not torch.allclose(got, b_o), "nothing is left of the values' bias")
            need(size != D or not torch.allclose(got, b_o + b_v), "the values pass W_o before they are added to b_o")
            need(size != D or not torch.allclose(got, b_o + W.T @ b_v), "W_o is transposed: its rows are the outputs")
        right = b_o + W @ b_v
        close(got, right, "write the output with b_v in it, and use that a row of weights sums to 1", "folded")
        weights, values = torch.rand(5, 7, generator=draw).softmax(-1), torch.randn(7, size, generator=draw)
        with_both = weights @ (values + b_v) @ W.T + b_o
        close(weights @ values @ W.T + got, with_both, "attention's output changes when b_v is set to 0", "folded")
    return "One constant vector a layer: training b_v beside b_o gives attention nothing that b_o alone could not."


@exercise("bitfit.3", expects="a function bitfit(model) that returns a count")
def by_hand(answer: Any) -> str:
    """Freezes and thaws the right tensors of any model, counts them, and refuses a model without any."""
    from torch import nn

    need(callable(answer), "give the function's name, without parentheses or quotation marks")
    for model in _models():
        for p in model.parameters():
            p.requires_grad_(p.dim() > 1)  # whatever was frozen before
        wanted = {name: name.split(".")[-1] == "bias" for name, _ in model.named_parameters()}
        got = call(answer, model, what="bitfit")
        for name, p in model.named_parameters():
            if p.requires_grad and not wanted[name]:
                raise NotYet(f"{name} trains, and is no bias: {_why(name)}")
            need(p.requires_grad or not wanted[name], f"{name} is a bias and does not train{_lone(name)}")
        total = sum(p.numel() for name, p in model.named_parameters() if wanted[name])
        tensors = sum(wanted.values())
        need(got is not None, "bitfit returns None: does it end with `return`?")
        need(as_number(got) != tensors or tensors == total, "count the numbers in the tensors, not the tensors")
        number(got, total, "the tensors are right, their count is not")
    try:
        answer(nn.Sequential(nn.Linear(2, 3, bias=False), nn.RMSNorm(3)))
    except ValueError:
        return "Exact names, old states overwritten, and no silent run in which nothing trains."
    except Exception as error:
        raise NotYet(f"a model without biases should raise ValueError, not {type(error).__name__}") from None
    raise NotYet("a model without biases passes without a word: raise ValueError")


def _why(name: str) -> str:
    if "bias" not in name:
        return "everything else is to be frozen, whatever it was before"
    return "its name holds the word, and its last part is another"


def _lone(name: str) -> str:
    return ": in a model that is one layer no dot stands before the name" if name == "bias" else ""


def _models() -> list[Any]:
    """Models in which names mislead."""
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Linear(4, 6)
            self.relative_attention_bias = nn.Embedding(8, 2)  # T5's table
            self.bias_scale = nn.Parameter(torch.ones(3))

    plain = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2, bias=False))
    nested = nn.ModuleDict({"bias": nn.Linear(2, 5), "attention": Attention(), "norm": nn.LayerNorm(6)})
    return [plain, nested, nn.Linear(3, 2)]

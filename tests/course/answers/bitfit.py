"""Answers to the exercises of lesson 44."""

from __future__ import annotations

import torch


def bitfit(model):
    count = 0
    for name, p in model.named_parameters():
        p.requires_grad_(name.split(".")[-1] == "bias")
        count += p.numel() * p.requires_grad
    if not count:
        raise ValueError("this model has no biases")
    return count


def substring(model):
    for name, p in model.named_parameters():
        p.requires_grad_("bias" in name)
    return _counted(model)


def one_dimensional(model):
    """Norm gains are vectors, too."""
    for p in model.parameters():
        p.requires_grad_(p.dim() == 1)
    return _counted(model)


def only_freezes(model):
    for name, p in model.named_parameters():
        if not name.endswith("bias"):
            p.requires_grad_(False)
    return _counted(model)


def only_thaws(model):
    for name, p in model.named_parameters():
        if name.split(".")[-1] == "bias":
            p.requires_grad_(True)
    return _counted(model)


def linear_layers_alone(model):
    for p in model.parameters():
        p.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.bias is not None:
            module.bias.requires_grad_(True)
    return _counted(model)


def with_a_dot(model):
    for name, p in model.named_parameters():
        p.requires_grad_(name.endswith(".bias"))
    return _counted(model)


def silent(model):
    for name, p in model.named_parameters():
        p.requires_grad_(name.split(".")[-1] == "bias")
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def tensors(model):
    bitfit(model)
    return sum(p.requires_grad for p in model.parameters())


def says_nothing(model):
    bitfit(model)


def another_error(model):
    count = silent(model)
    assert count, "no biases"
    return count


def _counted(model):
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not count:
        raise ValueError("nothing trains")
    return count


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "bitfit.1": (
        12 * (4 * 768 + 3072 + 768 + 2 * 768) + 768,
        [12 * 8448, 8448, 12 * 6912, 12 * 9984 + 2 * 768, 12 * (6 * 768 + 2 * 768) + 768, 12 * 6912 + 768, "102144"],
    ),
    "bitfit.2": (
        lambda W_o, b_o, b_v: b_o + W_o @ b_v,
        [
            lambda W_o, b_o, b_v: b_o + b_v,
            lambda W_o, b_o, b_v: b_o,
            lambda W_o, b_o, b_v: W_o @ b_v,
            lambda W_o, b_o, b_v: b_o + W_o.T @ b_v,
            lambda W_o, b_o, b_v: b_o - W_o @ b_v,
            lambda W_o, b_o: b_o,
            torch.zeros(4),
        ],
    ),
    "bitfit.3": (
        bitfit,
        [
            substring,
            one_dimensional,
            only_freezes,
            only_thaws,
            linear_layers_alone,
            with_a_dot,
            silent,
            tensors,
            says_nothing,
            another_error,
            bitfit(torch.nn.Linear(2, 2)),
        ],
    ),
}

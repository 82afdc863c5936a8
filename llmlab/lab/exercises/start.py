"""Exercises of lesson 01, Start here."""

from __future__ import annotations

from typing import Any

from . import exercise, need, number, technique_class


@exercise("start.1", expects="a whole number")
def lora_parameters(answer: Any) -> str:
    """4 layers, 2 square matrices of width 128 in each, rank 4."""
    per_matrix = 4 * (128 + 128)
    need(answer != per_matrix, "that is one matrix; how many does LoRA adapt in the whole model?")
    need(answer != 2 * per_matrix, "that is one layer; how many are there?")
    number(answer, 4 * 2 * per_matrix, "first r (d_in + d_out) for one matrix; then count the matrices of all layers")
    return "1,024 numbers a matrix, two matrices a layer, four layers: what `small.parameters().trainable` counted."


@exercise("start.2", expects="a number")
def perplexity(answer: Any) -> str:
    """e to the power of ln 50."""
    number(answer, 50, "put the loss into e^loss: e to a power and ln undo each other")
    return "e^(ln n) = n, so perplexity counts the tokens that an even choice would be among."


@exercise("start.3", expects="a class like `Biases`, with the hook `trains`")
def norms(answer: Any) -> str:
    """An adaptation that votes True exactly for names that contain "norm"."""
    from llmlab import Run, load

    cls = technique_class(answer)
    rows = Run(["sft", cls()], [{"prompt": "a", "response": "b"}] * 4, model=load("tiny-gpt")).parameters()
    need(not all(row.trains for row in rows), "everything trains: vote False for what is not yours; None is no vote")
    missed = next((row.name for row in rows if "norm" in row.name and not row.trains), "")
    need(not missed, f"{missed} should train: its name contains 'norm'")
    extra = next((row.name for row in rows if "norm" not in row.name and row.trains), "")
    need(not extra, f"{extra} trains and should not")
    return f"Norms trains {rows.trainable:,} of {rows.total:,} parameters: a gain and a bias a channel of every norm."

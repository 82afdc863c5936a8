"""Dropout: in training alone, at the share asked for, and never left behind."""

from __future__ import annotations

import pytest
import torch

from llmlab import Run, Training
from llmlab.model import ModelConfig
from llmlab.pretrained import load_model
from llmlab.surgery import named_layers
from llmlab_plugins.clm import CLM
from llmlab_plugins.dropout import Dropout, MoreDropout
from llmlab_plugins.lora import LoRA

TINY = ModelConfig(vocab_size=400, context=64, layers=2, heads=2, width=32)
ROWS = [{"text": f"The number {i} has the square {i * i}."} for i in range(60)]


def make(*techniques, model=None):
    config = None if model else TINY
    return Run(
        [CLM(window=16), *techniques], ROWS, model=model, config=config, training=Training(steps=2, batch_size=4)
    )


def wrapped(model):
    return [path for path, holder, name in named_layers(model) if isinstance(getattr(holder, name), MoreDropout)]


def test_a_share_is_zeroed_and_the_rest_scaled_up():
    run = make(Dropout(share=0.25))
    layer = run.model.decoder.blocks[0].dropout
    x = torch.ones(200, 500)
    assert torch.equal(layer.eval()(x), x)
    y = layer.train()(x)
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert y[y != 0].unique().tolist() == [pytest.approx(4 / 3)]


def test_it_acts_on_each_layer_and_in_training_alone():
    plain, run = make().fit(1), make(Dropout(share=0.5)).fit(1)
    places = ["blocks.0", "blocks.1", "embeddings"]
    assert sorted(wrapped(run.model)) == [f"decoder.{place}.dropout" for place in places]
    assert plain.evaluations[0]["loss"] == run.evaluations[0]["loss"]
    assert plain.history[0]["loss"] != run.history[0]["loss"]


def test_it_is_never_applied_twice_nor_left_behind(tmp_path):
    run = make(Dropout()).fit(1)
    assert len(wrapped(make(Dropout(share=0.3), model=run.model).model)) == 3
    assert not wrapped(make(LoRA(), model=run.model).model)
    run.save(tmp_path)
    assert not wrapped(load_model(tmp_path))
    assert len(wrapped(Run.load(tmp_path, ROWS).model)) == 3


def test_loras_own_dropout_stays_its_own():
    run = make(LoRA(dropout=0.2), Dropout(share=0.4))
    assert run.model.decoder.blocks[0].attention.query.dropout.p == 0.2
    assert len(wrapped(run.model)) == 3

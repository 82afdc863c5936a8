"""Every published design with every kind of positions, all adaptations at once: what must hold there, too."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from llmlab.model import PRESETS, ModelConfig, Transformer
from llmlab.seeds import generator
from llmlab.surgery import named_parameters
from llmlab.technique import needs_of
from llmlab.testing import checks
from llmlab.testing.cases import SIZES, Case, additions, bare, copies, make, stirred, tokenizer

pytestmark = pytest.mark.slow
POSITIONS = get_args(get_type_hints(ModelConfig)["positions"])
DESIGNS = [(preset, positions) for preset in PRESETS for positions in POSITIONS]
STEPS = 3


def design(preset: str, positions: str) -> Transformer:
    """An untrained model whose every part matters; where the design shares key heads, or may, two queries share one."""
    config = replace(ModelConfig.preset(preset), **SIZES, positions=positions)
    config = replace(config, heads=4, kv_heads=2 if config.gated else 0)
    torch.manual_seed(0)
    model = Transformer(config).eval()
    for name, p in named_parameters(model):
        if p.dim() == 1:  # biases and gains start at 0 and 1, where mistakes hide
            nn.init.normal_(p, mean=p.mean().item(), std=0.2, generator=generator(1, name))
    model.tokenizer = tokenizer(config.family)
    return model


def everything(model: Transformer) -> Case:
    """The first objective of the model's family with all adaptations that do not object to its shape."""
    case = next(case for case in bare() if case.family == model.config.family)
    objects = [c for c in additions(case) if (ask := needs_of(c).objection) and ask(c(), model.config)]
    return case.alone(*(c for c in additions(case) if needs_of(c).kind == "adaptation" and c not in objects))


@pytest.mark.parametrize(("preset", "positions"), DESIGNS, ids="-".join)
def test_all_adaptations_at_once(preset, positions):
    model = design(preset, positions)
    given, case = copies(model), everything(model)
    assert len(case.added) > 1, "too little to compose"
    run = make(case, steps=STEPS, model=model)
    trains = {n for n, p in named_parameters(run.model) if p.requires_grad}
    start = copies(run.model)
    run.fit(progress=False)
    now = copies(run.model)
    assert all(torch.equal(p, given[n]) for n, p in copies(model).items()), "the given model changed"
    assert all(torch.equal(now[n], p) for n, p in start.items() if n not in trains), "frozen parameters changed"
    assert all(torch.equal(now[n], p) for n, p in given.items() if n not in trains), "frozen parameters changed"
    checks.check_orders(case, steps=1, most=4, model=model)
    if case.family != "encoder":
        checks.check_writing(stirred(run.model))


@pytest.mark.parametrize("preset", PRESETS)
def test_only_a_design_without_biases_is_objected_to(preset):
    model = design(preset, "rotary")
    case = everything(model)
    adaptations = [c for c in additions(case) if needs_of(c).kind == "adaptation"]
    missing = set(adaptations) - set(case.added)
    assert not missing or not [n for n, _ in named_parameters(model) if n.endswith("bias")]

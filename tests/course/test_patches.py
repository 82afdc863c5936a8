"""The patches that lessons start from: made by their recipes, small, and as good as their cards say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from llmlab import load

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from make_patches import CARDS, LORA, PATCHES, RECIPES, SEED, file, measure  # noqa: E402

TOLD = json.loads(CARDS.read_text())


def test_every_patch_has_a_recipe_and_a_card():
    assert sorted(path.stem for path in PATCHES.glob("*.safetensors")) == sorted(RECIPES) == sorted(TOLD)


@pytest.mark.parametrize("name", RECIPES)
def test_the_card_tells_the_recipe(name):
    objective, data, settings = RECIPES[name]
    card = TOLD[name]
    assert (card["techniques"], card["data"], card["training"], card["seed"]) == (
        objective | LORA,
        data,
        settings,
        SEED,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_a_small_file_beside_the_base(name):
    assert file(name).stat().st_size < 200_000
    model = load(str(file(name)))
    assert set(model.adaptations) - {"lora"} == {"reward", "ppo"} & set(TOLD[name]["techniques"])


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_it_is_as_good_as_its_card_says(name):
    torch.set_num_threads(1)
    for what, value in measure(name).items():
        assert value == pytest.approx(TOLD[name]["measured"][what], abs=0.03)


def test_more_choices_make_a_better_judge():
    assert TOLD["reward_large"]["measured"]["accuracy"] > TOLD["reward_small"]["measured"]["accuracy"] + 0.03

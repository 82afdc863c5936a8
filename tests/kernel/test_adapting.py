"""What trains, what stays, what is shared: votes, surgery, and models passed from run to run."""

from __future__ import annotations

import itertools
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llmlab import Run, Training, detach, merge
from llmlab.pretrained import load_model
from llmlab.surgery import (
    Wrapper,
    linear_layer,
    named_parameters,
    pass_on,
    replace_modules,
    snapshot,
    swapped,
    unwrap,
)
from llmlab.technique import hookimpl, knob, technique
from llmlab_plugins.clm import CLM
from llmlab_plugins.lora import LoRA
from llmlab_plugins.sft import SFT


class Bottleneck(Wrapper):
    def __init__(self, base, width, size):
        super().__init__(base)
        self.adapter_down, self.adapter_up = nn.Linear(width, size), nn.Linear(size, width)

    def forward(self, *args, **kwargs):
        y = self.base(*args, **kwargs)
        return y + self.adapter_up(F.relu(self.adapter_down(y)))


@technique(kind="adaptation")
class Adapt:
    size: int = knob(3, "Width.", low=1, high=64)

    @hookimpl
    def adapt_model(self, model):
        width = model.config.width
        replace_modules(model, ["attention", "mlp"], lambda m: Bottleneck(m, width, self.size))

    @hookimpl
    def trains(self, name):
        return ".adapter_" in name


class Scaled(Wrapper):
    def __init__(self, base):
        super().__init__(base)
        self.scale_gain = nn.Parameter(torch.rand(()) + 0.5)

    def forward(self, *args, **kwargs):
        return self.base(*args, **kwargs) * self.scale_gain


@technique(kind="adaptation")
class Scale:
    @hookimpl
    def adapt_model(self, model):
        replace_modules(model, ["mlp", "kv.value"], Scaled)

    @hookimpl
    def trains(self, name):
        return name.endswith("scale_gain")


@technique(kind="adaptation")
class Biases:
    @hookimpl
    def trains(self, name):
        return name.endswith(".bias")


@technique(kind="extra")
class ValueHead:
    @hookimpl
    def adapt_model(self, model):
        model.value_head = nn.Linear(model.config.width, 1)

    @hookimpl
    def trains(self, name):
        return name.startswith("value_head.") or None


def new(texts, tiny, *techniques, model=None, **training):
    return Run(
        [CLM(window=16), *techniques],
        texts,
        model=model,
        config=None if model else tiny,
        training=Training(**{"steps": 3, "batch_size": 4} | training),
    )


def trained(run):
    return {name for name, p in named_parameters(run.model) if p.requires_grad}


def stir(model):
    """Random numbers everywhere, so that nothing is hidden by a zero start."""
    draw = torch.Generator().manual_seed(1)
    for _, p in sorted(named_parameters(model)):
        p.data = torch.randn(p.shape, generator=draw) * 0.1


def logits(model, tokens):
    model.eval()
    with torch.no_grad():
        return model.logits(model(tokens))


def test_votes_any_true_wins_else_any_false_else_it_trains(texts, tiny):
    base = new(texts, tiny)
    assert trained(base) == {name for name, _ in named_parameters(base.model)}
    assert all(".lora_" in name for name in trained(new(texts, tiny, LoRA())))
    both = trained(new(texts, tiny, LoRA(), Biases()))
    assert both == {
        n for n, _ in named_parameters(new(texts, tiny, LoRA()).model) if "lora_" in n or n.endswith(".bias")
    }


@pytest.mark.parametrize("order", [(LoRA, ValueHead), (ValueHead, LoRA)])
def test_an_adaptation_does_not_freeze_anothers_head(order, texts, tiny):
    assert {"value_head.weight", "value_head.bias"} < trained(new(texts, tiny, *(t() for t in order)))


def test_nothing_to_train_is_said(texts, tiny):
    class Frozen:
        @hookimpl
        def trains(self, name):
            return False

    with pytest.raises(ValueError, match="nothing would train"):
        new(texts, tiny, Frozen())


@pytest.mark.parametrize("set_", [(LoRA, Adapt, Scale), (LoRA, Scale, Biases), (Adapt, Scale, ValueHead)])
def test_list_order_never_changes_the_function_nor_the_start(set_, texts, tiny):
    tokens = torch.randint(0, 100, (2, 12))
    models = [new(texts, tiny, *(t() for t in order)).model for order in itertools.permutations(set_)]
    starts = [dict(named_parameters(m)) for m in models]
    for start in starts[1:]:
        assert start.keys() == starts[0].keys()
        assert all(torch.equal(p, starts[0][name]) for name, p in start.items())
    for model in models:
        stir(model)
    expected = logits(models[0], tokens)
    assert all(torch.equal(logits(m, tokens), expected) for m in models[1:])


def test_order_of_runs_does_not_change_the_function_either(texts, tiny):
    """LoRA first and adapters in a later run give the same structure as the other way round."""
    base = new(texts, tiny)
    one = new(texts, tiny, Adapt(), model=new(texts, tiny, LoRA(), model=base.model).model).model
    other = new(texts, tiny, LoRA(), model=new(texts, tiny, Adapt(), model=base.model).model).model
    stir(one), stir(other)
    tokens = torch.randint(0, 100, (2, 12))
    assert torch.equal(logits(one, tokens), logits(other, tokens))


def test_weight_updates_sit_on_the_layer_and_output_wrappers_outside(texts, tiny):
    model = new(texts, tiny, Scale(), LoRA()).model
    value = model.decoder.blocks[0].attention.kv.value
    assert type(value).__name__ == "Scaled" and type(value.base).__name__ == "LoRALinear"
    assert isinstance(unwrap(value), nn.Linear)


def test_names_leave_wrappers_out(texts, tiny):
    names = {name for name, _ in named_parameters(new(texts, tiny, LoRA(), Adapt(), Scale()).model)}
    assert not [n for n in names if ".base." in n]
    assert "decoder.blocks.0.attention.query.weight" in names and "decoder.blocks.0.attention.query.lora_a" in names
    plain = {name for name, _ in named_parameters(new(texts, tiny).model)}
    assert plain < names


def test_targets_never_match_what_another_technique_added(texts, tiny):
    class Inner(Wrapper):
        def __init__(self, base):
            super().__init__(base)
            self.up = nn.Linear(4, 4)

    model = new(texts, tiny).model
    replace_modules(model, ["mlp"], Inner)
    found = replace_modules(model, ["up"], Scaled)
    assert found == [f"decoder.blocks.{i}.mlp.up" for i in range(2)]


def test_unknown_target_names_the_nearest(texts, tiny):
    with pytest.raises(ValueError, match="no layer is named 'qurey': did you mean 'query'"):
        new(texts, tiny, LoRA(targets="query, qurey"))
    with pytest.raises(ValueError, match=r"no layer is named 'zzz': this model has .*query"):
        new(texts, tiny, LoRA(targets="zzz"))


def test_frozen_tensors_are_shared_trained_ones_cloned_the_given_model_never_changes(texts, tiny):
    base = new(texts, tiny).fit()
    before = {n: p.detach().clone() for n, p in named_parameters(base.model)}
    run = new(texts, tiny, LoRA(), Biases(), model=base.model)
    given = dict(named_parameters(base.model))
    for name, p in named_parameters(run.model):
        if name in given:
            assert (p.data_ptr() == given[name].data_ptr()) == (not p.requires_grad), name
    run.fit()
    assert all(torch.equal(p, before[n]) for n, p in named_parameters(base.model))
    assert all(p.requires_grad for p in base.model.parameters())
    assert any(not torch.equal(p, before[n]) for n, p in named_parameters(run.model) if n.endswith("bias"))


def test_training_the_first_model_on_does_not_change_the_second(texts, tiny):
    base = new(texts, tiny).fit()
    run = new(texts, tiny, LoRA(), model=base.model)
    before = {n: p.detach().clone() for n, p in named_parameters(run.model)}
    base.fit(3)
    assert all(torch.equal(p, before[n]) for n, p in named_parameters(run.model))


def test_met_again_it_continues_with_other_knobs_it_names_merge(texts, tiny):
    first = new(texts, tiny, LoRA(rank=2)).fit()
    weights = {n: p.detach().clone() for n, p in named_parameters(first.model) if ".lora_" in n}
    again = new(texts, tiny, LoRA(rank=2), model=first.model)
    assert trained(again) == set(weights)
    assert all(torch.equal(p, weights[n]) for n, p in named_parameters(again.model) if n in weights)
    with pytest.raises(ValueError, match=r"already carries lora\(rank=2.*this run asks lora\(rank=3.*merge\(model\)"):
        new(texts, tiny, LoRA(rank=3), model=first.model)


def test_adaptations_a_run_does_not_list_stay_frozen(texts, tiny):
    first = new(texts, tiny, Adapt()).fit()
    later = new(texts, tiny, model=first.model)
    assert not [n for n in trained(later) if "adapter_" in n] and "decoder.norm.weight" in trained(later)
    biased = new(texts, tiny, Biases(), model=first.model)  # votes for every bias, an adapter's too
    assert not [n for n in trained(biased) if "adapter_" in n]
    after = trained(new(texts, tiny, model=biased.model))  # what it trained is its own, too, until it is merged
    assert not [n for n in after if n.endswith(".bias")] and "decoder.norm.weight" in after
    assert "decoder.norm.bias" in trained(new(texts, tiny, model=merge(biased.model, "biases")))


def test_untouched_tensors_stay_bit_for_bit(texts, tiny):
    base = new(texts, tiny).fit()
    run = new(texts, tiny, LoRA(), model=base.model).fit()
    kept = dict(named_parameters(base.model))
    moved = {n for n, p in named_parameters(run.model) if n in kept and not torch.equal(p, kept[n])}
    assert not moved
    assert all(p.abs().sum() > 0 for n, p in named_parameters(run.model) if n.endswith("lora_b"))


def test_merge_equals_the_adapted_model_and_detach_the_base(texts, tiny):
    base = new(texts, tiny).fit()
    run = new(texts, tiny, LoRA(rank=3), Adapt(), model=base.model).fit()
    tokens = torch.randint(0, 100, (2, 12))
    before = logits(run.model, tokens)
    merged = merge(run.model, "lora")
    assert torch.allclose(logits(merged, tokens), before, atol=1e-5)
    assert list(merged.adaptations) == ["adapt"] and not [n for n, _ in named_parameters(merged) if "lora_" in n]
    assert torch.equal(logits(run.model, tokens), before)
    bare = detach(run.model)
    assert torch.equal(logits(bare, tokens), logits(base.model, tokens)) and not bare.adaptations
    with pytest.raises(ValueError, match="adapt cannot be merged"):
        merge(run.model)
    with pytest.raises(ValueError, match="carries no 'prefix': it has lora, adapt"):
        detach(run.model, "prefix")


def values_of(model):
    return {n: p.detach().clone() for n, p in named_parameters(model)}


def equal(model, values):
    mine = dict(named_parameters(model))
    return mine.keys() == values.keys() and all(torch.equal(p, values[n]) for n, p in mine.items())


@pytest.mark.parametrize("fresh", [False, True], ids=["given", "built here"])
def test_detach_undoes_what_an_adaptation_trained_of_the_models_own(fresh, texts, tiny):
    base = None if fresh else new(texts, tiny).fit()
    run = new(texts, tiny, Biases(), LoRA(), model=base and base.model)
    before = {n: t for n, t in values_of(run.model).items() if ".lora_" not in n}
    run.fit()
    assert not equal(detach(run.model, "lora"), before) and list(detach(run.model, "lora").adaptations) == ["biases"]
    assert equal(detach(run.model), before) and not detach(run.model).adaptations
    assert any(not torch.equal(p, before[n]) for n, p in named_parameters(run.model) if n in before)


def test_what_is_remembered_is_shared_not_copied(texts, tiny):
    base = new(texts, tiny).fit()
    run = new(texts, tiny, Biases(), model=base.model).fit()
    given, originals = dict(named_parameters(base.model)), run.model.adaptations["biases"]["originals"]
    assert set(originals) == trained(run)
    later = new(texts, tiny, LoRA(), model=run.model).fit()
    for model in (run.model, later.model):
        kept = model.adaptations["biases"]["originals"]
        assert all(t.data_ptr() == given[n].data_ptr() for n, t in kept.items())
    before = values_of(base.model)
    new(texts, tiny, model=detach(later.model)).fit()  # trains on from what it shares
    base.fit(2)
    assert equal(detach(later.model), before)


def test_it_is_remembered_over_runs_folders_and_devices(texts, tiny, tmp_path):
    base = new(texts, tiny).fit()
    before = values_of(base.model)
    first = new(texts, tiny, Biases(), model=base.model).fit()
    again = new(texts, tiny, Biases(), LoRA(), model=first.model).fit()
    assert equal(detach(again.model), before)
    again.save(tmp_path / "run")
    loaded = load_model(tmp_path / "run")
    assert equal(loaded, values_of(again.model)) and equal(detach(loaded), before)
    on = new(texts, tiny, Biases(), LoRA(), model=loaded).fit()
    assert equal(detach(on.model), before) and not equal(detach(on.model, "lora"), before)
    doubled = detach(on.model.double())
    assert equal(doubled, {n: t.double() for n, t in before.items()})


def test_of_two_adaptations_that_trained_a_tensor_the_later_goes_back_to_the_earlier(texts, tiny):
    @technique(kind="adaptation")
    class Norms:
        @hookimpl
        def trains(self, name):
            return ".norm" in name

    base = new(texts, tiny).fit()
    first = new(texts, tiny, Biases(), model=base.model).fit()
    between = values_of(first.model)
    both = new(texts, tiny, Biases(), Norms(), model=first.model).fit()
    back = {n: p for n, p in named_parameters(detach(both.model, "norms")) if ".norm" in n}
    assert back and all(torch.equal(p, between[n]) for n, p in back.items())
    for names in ([], ["biases", "norms"], ["norms", "biases"]):
        assert equal(detach(both.model, *names), values_of(base.model))


def test_merging_keeps_what_is_a_weight_already(texts, tiny):
    run = new(texts, tiny, Biases(), LoRA()).fit()
    merged = merge(run.model)
    assert not merged.adaptations
    biases = {n: p for n, p in named_parameters(merged) if n.endswith(".bias")}
    assert biases and all(torch.equal(p, dict(named_parameters(run.model))[n]) for n, p in biases.items())
    tokens = torch.randint(0, 100, (2, 12))
    assert torch.allclose(logits(merged, tokens), logits(run.model, tokens), atol=1e-5)
    assert trained(new(texts, tiny, Biases(), model=merge(run.model, "biases"))) == set(biases)


def test_an_adaptation_that_adds_nothing_is_known_too(texts, tiny):
    @technique(kind="adaptation")
    class Some:
        end: str = knob(".bias", "Which.")

        @hookimpl
        def trains(self, name):
            return name.endswith(self.end)

    run = new(texts, tiny, Some()).fit()
    with pytest.raises(ValueError, match=r"already carries some\(end='.bias'\).*this run asks some\(end='.weight'\)"):
        new(texts, tiny, Some(end=".weight"), model=run.model)


class Product(Wrapper):
    """Add a·b to the output: no change of a weight, but one number is enough for it."""

    merged_knobs: ClassVar = {"factors": 1}

    def __init__(self, base, factors):
        super().__init__(base)
        self.product_of = nn.ParameterList(nn.Parameter(torch.tensor(0.5 + i)) for i in range(factors))

    def forward(self, *args, **kwargs):
        return self.base(*args, **kwargs) + torch.stack(list(self.product_of)).prod()

    def merged(self):
        self.product_of = nn.ParameterList([nn.Parameter(torch.stack(list(self.product_of)).prod().detach())])
        return self


@technique(kind="adaptation")
class Shift:
    factors: int = knob(2, "Numbers whose product is added.", low=1, high=9)

    @hookimpl
    def adapt_model(self, model):
        replace_modules(model, ["attention", "query"], lambda layer: Product(layer, self.factors))

    @hookimpl
    def trains(self, name):
        return ".product_of." in name


def test_what_no_weight_can_hold_stays_in_its_plainest_form_after_a_merge(texts, tiny):
    base = new(texts, tiny).fit()
    run = new(texts, tiny, LoRA(rank=3), Shift(), model=base.model).fit()
    tokens = torch.randint(0, 100, (2, 12))
    before = logits(run.model, tokens)
    merged = merge(run.model)
    assert torch.allclose(logits(merged, tokens), before, atol=1e-5)
    assert torch.equal(logits(run.model, tokens), before) and len(run.model.adaptations) == 2
    left = [n for n, _ in named_parameters(merged) if "product_of" in n or "lora_" in n]
    assert len(left) == 2 * tiny.layers and all(n.endswith("product_of.0") for n in left)
    assert merged.adaptations == {"shift": {"knobs": {"factors": 1}, "parameters": left, "originals": {}}}
    assert torch.equal(logits(merge(merged), tokens), logits(merged, tokens))
    assert trained(new(texts, tiny, Shift(factors=1), model=merged)) == set(left)
    assert torch.equal(logits(detach(run.model), tokens), logits(base.model, tokens))
    assert list(merge(run.model, "lora").adaptations["shift"]["knobs"].values()) == [2]


class Gain(Wrapper):
    """Multiply the output: a change of the weight, inside LoRA's by its name."""

    order = 0

    def __init__(self, base):
        super().__init__(base)
        self.gain_of = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.base(x) * self.gain_of

    def merged(self):
        inside = self.linear()
        return linear_layer(inside.weight * self.gain_of, inside.bias * self.gain_of)


class Zoom(Gain):
    """The same, but around LoRA's."""


@technique(kind="adaptation")
class Gains:
    zoom: bool = knob(False, "Whether around.")

    @hookimpl
    def adapt_model(self, model):
        replace_modules(model, ["query"], Zoom if self.zoom else Gain)

    @hookimpl
    def trains(self, name):
        return name.endswith(".gain_of")


@pytest.mark.parametrize("zoom", [False, True], ids=["inside", "around"])
def test_two_changes_of_one_weight_merge_together_and_the_inner_one_alone(zoom, texts, tiny):
    base, tokens = new(texts, tiny).fit(), torch.randint(0, 100, (2, 12))
    inner, outer = ("lora", "gains") if zoom else ("gains", "lora")
    for order in ((LoRA(rank=3), Gains(zoom)), (Gains(zoom), LoRA(rank=3))):
        run = new(texts, tiny, *order, model=base.model)
        stir(run.model)
        before, merged = logits(run.model, tokens), merge(run.model)
        assert torch.allclose(logits(merged, tokens), before, atol=1e-5)
        assert not merged.adaptations and not [m for m in merged.modules() if isinstance(m, Wrapper)]
        once = merge(run.model, inner)
        assert list(once.adaptations) == [outer] and torch.allclose(logits(once, tokens), before, atol=1e-5)
        assert torch.allclose(logits(merge(once), tokens), before, atol=1e-5)
        with pytest.raises(ValueError, match=f"^{outer} cannot be merged without {inner}, which it is built around"):
            merge(run.model, outer)
        assert torch.equal(logits(run.model, tokens), before)


def test_merged_model_can_be_adapted_anew(texts, tiny):
    run = new(texts, tiny, LoRA(rank=3)).fit()
    again = new(texts, tiny, LoRA(rank=5), model=merge(run.model)).fit()
    assert {p.size(0) for n, p in named_parameters(again.model) if n.endswith("lora_a")} == {5}


def test_a_tied_head_is_untied_by_a_merge(texts, tiny):
    run = new(texts, tiny, LoRA(targets="head.output")).fit()
    tokens = torch.randint(0, 100, (2, 12))
    table = run.model.decoder.embeddings.token.weight.detach().clone()
    merged = merge(run.model)
    assert torch.allclose(logits(merged, tokens), logits(run.model, tokens), atol=1e-5)
    assert torch.equal(merged.decoder.embeddings.token.weight, table) and not merged.config.tied
    assert pass_on(merged).head.output.weight is not pass_on(merged).decoder.embeddings.token.weight


def test_a_snapshot_is_a_reference_policy(texts, tiny):
    run = new(texts, tiny, LoRA())
    run.fit(1)
    tokens = torch.randint(0, 100, (2, 12))
    reference, before = snapshot(run.model), logits(run.model, tokens)
    run.fit(2)
    after = logits(run.model, tokens)
    assert not torch.equal(before, after)
    with swapped(run.model, reference):
        assert torch.equal(logits(run.model, tokens), before)
    assert torch.equal(logits(run.model, tokens), after)
    assert set(reference) == trained(run)


def test_the_table_of_parameters(texts, tiny):
    run = new(texts, tiny, LoRA(rank=2))
    table = run.parameters()
    lora = 2 * (32 + 32) * 2 * tiny.layers  # r (d_in + d_out), query and value, in every layer
    assert table.trainable == lora and table.total == lora + new(texts, tiny).parameters().total
    assert [row[0] for row in table.by_owner()] == ["base", "lora"] and f"{table.share:.2%}" in str(table)


def test_a_pipeline_of_objectives_shares_one_base(texts, pairs, tiny):
    base = new(texts, tiny).fit()
    tuned = Run([SFT(), LoRA()], pairs, model=base.model, training=Training(steps=3, batch_size=4)).fit()
    assert len(tuned.history) == 3 and tuned.source is None

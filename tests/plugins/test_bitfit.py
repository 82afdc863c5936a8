"""BitFit: what counts as a bias, what must not move, and which models have none."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llmlab import Run, Training, detach, merge
from llmlab.lab import Lab
from llmlab.model import ModelConfig, Transformer
from llmlab.surgery import named_parameters, pass_on
from llmlab.technique import hookimpl, technique
from llmlab_plugins.bitfit import BitFit, without_biases
from llmlab_plugins.clm import CLM
from llmlab_plugins.lora import LoRA
from llmlab_plugins.mlm import MLM

TINY = ModelConfig(vocab_size=400, context=64, layers=2, heads=2, width=32)
ROWS = [{"text": f"The number {i} has the square {i * i}."} for i in range(60)]
TWO = "query and MLP"


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(1)
    return Run([CLM(window=16)], ROWS, config=TINY, training=Training(steps=20, batch_size=4, learning_rate=1e-2)).fit()


def tune(base, *others, steps=20, **knobs):
    training = Training(steps=max(1, steps), batch_size=4)
    run = Run([CLM(window=16), BitFit(**knobs), *others], ROWS, model=base.model, training=training)
    return run.fit(steps) if steps else run


def logits(model):
    model.eval()
    with torch.no_grad():
        return model.logits(model(torch.arange(40).view(2, 20)))


def count(config, **knobs):
    with torch.device("meta"):
        model = Transformer(config)
    return sum(p.numel() for name, p in named_parameters(model) if BitFit(**knobs).trains(name))


# -- what it counts ----------------------------------------------------------------------------------------------


def bert(layers, heads, width, **changes):
    sizes = dict(vocab_size=30522, context=512, layers=layers, heads=heads, width=width)
    return ModelConfig.preset("bert", **(sizes | dict(head_transform=False, head_bias=False) | changes))


def test_the_papers_counts_for_bert():
    base = bert(12, 12, 768)
    assert count(base) == 102_912 and count(bert(12, 12, 768, pooler=False)) == 102_144
    assert count(bert(24, 16, 1024, pooler=False)) + 1024 == 272_384
    assert count(base, which=TWO) == 12 * (768 + 3072) == 46_080  # of 109 million: the paper's 0.04 %
    head = 768 + 768 + 30_522  # the dense layer, the norm and the output of masked language modelling
    assert count(bert(12, 12, 768, head_transform=True, head_bias=True)) == 102_912 + head


def test_the_sum_of_all_biases(base):
    D, M = TINY.width, TINY.mlp_width
    each = 4 * D + M + D + 2 * D  # attention, the MLP's two, the norms' two
    run = tune(base, steps=0)
    assert run.parameters().trainable == count(TINY) == TINY.layers * each + D
    assert tune(base, steps=0, which=TWO).parameters().trainable == TINY.layers * (D + M)


def test_an_encoder_decoder_counts_three_attentions():
    config = ModelConfig.preset("transformer", layers=1, heads=2, width=32, vocab_size=50)
    assert count(config, which=TWO) == 3 * 32 + 2 * 128


def test_the_name_is_matched_exactly(base):
    names = {name for name, p in named_parameters(tune(base, steps=0).model) if p.requires_grad}
    assert names == {name for name, _ in named_parameters(base.model) if name.split(".")[-1] == "bias"}
    for name in ("encoder.relative_attention_bias.weight", "decoder.relative.weight", "biased.weight", "x.lora_bias"):
        assert not BitFit().trains(name)
    for name in ("blocks.0.subquery.bias", "blocks.0.attention.kv.value.bias", "blocks.0.mlp.down.bias"):
        assert not BitFit(which=TWO).trains(name)
    names = {
        name.split(".", 3)[3] for name, p in named_parameters(tune(base, steps=0, which=TWO).model) if p.requires_grad
    }
    assert names == {"attention.query.bias", "mlp.up.bias"}


# -- what must and must not change -------------------------------------------------------------------------------


def test_it_starts_as_the_base_and_moves_biases_alone(base):
    assert torch.equal(logits(tune(base, steps=0).model), logits(base.model))
    run, given = tune(base), dict(named_parameters(base.model))
    for name, p in named_parameters(run.model):
        assert torch.equal(p, given[name]) == (not name.endswith(".bias")), name


def test_detached_it_is_the_base_and_merged_it_keeps_what_it_learnt(base):
    run = tune(base)
    before, after = logits(base.model), logits(run.model)
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.equal(logits(detach(run.model)), before) and not detach(run.model).adaptations
    merged = merge(run.model)
    assert torch.equal(logits(merged), after) and not merged.adaptations
    assert torch.equal(logits(run.model), after)
    again = tune(SimpleNamespace(model=merged))
    assert torch.equal(logits(detach(again.model)), after)  # its base is the merged model


def test_a_model_passed_on_knows_what_it_carries(base, tmp_path):
    run = tune(base, which=TWO)
    assert pass_on(run.model).adaptations["bitfit"]["knobs"] == {"which": TWO}
    with pytest.raises(ValueError, match=r"already carries bitfit\(which='query and MLP'\).*merge\(model\)"):
        tune(run, which="all")
    further = tune(run, which=TWO)
    assert torch.equal(logits(detach(further.model)), logits(base.model))
    run.save(tmp_path / "run")
    assert torch.equal(logits(detach(Run.load(tmp_path / "run", data=ROWS).model)), logits(base.model))


def test_lora_beside_it_trains_both_and_neither_takes_the_other_along(base):
    run = tune(base, LoRA(rank=2))
    trained = {name for name, p in named_parameters(run.model) if p.requires_grad}
    assert {name.split(".")[-1] for name in trained} == {"bias", "lora_a", "lora_b"}
    assert torch.equal(logits(detach(run.model)), logits(base.model))
    left = detach(run.model, "lora")
    assert list(left.adaptations) == ["bitfit"] and not torch.equal(logits(left), logits(base.model))


def test_the_matrices_get_no_gradient_and_cost_no_work(base):
    """A training step multiplies matrices forwards, for the layer before, and for W: BitFit leaves the third out."""
    tokens = torch.randint(0, 400, (2, 16))

    def work(model, backward):
        with FlopCounterMode(display=False) as counter:
            hidden = model(tokens).hidden
            if backward:
                hidden.sum().backward()
        return counter.get_total_flops()

    everything, biases = Run([CLM(window=16)], ROWS, model=base.model).model, tune(base, steps=0).model
    forward = work(biases, False)
    assert work(biases, True) == 2 * forward and work(everything, True) == 3 * forward
    biases.loss(biases(tokens), tokens).backward()
    assert all((p.grad is not None) == name.endswith(".bias") for name, p in named_parameters(biases))


def test_it_learns(base):
    run = tune(base, steps=60)
    before = run.evaluations[0]["loss"]
    assert run.metrics["loss"] < before - 0.1


# -- models that have none ---------------------------------------------------------------------------------------

NONE = "BitFit trains biases, and this model has no biases: choose another adaptation, or a model with biases"


@pytest.mark.parametrize("preset", ["llama", "t5"])
def test_a_model_without_biases_is_refused_before_any_work(preset):
    config = ModelConfig.preset(preset)
    assert count(config) == 0

    class Unread(dict):
        def __getitem__(self, split):
            raise AssertionError("the data were read")

    objective = technique(kind="objective")(type("Any", (), {n: hookimpl(m) for n, m in HOOKS.items()}))
    with pytest.raises(ValueError, match=f"^{NONE}$"):
        Run([objective(), BitFit()], Unread(train=ROWS), config=config)


HOOKS = {"batches": lambda self, run, examples: None, "compute_loss": lambda self, model, batch, output: None}


def test_what_is_said_is_what_the_model_has():
    choices = product(("all", "none", "qkv"), ("layernorm", "rmsnorm"), (True, False), (True, False), ("all", TWO))
    for bias, norm, head, pooler, which in choices:
        config = ModelConfig(
            family="encoder", layers=1, heads=2, width=8, vocab_size=9,
            bias=bias, norm=norm, head_transform=head, head_bias=head, pooler=pooler,
        )  # fmt: skip
        assert (count(config, which=which) == 0) == bool(without_biases(BitFit(which=which), config))


def test_qwen2_trains_its_queries():
    config = ModelConfig.preset("qwen2", layers=2, heads=2, width=32)
    assert count(config, which=TWO) == 2 * 32 and count(config) == 2 * 3 * 32
    with pytest.raises(ValueError, match='no biases in queries and MLP, choose which="all"'):
        Run([CLM(), BitFit(which=TWO)], ROWS, config=ModelConfig(bias="none", norm="layernorm"))


def test_the_panel_greys_it_with_the_reason(base):
    bare = Transformer(ModelConfig.preset("llama", vocab_size=400, context=64, layers=1, heads=2, width=32))
    bare.tokenizer = base.tokenizer
    lab = Lab(["clm"], ["bitfit", "lora"], data={"squares": ROWS}, start={"with": base, "without": bare}, steps=2)
    toggle, reason = lab.choosing.toggles["bitfit"], lab.choosing.reasons["bitfit"]
    assert not toggle.disabled and not reason.value
    lab.set(start="without")
    assert toggle.disabled and "this model has no biases" in reason.value
    assert not lab.choosing.toggles["lora"].disabled
    with pytest.raises(ValueError, match=NONE):
        lab.choose("bitfit")
    lab.set(start="with").choose("bitfit").set(start="without")
    assert lab.status == f"This cannot run: {NONE}" and lab._run.disabled and not toggle.disabled
    lab.drop("bitfit")
    assert lab.status == "Ready: press Run." and not lab._run.disabled


def test_two_objectives_are_refused_in_one_line(base):
    with pytest.raises(ValueError, match=r"^CLM and MLM both implement"):
        Run([CLM(), MLM(), BitFit()], ROWS, model=base.model)

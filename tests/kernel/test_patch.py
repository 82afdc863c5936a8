"""A patch holds what differs from the base and no more; what was saved comes back bit for bit, several side by side."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from llmlab import Run, Training, detach, load, merge
from llmlab.catalogue import techniques
from llmlab.patch import load_patch, save_patch
from llmlab.surgery import Wrapper, named_parameters, replace_modules
from llmlab.technique import hookimpl, technique
from llmlab_plugins.lora import LoRA
from llmlab_plugins.sft import SFT


@technique(kind="adaptation")
class Biases:
    """Trains tensors of the base and adds none."""

    @hookimpl
    def trains(self, name):
        return name.endswith(".bias")


class Scaled(Wrapper):
    def __init__(self, base):
        super().__init__(base)
        self.gain = nn.Parameter(torch.rand(()) + 0.5)

    def forward(self, *args, **kwargs):
        return self.base(*args, **kwargs) * self.gain


@technique(kind="adaptation")
class Scale:
    """Adds tensors, and trains the norms of the base beside them."""

    @hookimpl
    def adapt_model(self, model):
        replace_modules(model, ["mlp"], Scaled)

    @hookimpl
    def trains(self, name):
        return name.endswith("gain") or ".norm" in name


@pytest.fixture
def base(pairs, tiny):
    return Run(["sft"], pairs, config=tiny, training=Training(steps=2, batch_size=4)).fit(progress=False).model


def tuned(base, pairs, *techniques, seed=0):
    settings = Training(steps=3, batch_size=4)
    return Run(["sft", *techniques], pairs, model=base, training=settings, seed=seed).fit(progress=False)


def tensors(model):
    return {name: p.detach().clone() for name, p in named_parameters(model)}


def logits(model):
    with torch.no_grad():
        return model.eval().logits(model(torch.arange(40).view(2, 20)))


def equal(one, other):
    one, other = tensors(one), tensors(other)
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


KINDS = {
    "adds": [LoRA(rank=2, alpha=3.0, targets="query, up")],
    "trains the base's": [Biases()],
    "both": [Scale()],
    "several": [LoRA(rank=2), Scale(), Biases()],
    "everything": [],
}
GIVEN = (Scale(), Biases())


@pytest.mark.parametrize("kind", KINDS)
def test_it_holds_what_differs_and_gives_it_back(kind, base, pairs, tmp_path):
    run, file, was = tuned(base, pairs, *KINDS[kind]), tmp_path / "task.safetensors", tensors(base)
    assert save_patch(run.model, base, file) == file
    moved = {n for n, p in tensors(run.model).items() if n not in was or not torch.equal(p, was[n])}
    assert set(load_file(file)) == moved == {n for n, p in named_parameters(run.model) if p.requires_grad}
    again = load_patch(base, file, GIVEN)
    assert equal(again, run.model) and torch.equal(logits(again), logits(run.model))
    assert all(torch.equal(p, was[n]) for n, p in named_parameters(base)) and not base.adaptations
    given = dict(named_parameters(base))
    shared = {n for n, p in named_parameters(again) if n in given and p.data_ptr() == given[n].data_ptr()}
    assert shared == set(was) - moved


@pytest.mark.parametrize("kind", ["adds", "trains the base's", "both", "several"])
def test_what_comes_back_can_be_detached_and_trained_on(kind, base, pairs, tmp_path):
    run, file = tuned(base, pairs, *KINDS[kind]), tmp_path / "task.safetensors"
    save_patch(run.model, base, file)
    again = load_patch(base, file, GIVEN)
    assert torch.equal(logits(detach(again)), logits(base))
    on = tuned(again, pairs, *KINDS[kind])
    assert not equal(on.model, run.model) and equal(again, run.model)


def test_several_stand_side_by_side_on_one_base(base, pairs, tmp_path):
    runs = [tuned(base, pairs, LoRA(rank=2), seed=s) for s in (0, 1)] + [tuned(base, pairs)]
    for i, run in enumerate(runs):
        save_patch(run.model, base, tmp_path / f"{i}.safetensors")
    models = [load_patch(base, tmp_path / f"{i}.safetensors") for i in range(3)]
    assert all(torch.equal(logits(m), logits(run.model)) for m, run in zip(models, runs, strict=True))
    sizes = [(tmp_path / f"{i}.safetensors").stat().st_size for i in range(3)]
    assert sizes[0] == sizes[1] < sizes[2] / 4
    Run(["sft"], pairs, model=base, training=Training(steps=2, batch_size=4)).fit(progress=False)
    assert torch.equal(logits(models[0]), logits(runs[0].model))


def test_one_patch_on_top_of_another(base, pairs, tmp_path):
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_patch(tuned(base, pairs, Biases()).model, base, first)
    middle = load_patch(base, first, GIVEN)
    last = tuned(middle, pairs, Biases(), LoRA(rank=2)).model
    save_patch(last, middle, second)
    assert equal(load_patch(load_patch(base, first, GIVEN), second, GIVEN), last)
    save_patch(last, base, second)  # or both at once, beside the first base
    again = load_patch(base, second, GIVEN)
    assert equal(again, last) and torch.equal(logits(detach(again)), logits(base))


def test_what_was_there_before_is_kept_where_the_base_has_it_no_more(base, pairs, tmp_path):
    """Everything trains, then the biases: to detach them, the file needs them as they were in between."""
    between, file = tuned(base, pairs), tmp_path / "task.safetensors"
    last = tuned(between.model, pairs, Biases())
    save_patch(last.model, base, file)
    assert any(name.startswith("before biases: ") for name in load_file(file))
    assert equal(detach(load_patch(base, file, GIVEN)), between.model)


SHIPPED = [e.name for e in techniques().values() if e.source == "shipped" and e.needs.kind == "adaptation"]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_adaptation_of_the_kit_comes_back_as_it_was(name, base, pairs, tmp_path):
    model, file = tuned(base, pairs, name).model, tmp_path / "task.safetensors"
    models = [model]
    with contextlib.suppress(ValueError):  # what cannot be merged has one form
        models.append(merge(model))
    for one in models:
        again = load_patch(base, save_patch(one, base, file))
        assert equal(again, one) and torch.equal(logits(again), logits(one))
        assert again.adaptations.keys() == one.adaptations.keys()


def test_a_merged_update_is_the_matrices_it_was_merged_into(base, pairs, tmp_path):
    merged, file = merge(tuned(base, pairs, LoRA(rank=2, targets="query")).model), tmp_path / "task.safetensors"
    save_patch(merged, base, file)
    assert set(load_file(file)) == {f"decoder.blocks.{i}.attention.query.weight" for i in range(2)}
    assert equal(load_patch(base, file), merged)


def test_a_sign_of_zero_is_a_difference(base, pairs, tmp_path):
    other = load_patch(base, save_patch(tuned(base, pairs, Biases()).model, base, tmp_path / "b"), GIVEN)
    name, p = next((n, p) for n, p in named_parameters(other) if n.endswith("query.bias"))
    zero, minus = torch.zeros_like(p), -torch.zeros_like(p)
    dict(named_parameters(base))[name].data, p.data = zero, minus
    assert name in load_file(save_patch(other, base, tmp_path / "task.safetensors"))


# -- from and to names -------------------------------------------------------------------------------------------


@pytest.fixture
def named(base, pairs, tmp_path):
    """A run from a base that has a name, and the file of its patch."""
    Run(["sft"], pairs, model=base).save(tmp_path / "base")
    run = tuned(load(tmp_path / "base"), pairs, LoRA(rank=2))
    return run, run.save_patch(tmp_path / "task.safetensors")


def test_a_file_is_a_models_name(named, pairs):
    run, file = named
    again = load(file)
    assert equal(again, run.model) and again.source == str(file)
    assert equal(load(again.source), run.model)
    repeated = tuned(again, pairs, LoRA(rank=2))
    assert repeated.source == str(file)


def test_a_base_in_memory_has_to_be_given(base, pairs, tmp_path):
    run, file = tuned(base, pairs, LoRA(rank=2)), tmp_path / "task.safetensors"
    with pytest.raises(
        ValueError, match=r"started from no model that can be loaded again.*save_patch\(run.model, base"
    ):
        run.save_patch(file)
    save_patch(run.model, base, file)
    with pytest.raises(ValueError, match=r"task.safetensors was made from a model in memory.*load_patch\(base, file\)"):
        load(file)


# -- what is refused, in one line --------------------------------------------------------------------------------


def test_another_base_is_refused(named, base, pairs, tmp_path):
    file = named[1]
    other = tuned(base, pairs).model
    with pytest.raises(
        ValueError, match=r"task.safetensors belongs to another base, .*base: a patch fits no model but"
    ):
        load_patch(other, file)
    with pytest.raises(ValueError, match="belongs to another base"):
        load_patch(load("tiny-gpt"), file)
    assert torch.equal(logits(load_patch(base, file)), logits(named[0].model))  # the same bits, wherever they are from
    tuned(base, pairs).save(tmp_path / "base")  # what the name means has changed
    with pytest.raises(ValueError, match="belongs to another base"):
        load(file)


def test_a_model_of_another_shape_is_refused(base, pairs, tmp_path):
    head = merge(tuned(base, pairs, LoRA(rank=2, targets="output")).model)  # it is untied now
    for one, other in ((head, base), (load("tiny-gpt"), base), (base, tuned(base, pairs, LoRA()).model)):
        with pytest.raises(ValueError, match="does not have the shape of this base"):
            save_patch(one, other, tmp_path / "task.safetensors")
    with pytest.raises(ValueError, match="nothing to keep"):
        save_patch(base, base, tmp_path / "task.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_refused(named, base):
    file = named[1]
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    for content in (whole[:-10], whole[: len(whole) // 2], b"", b"nothing", bytes(flipped)):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"task.safetensors is damaged"):
            load(file)
    file.write_bytes(whole)
    assert equal(load(file), named[0].model)
    save_file({"a": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match="damaged or no patch"):
        load_patch(base, file)
    with pytest.raises(ValueError, match=r"checkpoint.safetensors is no patch"):
        load(file.parent / "base/checkpoint.safetensors")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone.safetensors"):
        load_patch(base, file.parent / "gone.safetensors")


def test_an_unknown_technique_is_named(base, pairs, tmp_path):
    file = save_patch(tuned(base, pairs, Scale()).model, base, tmp_path / "task.safetensors")
    with pytest.raises(ValueError, match="no technique is called 'scale'") as refused:
        load_patch(base, file)
    assert "techniques=[…]" in refused.value.__notes__[0]


def test_a_technique_that_builds_something_else_by_now_is_named(base, pairs, tmp_path):
    file = save_patch(tuned(base, pairs, Scale()).model, base, tmp_path / "task.safetensors")

    def changed(what):
        return technique(kind="adaptation")(type("Scale", (), {"adapt_model": hookimpl(what)}))()

    def wider(self, model):
        replace_modules(model, ["mlp"], Scaled)
        for module in model.modules():
            if isinstance(module, Scaled):
                module.gain = nn.Parameter(torch.zeros(2))

    for what in (wider, lambda self, model: replace_modules(model, ["attention"], Scaled)):
        with pytest.raises(ValueError, match=r"gain does not fit what scale builds: were they changed since\?"):
            load_patch(base, file, [changed(what)])


def test_a_file_that_cannot_be_written_leaves_the_old_one(named, base, monkeypatch):
    run, file = named
    whole = file.read_bytes()
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_patch(run.model, base, file)
    assert file.read_bytes() == whole and [p.name for p in file.parent.iterdir() if p.is_file()] == [file.name]


def test_the_file_tells_what_it_is(named):
    from safetensors import safe_open

    with safe_open(str(named[1]), "pt") as file:
        about = json.loads(file.metadata()["tree"])
    assert about["adaptations"]["lora"]["knobs"]["rank"] == 2 and about["base"].endswith("base")
    assert SFT.llmlab.name not in about["adaptations"]  # it built nothing

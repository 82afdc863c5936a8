"""Models to start from: what is bundled is what its card says, and other folders are read or refused in one line."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from llmlab import ModelConfig, Run, Transformer
from llmlab.pretrained import HERE, bundled, load_model, save_model
from llmlab.pretrained.recipes import RECIPES
from llmlab.pretrained.stacks import two_stacks
from llmlab.surgery import named_parameters
from llmlab.tokenizer import Tokenizer

CONFIG = ModelConfig(vocab_size=330, context=32, layers=2, heads=2, width=16, positions="learned")


def logits(model):
    with torch.no_grad():
        return model.eval().logits(model(torch.arange(20).view(2, 10)))


def test_what_is_bundled_is_small_and_has_a_card():
    assert {"tiny-gpt", "tiny-bert", "tiny-t5"} <= set(bundled()) and set(bundled()) == set(RECIPES)
    for name in bundled():
        folder, card = HERE / name, json.loads((HERE / name / "card.json").read_text())
        assert (folder / "model.safetensors").stat().st_size < 8e6
        assert card["parameters"] == sum(p.numel() for p in load_model(name).parameters())
        assert {"start", "data", "steps", "tokens", "seed", "learning_rate", "techniques", "validation"} <= set(card)
        assert card["data"]["licence"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_cards_measures_are_found_again(name):
    card = json.loads((HERE / name / "card.json").read_text())
    said = card["validation"]
    found = Run([t.lower() for t in card["techniques"]], said["data"], model=load_model(name)).evaluate("validation")
    assert found == {key: pytest.approx(value, abs=0.01) for key, value in said.items() if key != "data"}
    assert found.get("floor", 0.0) < found["loss"]


def test_two_stacks_of_a_decoder():
    """Both read and write as it did; the cross-attention of each layer starts as its self-attention."""
    model = load_model("tiny-gpt")
    made = two_stacks(model).eval()
    theirs = dict(named_parameters(model))
    for name, parameter in named_parameters(made):
        if name.startswith("decoder.") and "cross" not in name:
            assert torch.equal(parameter, theirs[name])
    block = made.decoder.blocks[2]
    assert torch.equal(block.cross.kv.key.weight, block.attention.kv.key.weight)
    assert torch.equal(block.norm_cross.bias, theirs["decoder.blocks.2.norm_attention.bias"])
    assert torch.equal(made.encoder.blocks[1].mlp.up.weight, theirs["decoder.blocks.1.mlp.up.weight"])
    assert made.encoder.embeddings.token.weight is made.head.output.weight and made.tokenizer == model.tokenizer
    made.encoder.blocks[0].mlp.up.weight.data.zero_()  # nothing is shared with the decoder that was given
    assert theirs["decoder.blocks.0.mlp.up.weight"].abs().max() > 0 == made.encoder.blocks[0].mlp.up.weight.abs().max()
    with pytest.raises(ValueError, match="two stacks are made from a decoder"):
        two_stacks(load_model("tiny-bert"))


def test_a_loaded_model_is_what_was_saved(tmp_path):
    model = Transformer(CONFIG)
    model.tokenizer = Tokenizer.train(["some text"], 330)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(logits(again), logits(model)) and again.tokenizer == model.tokenizer
    assert again.head.output.weight is again.decoder.embeddings.token.weight
    save_model(model, tmp_path, torch.bfloat16)
    assert (logits(load_model(tmp_path)) - logits(model)).abs().max() < 0.05


def gpt2_folder(folder, model):
    """What transformers would write for the same weights: queries, keys and values in one transposed matrix."""
    ours = dict(named_parameters(model))
    theirs = {
        "wte.weight": ours["decoder.embeddings.token.weight"],
        "wpe.weight": ours["decoder.embeddings.position.weight"],
    }
    for leaf in ("weight", "bias"):
        theirs[f"ln_f.{leaf}"] = ours[f"decoder.norm.{leaf}"]
        for i in range(model.config.layers):
            block, h = f"decoder.blocks.{i}", f"h.{i}"
            parts = [ours[f"{block}.attention.{part}.{leaf}"] for part in ("query", "kv.key", "kv.value")]
            theirs[f"{h}.attn.c_attn.{leaf}"] = torch.cat(parts).t() if leaf == "weight" else torch.cat(parts)
            for mine, name in (("attention.out", "attn.c_proj"), ("mlp.up", "mlp.c_fc"), ("mlp.down", "mlp.c_proj")):
                tensor = ours[f"{block}.{mine}.{leaf}"]
                theirs[f"{h}.{name}.{leaf}"] = tensor.t() if leaf == "weight" else tensor
            theirs[f"{h}.ln_1.{leaf}"], theirs[f"{h}.ln_2.{leaf}"] = (
                ours[f"{block}.norm_{part}.{leaf}"] for part in ("attention", "mlp")
            )
    save_file({f"transformer.{n}": t.detach().contiguous() for n, t in theirs.items()}, folder / "model.safetensors")
    c = model.config
    described = dict(model_type="gpt2", n_positions=c.context, n_layer=c.layers, n_head=c.heads, n_embd=c.width)
    (folder / "config.json").write_text(json.dumps(described | {"vocab_size": c.vocab_size}))


def test_a_hugging_face_folder_is_read(tmp_path):
    model = Transformer(CONFIG)
    gpt2_folder(tmp_path, model)
    read = load_model(tmp_path)
    assert torch.allclose(logits(read), logits(model), atol=1e-6) and read.source == str(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: (f / "config.json").write_text('{"model_type": "mamba"}'),
            "holds a 'mamba' model: supported are gpt2",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"nonsense"), "is damaged"),
        (lambda f: (f / "model.safetensors").unlink(), "only safetensors are read"),
        (lambda f: (f / "config.json").write_text("{}"), "describes no model"),
        (lambda f: (f / "config.json").unlink(), "it is no model or run folder"),
    ],
)
def test_what_cannot_be_read_is_one_line(change, message, tmp_path):
    gpt2_folder(tmp_path, Transformer(CONFIG))
    change(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_are_named(tmp_path):
    save_model(Transformer(CONFIG), tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    for setting, message in (
        ({"width": 32}, "has shape"),
        ({"layers": 3}, "lacks weight"),
        ({"layers": 1}, "strange weight"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(described | {"model": {**described["model"], **setting}}))
        with pytest.raises(ValueError, match=message):
            load_model(tmp_path)

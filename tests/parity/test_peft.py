"""LoRA, prefix-tuning and (IA)³ beside peft's: the same numbers give the same logits, loss, gradients and merged model.

GPT-2 holds queries, keys and values in one matrix, and peft adapts it as one. Its LoRA there is three of ours that
share A, so what it trains is less: our three matrices A are set equal, and their gradients add up to its one.
"""

from __future__ import annotations

import pytest
import torch
from parity.draws import drawn
from parity.measure import compare, double_precision
from parity.peers import answers, asked, learn, names_of, phrase, same, scale_of, step, theirs_of

peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'llmlab[bench]' to compare with it")

from llmlab.surgery import Wrapper, merge, named_parameters, plain  # noqa: E402
from llmlab_plugins.ia3 import IA3, ScaledLinear  # noqa: E402
from llmlab_plugins.lora import LoRA, LoRALinear  # noqa: E402
from llmlab_plugins.prefix import Prefix  # noqa: E402
from llmlab_plugins.seq2seq import Seq2Seq  # noqa: E402
from llmlab_plugins.sft import SFT  # noqa: E402

pytestmark = pytest.mark.bench
seeds = pytest.mark.parametrize("seed", range(4))
families = pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
TASK = {"gpt2": "CAUSAL_LM", "llama": "CAUSAL_LM", "t5": "SEQ_2_SEQ_LM"}


@pytest.fixture(autouse=True)
def _double():
    torch.set_num_threads(1)
    with double_precision():
        yield


def both(family, seed, technique, configure, folder, start=lambda theirs: None):
    """Our run with the technique, their model with `configure(their model)`, and what theirs is asked."""
    theirs, tok, draw = drawn(family, seed)
    start(theirs)
    model = same(theirs, folder)
    pairs = [(phrase(draw, 2), phrase(draw, 3)) for _ in range(4)]
    rows, objective = [{"prompt": x, "response": y} for x, y in pairs], Seq2Seq if family == "t5" else SFT
    run = learn([objective(answers=0), technique], rows, model, tok, len(pairs))
    wrapped = peft.get_peft_model(theirs, configure(theirs)).eval()
    return run, wrapped, asked(family, pairs, tok)


def layers_of(run, kind):
    return {plain(path): m for path, m in run.model.named_modules() if isinstance(m, kind)}


def layer_of(path, theirs):
    """Their layer for ours, and which third of it."""
    number = "".join(c for c in path if c.isdigit())
    name, _, third = names_of(theirs)[path.replace(number, "#")].replace("#", number).partition("/")
    return theirs.get_submodule(name), third


def compare_steps(what, run, theirs, given):
    """Logits and loss; both sides then hold gradients."""
    _, logits, loss = step(run)
    wanted, their_loss = answers(theirs, given)
    compare(what, "logits", logits, wanted)
    compare(what, "loss", loss, their_loss)
    their_loss.backward()


def compare_trained(what, run, theirs, pairs):
    """Gradients of what trains, (ours, theirs) each; nothing else trains on either side."""
    least = scale_of(b for _, b in pairs)
    for i, (a, b) in enumerate(pairs):
        compare(what, f"gradient: {i}", a, b, least)
    frozen = [p for p in run.model.parameters() if not p.requires_grad]
    assert frozen and all(p.grad is None for p in frozen)
    assert all(p.grad is not None for p in theirs.parameters() if p.requires_grad)


def compare_merged(what, run, theirs, given):
    """Every weight after both have folded their change in, and the logits of the whole."""
    merged, folded = merge(run.model), theirs.merge_and_unload()
    tensors = dict(folded.named_parameters())
    for name, p in named_parameters(merged):
        if not (run.model.config.tied and name == "head.output.weight"):
            compare(what, f"merged: {name}", p, theirs_of(name, folded, tensors))
    assert not any(isinstance(m, Wrapper) for m in merged.modules())
    (batch,) = run.make_batches(chunk(run))
    logits = merged.head(merged(**batch.inputs).hidden[batch["labels"] != -100])
    compare(what, "merged: logits", logits, answers(folded, given)[0])


def chunk(run):
    from llmlab.batch import Chunk

    rows = list(run.rows("train"))
    return Chunk(rows, range(len(rows)), 0, 0)


# -- LoRA --------------------------------------------------------------------------------------------------------

SOME = {"gpt2": "query, kv.key, kv.value", "llama": "query, kv.value", "t5": "query, kv.value"}
ALL = {"gpt2": ", out, up, down", "llama": ", kv.key, out, gate, up, down", "t5": ", kv.key, out, up, down"}
THEIR_SOME = {"gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"], "t5": ["q", "v"]}
THEIR_ALL = {
    "gpt2": ["c_proj", "c_fc"],
    "llama": ["k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "t5": ["k", "o", "wi", "wi_1", "wo"],
}
SETTINGS = [(1, 1.0, False, False), (2, 7.0, True, False), (3, 16.0, False, True), (5, 0.5, True, True)]


@families
@seeds
def test_lora(family, seed, tmp_path):
    """Two draws with some of the matrices, two with all; every other one with rsLoRA."""
    rank, alpha, rslora, everything = SETTINGS[seed]
    targets = SOME[family] + ALL[family] * everything

    def config(theirs):
        names = THEIR_SOME[family] + THEIR_ALL[family] * everything
        turned = {"fan_in_fan_out": True} if family == "gpt2" else {}
        return peft.LoraConfig(r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=names, **turned)

    technique = LoRA(rank=rank, alpha=alpha, rslora=rslora, targets=targets)
    run, theirs, given = both(family, seed, technique, config, tmp_path)
    pairs, shared = [], {}
    with torch.no_grad():
        for path, layer in layers_of(run, LoRALinear).items():
            other, third = layer_of(path, theirs.base_model.model)
            a, b = (other.get_submodule(f"lora_{x}")["default"].weight for x in "AB")
            if not third or third == "0":
                a.normal_(std=0.3), b.normal_(std=0.3)
            layer.lora_a.copy_(a), layer.lora_b.copy_(part := third_of(b, third))
            pairs.append((layer.lora_b, b, third))
            shared.setdefault(a, []).append(layer.lora_a)
            assert part.shape == layer.lora_b.shape
    what = f"lora, {family}"
    compare_steps(what, run, theirs, given)
    found = [(ours.grad, third_of(b.grad, third)) for ours, b, third in pairs]
    found += [(sum(a.grad for a in parts), a.grad) for a, parts in shared.items()]
    compare_trained(what, run, theirs, found)
    numbers = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert numbers == sum(b.numel() for _, b in found)
    compare_merged(what, run, theirs, given)


def third_of(tensor, third):
    return tensor.chunk(3)[int(third)] if third else tensor


# -- prefix-tuning -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 7])
@seeds
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_prefix_tuning(family, seed, hidden, tmp_path):
    """As a table and with the MLP, whose prefix peft makes as wide as all key heads, ours as wide as the model.

    With zeros in what ours has more, and in the weights that read it, the two are the same, and stay it: those
    gradients are 0.
    """
    length = 1 + seed
    config = lambda theirs: peft.PrefixTuningConfig(  # noqa: E731
        task_type=TASK[family], num_virtual_tokens=length, prefix_projection=bool(hidden), encoder_hidden_size=hidden
    )
    run, theirs, given = both(family, seed, Prefix(length=length, hidden=hidden), config, tmp_path)
    ours, encoder = run.model.decoder.positions.prefix, theirs.prompt_encoder["default"]
    pairs = []
    with torch.no_grad():
        for p in encoder.parameters():
            p.normal_(std=0.5)
        if hidden:
            width = encoder.embedding.weight.size(1)
            ours.embedding.zero_(), ours.up.weight.zero_()
            first, last = encoder.transform[0], encoder.transform[2]
            pairs += [(ours.embedding, encoder.embedding.weight, width), (ours.up.weight, first.weight, width)]
            pairs += [(ours.up.bias, first.bias, None)]
            pairs += [(ours.down.weight, last.weight, None), (ours.down.bias, last.bias, None)]
        else:
            pairs += [(ours.table, encoder.embedding.weight, None)]
        for a, b, width in pairs:
            a[..., :width] = b
    what = f"prefix, {family}{', with its MLP' if hidden else ''}"
    compare_steps(what, run, theirs, given)
    compare_trained(what, run, theirs, [(a.grad[..., :width], b.grad) for a, b, width in pairs])
    for a, _, width in pairs:
        assert width is None or not a.grad[..., width:].any()
    assert {id(b) for _, b, _ in pairs} == {id(p) for p in theirs.parameters() if p.requires_grad}
    merged = merge(run.model)
    compare(what, "merged", merged.decoder.positions.prefix.table, theirs.get_prompt_embedding_to_save("default"))
    assert not merged.decoder.positions.prefix.hidden


def silent_distances(theirs):
    """peft's prefix of T5 stands in the text: it has a distance, and so a bias. Ours has none. With a bias of 0 …"""
    theirs.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.data.zero_()


@seeds
def test_prefix_tuning_of_t5(seed, tmp_path):
    """What the two share: a prefix of the decoder's self-attention, where distances have no bias.

    peft's has no prefix in the encoder nor in cross-attention: ours is taken off there. It gives layer i the keys and
    values 2i (modulo the number of layers), so with an even number two layers share theirs, and their gradients add up.
    """
    length = 1 + seed
    config = lambda theirs: peft.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=length)  # noqa: E731
    technique = Prefix(length=length, hidden=0)
    run, theirs, given = both("t5", seed, technique, config, tmp_path, silent_distances)
    encoder, decoder = run.model.encoder, run.model.decoder
    ours, other = decoder.positions.prefix, theirs.prompt_encoder["default"].embedding.weight
    encoder.positions = encoder.positions.base
    for block in encoder.blocks:
        block.attention.kv = block.attention.kv.base
    for block in decoder.blocks:
        block.cross.kv = block.cross.kv.base
    L, size = len(decoder.blocks), 2 * run.model.config.width
    with torch.no_grad():
        other.normal_(std=0.5)
        for i, block in enumerate(decoder.blocks):
            ours.table[:, block.attention.kv.columns] = other[:, 2 * i % L * size :][:, :size]
    compare_steps("prefix, t5's decoder", run, theirs, given)
    wanted = torch.zeros_like(other)
    for i, block in enumerate(decoder.blocks):
        wanted[:, 2 * i % L * size :][:, :size] += ours.table.grad[:, block.attention.kv.columns]
    compare("prefix, t5's decoder", "gradient", wanted, other.grad)


# -- (IA)³ -------------------------------------------------------------------------------------------------------

SCALED = {"gpt2": (["c_attn"], "mlp.c_proj"), "llama": (["k_proj", "v_proj"], "down_proj"), "t5": (["k", "v"], "wo")}


@families
@seeds
def test_ia3(family, seed, tmp_path):
    """On GPT-2's fused matrix peft scales queries as well: there its vector's first third stays 1."""
    outputs, inputs = SCALED[family]

    def config(theirs):
        turned = {"fan_in_fan_out": True} if family == "gpt2" else {}
        return peft.IA3Config(target_modules=[*outputs, inputs], feedforward_modules=[inputs], **turned)

    run, theirs, given = both(family, seed, IA3(), config, tmp_path)
    found = []
    with torch.no_grad():
        for path, layer in layers_of(run, ScaledLinear).items():
            other, third = layer_of(path, theirs.base_model.model)
            vector = other.ia3_l["default"]
            part = third_of(vector.flatten(), third)
            part.normal_(mean=1.0, std=0.4)
            layer.ia3_l.copy_(part)
            found.append((layer.ia3_l, vector, third))
    what = f"ia3, {family}"
    compare_steps(what, run, theirs, given)
    compare_trained(what, run, theirs, [(a.grad, third_of(b.grad.flatten(), third)) for a, b, third in found])
    extra = run.model.config.width * run.model.config.layers if family == "gpt2" else 0
    numbers = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert numbers == extra + sum(a.numel() for a, *_ in found)
    compare_merged(what, run, theirs, given)

"""What a peer and the kit are given alike: weights, rows, gradients by each other's names."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import torch
from parity.draws import WORDS
from parity.measure import compare
from torch import Tensor, nn

from llmlab import Run, Training
from llmlab.batch import Batch, Chunk, pad
from llmlab.losses import IGNORE
from llmlab.model import ModelConfig, Transformer
from llmlab.pretrained.huggingface import FAMILIES, T5_GATED, _find, load_huggingface
from llmlab.surgery import named_parameters
from llmlab.tokenizer import Tokenizer

# -- the same rows -----------------------------------------------------------------------------------------------


def phrase(draw: random.Random, most: int) -> str:
    return " " + " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


def learn(techniques: list[Any], rows: list[dict[str, str]], model: Transformer, tok: Tokenizer, count: int) -> Run:
    """A run of the techniques, about to learn from the first `count` of its examples."""
    model.tokenizer = tok
    training = Training(batch_size=count)
    run = Run(techniques, {"train": rows}, model=model, training=training, device="cpu")
    run.model.train()
    return run


def step(run: Run) -> tuple[Batch, Tensor, Tensor]:
    """The batch of its first examples, the logits of the N labels (N, V), and their loss after `backward`."""
    rows, count = run.rows("train"), run.training.batch_size
    (batch,) = run.make_batches(Chunk([rows[i] for i in range(count)], range(count), 0, 0, training=True))
    hidden = run.model(**batch.inputs).hidden[batch["labels"] != IGNORE]
    loss = run.step(batch)["loss"]
    loss.backward()
    return batch, run.model.head(hidden), loss


def asked(family: str, pairs: list[tuple[str, str]], tok: Tokenizer, left: bool = False) -> dict[str, Tensor]:
    """Pairs as the peers' documentation asks for them: ids, a mask and labels."""
    if family in ("t5", "bart"):
        sources, targets = ([[*tok.encode(pair[i]), tok.eos] for pair in pairs] for i in (0, 1))
    else:
        prompts = [[tok.bos, *tok.encode(x)] for x, _ in pairs]
        sources = [[*x, *tok.encode(y), tok.eos] for x, (_, y) in zip(prompts, pairs, strict=True)]
        targets = [[IGNORE] * len(x) + whole[len(x) :] for x, whole in zip(prompts, sources, strict=True)]
    ids, keep = pad(sources, tok.pad, left), pad([[1] * len(s) for s in sources], 0, left)
    return {
        "input_ids": ids,
        "attention_mask": keep,
        "labels": pad(targets, IGNORE, left and family not in ("t5", "bart")),
    }


def answers(theirs: Any, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Their logits of the N labels (N, V), and their loss."""
    found, labels = theirs(**given), given["labels"]
    if theirs.config.model_type in ("t5", "bart", "bert"):
        return found.logits[labels != IGNORE], found.loss
    return found.logits[:, :-1][labels[:, 1:] != IGNORE], found.loss


# -- the same weights --------------------------------------------------------------------------------------------

_ATTENTION = {"query": "q_proj", "kv.key": "k_proj", "kv.value": "v_proj", "out": "out_proj"}
_PARTS = {
    **{f"attention.{ours}": f"self_attn.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"cross.{ours}": f"encoder_attn.{theirs}" for ours, theirs in _ATTENTION.items()},
    "norm_attention": "self_attn_layer_norm",
    "norm_cross": "encoder_attn_layer_norm",
    "mlp.up": "fc1",
    "mlp.down": "fc2",
    "norm_mlp": "final_layer_norm",
}
BART = {  # no folder of this family is read, but the kit's Transformer computes it
    **{f"{s}.blocks.#.{ours}": f"model.{s}.layers.#.{p}" for s in ("encoder", "decoder") for ours, p in _PARTS.items()},
    **{f"{s}.embeddings.position": f"model.{s}.embed_positions" for s in ("encoder", "decoder")},
    **{f"{s}.embeddings.norm": f"model.{s}.layernorm_embedding" for s in ("encoder", "decoder")},
    "encoder.embeddings.token": "model.shared",
}


def _bart(theirs: nn.Module) -> Transformer:
    config: Any = theirs.config
    shape = ModelConfig(
        family="encoder-decoder",
        vocab_size=config.vocab_size,
        context=config.max_position_embeddings,
        layers=config.encoder_layers,
        heads=config.encoder_attention_heads,
        width=config.d_model,
        mlp_width=config.encoder_ffn_dim,
        positions="learned",
        norm_position="post",
        norm_embeddings=True,
        activation="gelu",
    )
    ours = Transformer(shape)
    with torch.no_grad():
        for name, p in named_parameters(ours):
            p.copy_(theirs_of(name, theirs, dict(theirs.named_parameters())))
    return ours.eval()


def same(theirs: Any, folder: Any) -> Transformer:
    """Ours with the peer's weights, which go through a folder."""
    if theirs.config.model_type == "bart":
        return _bart(theirs)
    theirs.save_pretrained(folder)
    return load_huggingface(folder)


def names_of(theirs: Any) -> dict[str, str]:
    """Our layers -> theirs."""
    kind = theirs.config.model_type
    if kind == "bart":
        return BART
    return T5_GATED if kind == "t5" and theirs.config.is_gated_act else FAMILIES[kind][1]


def theirs_of(name: str, theirs: Any, tensors: dict[str, Tensor]) -> Tensor:
    """Of the peer's tensors (weights, gradients) the one for our parameter: a third of a fused one, turned, …"""
    kind = theirs.config.model_type
    found = _find(name, names_of(theirs), tensors, transposed=kind == "gpt2")
    assert found is not None, name
    first = 2 if kind == "bart" and name.endswith("position.weight") else 0  # its first position is the third row
    return found[first:]


def scale_of(gradients: Iterable[Tensor]) -> float:
    """Below this, a gradient counts as 0: a thousandth of the greatest."""
    return max(float(g.abs().max()) for g in gradients) / 1000


def compare_gradients(family: str, ours: Transformer, theirs: Any) -> None:
    """Every gradient of ours beside the peer's, and none of the peer's left over.

    A key's bias changes no softmax, so its gradient is 0 but for rounding: hence the scale, 1/1000 of the greatest.
    """
    gradients = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(theirs.named_parameters()))
    least, count = scale_of(gradients.values()), 0
    found = {name: p.grad for name, p in named_parameters(ours)}
    if family == "t5" and not ours.config.tied:  # its stacks share what ours have one each of
        found["encoder.embeddings.token.weight"] += found.pop("decoder.embeddings.token.weight")
    for name, gradient in found.items():
        assert gradient is not None, name
        wanted = theirs_of(name, theirs, gradients)
        compare(family, f"gradient: {name}", gradient, wanted, least)
        count += gradient.numel()
    if family == "bart":
        count += 2 * 2 * theirs.config.d_model  # the two rows before its first position
        assert not any(gradients[f"model.{s}.embed_positions.weight"][:2].any() for s in ("encoder", "decoder"))
    assert count == sum(g.numel() for g in gradients.values())

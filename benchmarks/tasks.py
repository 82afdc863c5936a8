"""What is timed: each function prepares one task in one library and returns what one round of it does.

Every side computes the same: a GPT-2 of 6 layers, width 256, 4 heads, 4096 entries, context 256, no dropout;
training on 16 rows of 128 tokens with fused AdamW and gradients clipped to length 1; greedy decoding
of 96 tokens after prompts of 32. The encoder-decoder is a T5 of 3 + 3 layers that reads 128 tokens and writes 32.
Peers get their best setting: fused attention, no needless checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

SIZES = {"vocab_size": 4096, "layers": 6, "width": 256, "heads": 4, "context": 256}
ROWS, LENGTH, PROMPT, NEW = 16, 128, 32, 96
READ, WRITTEN = 128, 32
Task = Callable[[], None]


def ids(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, SIZES["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(0))


# -- llmlab ------------------------------------------------------------------------------------------------------


def llmlab_model() -> Any:
    from llmlab.model import ModelConfig, Transformer
    from llmlab.speed import tune_process

    tune_process()
    torch.manual_seed(0)
    return Transformer(ModelConfig.preset("gpt2", **SIZES, dropout=0.0, init_std=0.02))


def llmlab_train(*names: str, precision: str = "fp32") -> Task:
    """The kit's whole loop, hooks, metrics and clipping included."""
    from llmlab import Run, Training
    from llmlab.tokenizer import Tokenizer

    words = [f"{a}{b}" for a in "bcdfghjklmnpqrstvwxz" for b in "aeiou"]
    texts = [" ".join(words[(i * 7 + j * j) % 100] for j in range(200)) for i in range(100)]
    model = llmlab_model()
    model.tokenizer = Tokenizer.train(texts, 400)
    settings = Training(steps=10**6, batch_size=ROWS, precision=precision)
    run = Run(list(names), data={"train": [{"text": text} for text in texts]}, model=model, training=settings)
    return lambda: run.fit(steps=1, progress=False) and None


def llmlab_t5() -> Any:
    from llmlab.model import ModelConfig, Transformer
    from llmlab.speed import tune_process

    tune_process()
    torch.manual_seed(0)
    return Transformer(ModelConfig.preset("t5", **SIZES | {"layers": 3, "context": READ}, dropout=0.0))


def llmlab_translate(precision: str = "fp32") -> Task:
    from llmlab import Run, Training
    from llmlab.tokenizer import Tokenizer

    words = [f"{a}{b}" for a in "bcdfghjklmnpqrstvwxz" for b in "aeiou"]
    lines = [" ".join(words[(i * 7 + j * j) % 100] for j in range(2 * READ)) for i in range(100)]
    model = llmlab_t5()
    model.tokenizer = tok = Tokenizer.train(lines, 400)
    rows = [{"source": line, "target": tok.decode(tok.encode(line)[: WRITTEN - 1])} for line in lines]
    settings = Training(steps=10**6, batch_size=ROWS, precision=precision)
    run = Run(["seq2seq"], data={"train": rows}, model=model, training=settings)
    assert {(len(row["source"]), len(row["target"])) for row in run.rows("train")} == {(READ, WRITTEN)}
    return lambda: run.fit(steps=1, progress=False) and None


def llmlab_answer(rows: int) -> Task:
    from llmlab.generate import generate

    model, sources = llmlab_t5(), ids(rows, READ).tolist()

    def once() -> None:
        assert generate(model, sources, max_new_tokens=NEW, temperature=0, bos=0).tokens.shape == (rows, NEW)

    return once


def llmlab_decode(rows: int) -> Task:
    from llmlab.generate import generate

    model, prompts = llmlab_model(), ids(rows, PROMPT).tolist()

    def once() -> None:
        assert generate(model, prompts, max_new_tokens=NEW, temperature=0).tokens.shape == (rows, NEW)

    return once


# -- transformers and peft ---------------------------------------------------------------------------------------


def peer_model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=SIZES["vocab_size"],
        n_positions=SIZES["context"],
        n_embd=SIZES["width"],
        n_layer=SIZES["layers"],
        n_head=SIZES["heads"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    return GPT2LMHeadModel(config)


def peer_train(lora: bool = False, bf16: bool = False) -> Task:
    model, tokens = peer_model(), ids(ROWS, LENGTH)
    if lora:  # c_attn holds queries, keys and values in one matrix; as many numbers train as with q and v apart
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn"], fan_in_fan_out=True))
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()

    return step


def peer_decode(rows: int) -> Task:
    model, prompts = peer_model().eval(), ids(rows, PROMPT)
    everything = torch.ones_like(prompts)

    def once() -> None:
        out = model.generate(
            prompts, attention_mask=everything, max_new_tokens=NEW, do_sample=False, pad_token_id=0, use_cache=True
        )
        assert out.shape == (rows, PROMPT + NEW)

    return once


def peer_t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=SIZES["vocab_size"],
        d_model=SIZES["width"],
        d_kv=SIZES["width"] // SIZES["heads"],
        d_ff=4 * SIZES["width"],
        num_layers=3,
        num_heads=SIZES["heads"],
        dropout_rate=0.0,
        eos_token_id=None,
        decoder_start_token_id=0,
    )
    torch.manual_seed(0)
    return T5ForConditionalGeneration(config)


def peer_translate(bf16: bool = False) -> Task:
    model, source, labels = peer_t5().train(), ids(ROWS, READ), ids(ROWS, WRITTEN)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=source, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()

    return step


def peer_answer(rows: int) -> Task:
    model, sources = peer_t5().eval(), ids(rows, READ)
    everything = torch.ones_like(sources)

    def once() -> None:
        out = model.generate(
            sources, attention_mask=everything, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, use_cache=True
        )
        assert out.shape == (rows, 1 + NEW)

    return once


class Row:
    """One line of the table: what `unit` a round is, and who computes it; the first is compared with the others."""

    def __init__(self, name: str, unit: str, per_round: int, **sides: Callable[[], Task]) -> None:
        self.name, self.unit, self.per_round, self.sides = name, unit, per_round, sides


def rows() -> Iterator[Row]:
    yield Row("train CLM, float32", "step", 1, llmlab=lambda: llmlab_train("clm"), transformers=peer_train)
    yield Row(
        "train CLM, bfloat16",
        "step",
        1,
        llmlab=lambda: llmlab_train("clm", precision="bf16"),
        transformers=lambda: peer_train(bf16=True),
    )
    yield Row(
        "train LoRA r 8, float32",
        "step",
        1,
        llmlab=lambda: llmlab_train("clm", "lora"),
        peft=lambda: peer_train(lora=True),
    )
    yield Row(
        "train LoRA r 8, bfloat16",
        "step",
        1,
        llmlab=lambda: llmlab_train("clm", "lora", precision="bf16"),
        peft=lambda: peer_train(lora=True, bf16=True),
    )
    yield Row("train T5, float32", "step", 1, llmlab=llmlab_translate, transformers=peer_translate)
    yield Row(
        "train T5, bfloat16",
        "step",
        1,
        llmlab=lambda: llmlab_translate("bf16"),
        transformers=lambda: peer_translate(bf16=True),
    )
    for n in (1, 32):
        yield Row(
            f"T5 greedily, {n} row{'s' * (n > 1)}",
            "token a row",
            NEW,
            llmlab=lambda n=n: llmlab_answer(n),  # type: ignore[misc]
            transformers=lambda n=n: peer_answer(n),  # type: ignore[misc]
        )
    for n in (1, 32):
        yield Row(
            f"decode greedily, {n} row{'s' * (n > 1)}",
            "token a row",
            NEW,
            llmlab=lambda n=n: llmlab_decode(n),  # type: ignore[misc]
            transformers=lambda n=n: peer_decode(n),  # type: ignore[misc]
        )


TASKS = {row.name: row for row in rows()}

"""What the other side of a published formula is made from: each answer read alone, and the loss's pull on numbers."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from parity.measure import BOUND, note

from llmlab import Run, Training
from llmlab.batch import Chunk
from llmlab.generate import as_prompt
from llmlab.losses import IGNORE
from llmlab.model import ModelConfig, Transformer
from llmlab.tokenizer import Tokenizer

WORDS = ["red", "blue", "green", "old", "new", "small", "big", "odd"]
ASKED = [f"{a} {b}:" for a, b in itertools.combinations(WORDS, 2)]


def close(what, name, found, wanted):
    found, wanted = (np.asarray(x.detach() if isinstance(x, torch.Tensor) else x) for x in (found, wanted))
    assert found.shape == wanted.shape and wanted.dtype == np.float64
    error = np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-3)
    note(what, name if name in ("gradient", "score") else "loss" if "loss" in name else "batch", error)
    assert error < BOUND, f"{what}, {name}: {error:.1e} apart"


def model_of(family):
    """A model whose answers are short: the end mark is likely everywhere."""
    torch.manual_seed(1)
    tok = Tokenizer.train(ASKED, 300)
    sizes = dict(vocab_size=tok.vocab_size, context=30, layers=2, heads=3, width=18, mlp_width=25)
    model = Transformer(ModelConfig(family=family, **sizes, head_bias=True, tied=False, init_std=0.3))
    torch.nn.init.normal_(model.head.output.bias)
    model.head.output.bias.data[tok.eos] += 5
    model.tokenizer = tok
    return model


def make(techniques, rows, model, size=6):
    training = Training(batch_size=size, learning_rate=1e-3)
    run = Run(techniques, {"train": rows}, model=model, training=training, device="cpu")
    run.hooks.call("before_fit", run=run)
    move(run, 1)
    return run


def move(run, seed, by=0.03):
    draw = torch.Generator().manual_seed(seed)
    for p in run.model.parameters():
        p.data = p.data + by * torch.randn(p.shape, generator=draw)


def batches(run):
    rows, count = run.rows("train"), run.training.batch_size
    return run.make_batches(Chunk([rows[i] for i in range(count)], range(count), 0, run.seed, training=True))


@torch.no_grad()
def read(model, prompt, answer, head=None, temperature=1.0):
    """log π of each token of the answer, and the head's numbers where they are predicted; prompt and answer are ids."""
    logp, hidden = distributions(model, prompt, answer, temperature)
    values = None if head is None else model.heads[head](hidden).numpy()
    return logp[np.arange(len(answer)), answer], values


@torch.no_grad()
def distributions(model, prompt, answer, temperature):
    """log softmax of the logits that predict each token of the answer, over the temperature: and the hidden vectors."""
    if model.encoder is None:
        hidden = model(torch.tensor([[*prompt, *answer][:-1]])).hidden[0, len(prompt) - 1 :]
    else:
        tokens = torch.tensor([[model.tokenizer.bos, *answer[:-1]]])
        hidden = model(tokens, source=torch.tensor([prompt])).hidden[0]
    x = model.head(hidden).numpy() / temperature
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True)), hidden


def written(run, batch):
    """(prompt, answer) of each row as ids, the answer by what has a label."""
    found = []
    for i, labels in enumerate(batch["labels"][: len(batch["score"])]):
        here = labels != IGNORE
        if run.model.encoder is None:
            prompt = batch.inputs["tokens"][i, : int(here.nonzero()[0]) + 1].tolist()
        else:
            prompt = batch.inputs["source"][i, batch.inputs["source_keep"][i]].tolist()
        assert prompt in [as_prompt(run.model, text) for text in ASKED]
        found.append((prompt, labels[here].tolist()))
    return found


def taste(prompts, texts):
    """A rule to score by."""
    return [0.37 * len(text) - 0.9 * text.count("e") for text in texts]


def score_of(run, answer, no_end):
    tok = run.tokenizer
    return taste([], [tok.decode(answer)])[0] if tok.eos in answer else no_end


class Leaf:
    """What a function returns, as the end of the graph: so that the loss's gradient stops there and can be read."""

    def __init__(self, function):
        self.function, self.seen = function, []

    def __call__(self, *args, **kwargs):
        self.seen.append(self.function(*args, **kwargs).detach().requires_grad_())
        return self.seen[-1]


def pulls(run, batch, head=None):
    """The losses of a step, and their gradient at log π (B, T) and at the head's numbers, where a label is."""
    at = run.model.logprobs = Leaf(run.model.logprobs)
    if head:
        run.model.heads[head].forward = of_head = Leaf(run.model.heads[head].forward)
    losses = run.step(batch)
    losses["loss"].backward()
    del run.model.logprobs
    if head:
        del run.model.heads[head].forward
    (logp,) = at.seen
    return losses, logp.grad, of_head.seen[0].grad if head else None


def rows_of(tensor, batch, count):
    """The numbers of each answer's tokens."""
    return [tensor[i][batch["labels"][i] != IGNORE] for i in range(count)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))

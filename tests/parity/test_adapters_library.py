"""Adapters beside the `adapters` library's: the same numbers give the same logits, loss and gradients.

That library pins transformers 4.57, so it has an environment of its own, `make parity`; the folders that our models
are read from are then that version's.

1. In its `SeqBnConfig`, the design of Pfeiffer et al., the adapter reads the residual sum, after its norm if there is
   one. Ours stands in the same place and reads what Houlsby's reads, so it is theirs with `original_ln_before=False`.
"""

from __future__ import annotations

import pytest
import torch
from parity.draws import drawn
from parity.measure import compare, double_precision
from parity.peers import answers, asked, learn, names_of, phrase, same, scale_of, step

adapters = pytest.importorskip(
    "adapters", reason="the library `adapters` is not installed: `make parity` compares with it"
)

from llmlab.losses import IGNORE  # noqa: E402
from llmlab.surgery import detach, named_parameters, plain  # noqa: E402
from llmlab_plugins.adapters import NORM, Adapter, Adapters  # noqa: E402
from llmlab_plugins.mlm import MLM  # noqa: E402
from llmlab_plugins.seq2seq import Seq2Seq  # noqa: E402
from llmlab_plugins.sft import SFT  # noqa: E402

pytestmark = pytest.mark.bench
FAMILIES = ("bert", "gpt2", "llama", "t5")
ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu", "silu": "swish", "tanh": "tanh"}  # ours -> theirs


@pytest.fixture(autouse=True)
def _double():
    torch.set_num_threads(1)
    with double_precision():
        yield


def both(family, seed, folder, placement, act, size, **changes):
    """Our run, their model, and what theirs is asked."""
    theirs, tok, draw = drawn(family, seed)
    model = same(theirs, folder)
    pairs = [(phrase(draw, 2), phrase(draw, 3)) for _ in range(4)]
    technique = Adapters(size=size, placement=placement, activation=act)
    if family == "bert":
        rows, objective = [{"text": x + y} for x, y in pairs * 5], MLM(window=17, rate=0.4)
    else:
        objective = (Seq2Seq if family == "t5" else SFT)(answers=0)
        rows = [{"prompt": x, "response": y} for x, y in pairs]
    run = learn([objective, technique], rows, model, tok, len(pairs))

    adapters.init(theirs)
    kind = {"houlsby": adapters.DoubleSeqBnConfig, "pfeiffer": adapters.SeqBnConfig}[placement]
    given = dict(original_ln_before=False, non_linearity=ACTIVATIONS[act], cross_adapter=placement == "houlsby")
    config = kind(**given | {"reduction_factor": theirs.config.hidden_size / (size + 0.5)} | changes)
    theirs.add_adapter("ours", config=config)
    theirs.train_adapter("ours")
    for name, p in theirs.named_parameters():  # the library trains the head, the paper and we the norms
        norm = ("norm" in name.lower() or ".ln_" in name) and not name.startswith("cls.")
        p.requires_grad_("adapters.ours" in name or norm)
    return run, theirs.eval(), None if family == "bert" else asked(family, pairs, tok)


PLACES = {  # our layer -> where theirs keeps the adapter after it, beside the layer's own path
    "bert": {"attention.out": "attention.output", "mlp.down": "output"},
    "gpt2": {"attention.out": "attention_adapters", "mlp.down": "output_adapters"},
    "llama": {"attention.out": "attention_adapters", "mlp.down": "output_adapters"},
}


def theirs_beside(path, theirs):
    """Their adapter for ours."""
    block = ".".join(path.split(".")[:3])
    kind, number = theirs.config.model_type, block.rsplit(".", 1)[1]
    ours = path.removeprefix(f"{block}.")
    if kind == "t5":  # …layer.0.SelfAttention.o, …layer.1.DenseReluDense.wo: adapters stand in the sublayer
        name = names_of(theirs)[path.replace(number, "#")].replace("#", number)
        holder = theirs.get_submodule(".".join(name.split(".")[:5]))
    else:
        root = {"bert": "bert.encoder.layer", "gpt2": "transformer.h", "llama": "model.layers"}[kind]
        holder = theirs.get_submodule(f"{root}.{number}.{PLACES[kind][ours]}")
    return holder.adapters["ours"]


def share_numbers(run, theirs):
    """Random numbers for all adapters; (ours, theirs) of every parameter that trains."""
    pairs = []
    with torch.no_grad():
        for path, layer in [(plain(p), m) for p, m in run.model.named_modules() if isinstance(m, Adapter)]:
            other = theirs_beside(path, theirs)
            for mine, its in ((layer.adapter_down, other.adapter_down[0]), (layer.adapter_up, other.adapter_up)):
                for leaf in ("weight", "bias"):
                    a, b = getattr(mine, leaf), getattr(its, leaf)
                    assert a.shape == b.shape
                    a.copy_(b.normal_(std=0.4))
                    pairs.append((a, b))
    norms = {n: p for n, p in theirs.named_parameters() if p.requires_grad and "adapter" not in n}
    for name, p in named_parameters(run.model):
        if p.requires_grad and NORM.search(name):
            pairs.append((p, norms.pop(their_name(name, theirs))))
    assert not norms
    return pairs


def their_name(name, theirs):
    layer, leaf = name.rsplit(".", 1)
    number = "".join(c for c in layer if c.isdigit())
    key = layer.replace(number, "#") if number else layer
    return f"{names_of(theirs)[key].replace('#', number)}.{leaf}"


def steps(run, theirs, given):
    """Both sides' logits and losses, after `backward`, and what theirs was asked: with BERT, what ours has hidden."""
    batch, logits, loss = step(run)
    if given is None:
        ids = batch.inputs["tokens"]
        keep = batch.inputs.get("keep", torch.ones_like(ids)).long()
        given = {"input_ids": ids, "attention_mask": keep, "labels": batch["labels"]}
    wanted, their_loss = answers(theirs, given)
    their_loss.backward()
    return batch, (logits, wanted), (loss, their_loss), given


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize(("seed", "act"), list(enumerate(ACTIVATIONS)))
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters(family, seed, act, placement, tmp_path):
    """Each activation with sizes of its own; the norms train beside the adapters, as in the paper."""
    run, theirs, given = both(family, seed, tmp_path, placement, act, size=1 + seed)
    pairs = share_numbers(run, theirs)
    batch, logits, losses, given = steps(run, theirs, given)
    what = f"{placement}, {family}"
    compare(what, "logits", *logits)
    compare(what, "loss", *losses)
    least = scale_of(b.grad for _, b in pairs)
    for i, (a, b) in enumerate(pairs):
        compare(what, f"gradient: {i}", a.grad, b.grad, least)
    assert {id(a) for a, _ in pairs} == {id(p) for p in run.model.parameters() if p.requires_grad}
    assert {id(b) for _, b in pairs} == {id(p) for p in theirs.parameters() if p.requires_grad}

    theirs.set_active_adapters(None)
    base = detach(run.model)
    bare = base.head(base(**batch.inputs).hidden[batch["labels"] != IGNORE])
    compare(what, "logits", bare, answers(theirs, given)[0])


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_their_pfeiffer_reads_the_residual_sum(family, tmp_path):
    """So it is not ours, as the plugin's docstring says."""
    changes = {"original_ln_before": True, "cross_adapter": False}
    run, theirs, given = both(family, 0, tmp_path, "pfeiffer", "relu", 3, **changes)
    share_numbers(run, theirs)
    _, (logits, wanted), *_ = steps(run, theirs, given)
    assert float((logits - wanted).detach().abs().max()) > 1e-3

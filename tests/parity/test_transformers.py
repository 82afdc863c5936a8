"""The kit's models beside transformers' and peft's: the same weights give the same logits, losses, gradients and texts.

Every model is tiny, of odd sizes and random, and takes its way through a folder on the disk, so that reading
such folders is tested too. Double precision, so that only true differences show; transformers' RMSNorm rounds to
float32 in between, so there the bound is wider.
"""

from __future__ import annotations

import json
import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'llmlab[bench]' to compare with it"
)

from parity.measure import double_precision  # noqa: E402
from parity.peers import compare_gradients  # noqa: E402

from llmlab.generate import generate  # noqa: E402
from llmlab.losses import IGNORE  # noqa: E402
from llmlab.model import Transformer  # noqa: E402
from llmlab.pretrained.huggingface import FAMILIES, _find, load_huggingface  # noqa: E402
from llmlab.surgery import adapt, merge, named_parameters  # noqa: E402
from llmlab.tokenizer import Tokenizer  # noqa: E402

pytestmark = pytest.mark.bench
V = 53
QUIET = dict(bos_token_id=0, eos_token_id=None, pad_token_id=0)


def gpt2(**changes):
    sizes = dict(vocab_size=V, n_positions=19, n_embd=24, n_layer=3, n_head=3, n_inner=40)
    no_dropout = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**sizes, **no_dropout, **QUIET, **changes}))


SMALL = dict(vocab_size=V, hidden_size=24, intermediate_size=34, num_hidden_layers=3, max_position_embeddings=19)


def llama(**changes):
    heads = dict(num_attention_heads=6, num_key_value_heads=2, rms_norm_eps=1e-3)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SMALL, **heads, **QUIET, **changes}))


def qwen2(**changes):
    heads = dict(num_attention_heads=6, num_key_value_heads=3)
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**{**SMALL, **heads, **QUIET, **changes}))


def bert(kind="BertForMaskedLM", **changes):
    sizes = dict(num_attention_heads=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, type_vocab_size=3)
    config = transformers.BertConfig(**{**SMALL, **sizes, "pad_token_id": 0, **changes})
    return getattr(transformers, kind)(config)


def t5(**changes):
    sizes = dict(vocab_size=V, d_model=24, d_kv=8, d_ff=40, num_layers=3, num_heads=3, n_positions=19)
    buckets = dict(relative_attention_num_buckets=8, relative_attention_max_distance=11, decoder_start_token_id=0)
    config = transformers.T5Config(**{**sizes, **buckets, "dropout_rate": 0.0, "eos_token_id": None, **changes})
    return transformers.T5ForConditionalGeneration(config)


CASES = {
    "gpt2": gpt2,
    "gpt2, untied and exact gelu": lambda: gpt2(tie_word_embeddings=False, activation_function="gelu", n_inner=None),
    "llama": llama,
    "llama, tied and another base": lambda: llama(
        tie_word_embeddings=True, rope_theta=777.0, rope_parameters={"rope_type": "default", "rope_theta": 777.0}
    ),
    "llama, one key head": lambda: llama(num_key_value_heads=1),
    "qwen2": qwen2,
    "qwen2, tied": lambda: qwen2(tie_word_embeddings=True),
    "bert": bert,
    "bert, with pooler": lambda: bert("BertForPreTraining"),
}
cases = pytest.mark.parametrize("make", CASES.values(), ids=CASES)
decoders = pytest.mark.parametrize("make", [m for n, m in CASES.items() if "bert" not in n], ids=lambda m: "")


def close(theirs):
    """How close the two must be."""
    bound = 1e-10 if theirs.config.model_type in ("gpt2", "bert") else 2e-5
    return dict(rtol=bound, atol=bound)


def pair(make, folder):
    """(theirs, ours) with the same random weights, in double precision; large enough that every part matters."""
    torch.manual_seed(0)
    theirs = make().eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (p if p.dim() == 1 else 0))
    theirs.save_pretrained(folder)
    return theirs.double(), load_huggingface(folder).double()


def batch(seed=1):
    tokens = torch.randint(1, V, (4, 17), generator=torch.Generator().manual_seed(seed))
    return tokens, torch.arange(17) < torch.tensor([17, 5, 11, 16])[:, None]


@cases
def test_logits_loss_and_gradients(make, tmp_path):
    theirs, ours = pair(make, tmp_path)
    tokens, keep = batch()
    extra, other = {}, {}
    if theirs.config.model_type == "bert":
        types = torch.randint(0, 3, tokens.shape)
        extra, other = {"types": types}, {"token_type_ids": types}
    logits = theirs(tokens, attention_mask=keep.long(), **other)
    logits = logits.prediction_logits if "prediction_logits" in logits else logits.logits
    output = ours(tokens, keep, **extra)
    found = ours.head(output.hidden)
    torch.testing.assert_close(found[keep], logits[keep], **close(theirs))
    assert not ours.training and ours.logits(output).dtype == torch.float32

    labels = tokens.roll(-1, 1).masked_fill(~keep, IGNORE)
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
    loss = ours.loss(output, labels)
    torch.testing.assert_close(loss, wanted, **close(theirs))
    wanted.backward()
    loss.backward()
    gradients = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    kind, compared = theirs.config.model_type, 0
    for name, p in named_parameters(ours):
        if p.grad is not None:
            other = _find(name, FAMILIES[kind][1], gradients, transposed=kind == "gpt2")
            torch.testing.assert_close(p.grad, other, **close(theirs))
            compared += p.numel()
    assert compared == sum(g.numel() for g in gradients.values())


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}], ids=str)
def test_t5(changes, tmp_path):
    """Both versions: logits, loss, every gradient, and a greedy answer to sources of unequal length."""
    with double_precision():  # theirs rounds to float32 in between, which hides differences
        theirs, ours = pair(lambda: t5(**changes), tmp_path)
        bound = dict(rtol=1e-10, atol=1e-10)
        source, keep = batch()
        tokens, _ = batch(2)
        answer = theirs(input_ids=source, attention_mask=keep.long(), decoder_input_ids=tokens)
        output = ours(tokens, source=source, source_keep=keep)
        torch.testing.assert_close(ours.head(output.hidden), answer.logits, **bound)
        wanted = torch.nn.functional.cross_entropy(answer.logits.flatten(0, 1), tokens.roll(-1, 1).flatten())
        loss = ours.loss(output, tokens.roll(-1, 1))
        wanted.backward()
        loss.backward()
        compare_gradients("t5", ours, theirs)
        said = theirs.generate(source, attention_mask=keep.long(), max_new_tokens=9, do_sample=False)[:, 1:]
        rows = [s[k].tolist() for s, k in zip(source, keep, strict=True)]
        assert generate(ours, rows, max_new_tokens=9, temperature=0, bos=0).rows() == said.tolist()


@pytest.mark.parametrize("equal", [True, False])
def test_t5_whose_head_is_its_own(equal, tmp_path):
    """T5 1.1 and FLAN-T5 have a matrix `lm_head` in their files; one that came with the embedding's numbers is it."""
    torch.manual_seed(0)
    theirs = t5(tie_word_embeddings=False, feed_forward_proj="gated-gelu").eval()
    head = theirs.shared.weight if equal else torch.randn(V, 24)
    theirs.lm_head.weight = torch.nn.Parameter(head.clone())
    theirs.save_pretrained(tmp_path)
    ours, (source, keep), (tokens, _) = load_huggingface(tmp_path), batch(), batch(2)
    wanted = theirs(input_ids=source, attention_mask=keep.long(), decoder_input_ids=tokens).logits
    torch.testing.assert_close(ours.logits(ours(tokens, source=source, source_keep=keep)), wanted, rtol=1e-4, atol=1e-4)
    assert not ours.config.tied and torch.equal(ours.head.output.weight, head)
    assert torch.equal(ours.encoder.embeddings.token.weight, ours.decoder.embeddings.token.weight)


@decoders
def test_the_loss_as_they_compute_it(make, tmp_path):
    theirs, ours = pair(make, tmp_path)
    tokens, _ = batch()
    wanted = theirs(tokens, labels=tokens).loss
    assert ours.loss(ours(tokens[:, :-1]), tokens[:, 1:]).item() == pytest.approx(wanted.item(), abs=1e-6)


@decoders
def test_greedy_texts(make, tmp_path):
    theirs, ours = pair(make, tmp_path)
    rows = [[3, 9, 4], [7, 5, 6, 8, 2, 1], [11]]
    ids, seen = (torch.zeros(3, 6, dtype=torch.long) for _ in range(2))
    for i, row in enumerate(rows):
        ids[i, 6 - len(row) :], seen[i, 6 - len(row) :] = torch.tensor(row), 1
    wanted = theirs.generate(ids, attention_mask=seen, max_new_tokens=9, do_sample=False)[:, 6:]
    assert generate(ours, rows, max_new_tokens=9, temperature=0).rows() == wanted.tolist()


def test_bert_s_pooler(tmp_path):
    theirs, ours = pair(lambda: bert("BertForPreTraining"), tmp_path)
    tokens, keep = batch()
    pooled = theirs.bert(tokens, attention_mask=keep.long()).pooler_output
    torch.testing.assert_close(ours.pooled(ours(tokens, keep)), pooled, **close(theirs))


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_is_peft_s(rslora, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'llmlab[bench]' to compare with it")
    from llmlab_plugins.lora import LoRA

    theirs, ours = pair(llama, tmp_path)
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "v_proj"], use_rslora=rslora)
    theirs = peft.get_peft_model(theirs, config).double()
    adapt(ours, "lora", {}, True, 0, lambda: LoRA(rank=3, alpha=7, rslora=rslora).adapt_model(ours))
    mine = {n: p for n, p in ours.double().named_parameters() if "lora" in n}
    places = {"query": "q_proj", "kv.value": "v_proj"}
    pairs = []
    with torch.no_grad():
        for i in range(3):
            for ours_name, theirs_name in places.items():
                for letter in "ab":
                    a = mine[f"decoder.blocks.{i}.attention.{ours_name}.lora_{letter}"]
                    layer = theirs.base_model.model.model.layers[i].self_attn.get_submodule(theirs_name)
                    b = layer.get_submodule(f"lora_{letter.upper()}")["default"].weight
                    pairs.append((a, b))
                    a.copy_(b.normal_(std=0.3))
    tokens, keep = batch()
    wanted = theirs(tokens, attention_mask=keep.long()).logits
    found = ours.head(ours(tokens, keep).hidden)
    torch.testing.assert_close(found[keep], wanted[keep], **close(theirs))
    ours_first = torch.autograd.grad(found[keep].square().mean(), [a for a, _ in pairs])
    theirs_next = torch.autograd.grad(wanted[keep].square().mean(), [b for _, b in pairs])
    for a, b in zip(ours_first, theirs_next, strict=True):
        torch.testing.assert_close(a, b, **close(theirs))
    merged = merge(ours)
    torch.testing.assert_close(merged.head(merged(tokens, keep).hidden)[keep], wanted[keep], **close(theirs))
    assert len(mine) == len(pairs) == sum(p.requires_grad for p in theirs.parameters())


# -- folders -----------------------------------------------------------------------------------------------------


def test_sharded_weights_and_weights_without_a_head(tmp_path):
    _, whole = pair(gpt2, tmp_path / "whole")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    theirs.transformer.save_pretrained(tmp_path / "bare")  # as the published GPT-2 is stored
    for name in ("parts", "bare"):
        again = load_huggingface(tmp_path / name).double()
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_tokenizers(tmp_path):
    """Special tokens go by their own names, the end mark stands in for those missing, and a copy keeps all that."""
    inner = Tokenizer.train(["the cat sat on the mat"] * 9, 320).to_json()
    as_gpt2 = inner.replace("<eos>", "<|endoftext|>")
    for i, name in enumerate(("<pad>", "<bos>", "<mask>", "<sep>", "<unk>")):
        as_gpt2 = as_gpt2.replace(name, f"odd{i}")
    _, model = pair(gpt2, tmp_path)
    assert model.tokenizer is None
    (tmp_path / "tokenizer.json").write_text(as_gpt2)
    tok = load_huggingface(tmp_path).tokenizer
    assert {tok.pad, tok.bos, tok.eos, tok.mask, tok.sep, tok.unk} == {2}
    assert tok.decode([tok.bos, *tok.encode("the cat<|endoftext|>"), tok.eos]) == "the cat<|endoftext|>"
    again = Tokenizer.from_json(tok.to_json())
    assert again == tok and again.eos == 2
    (tmp_path / "tokenizer.json").write_text(inner.replace("<bos>", "[CLS]"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<sep>"}, "bos_token": None}))
    tok = load_huggingface(tmp_path).tokenizer
    assert (tok.pad, tok.bos, tok.eos, tok.mask, tok.sep, tok.unk) == (0, 1, 4, 3, 4, 5)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (gpt2, {"model_type": "gpt_neo"}, "holds a 'gpt_neo' model: supported are gpt2, llama, qwen2, bert, t5"),
        (gpt2, {"activation_function": "tanh"}, "activation 'tanh' is not supported"),
        (gpt2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True is not supported"),
        (llama, {"attention_bias": True}, "attention_bias = True is not supported"),
        (llama, {"head_dim": 8}, "head_dim = 8 is not supported, only 4"),
        (llama, {"rope_parameters": {"rope_type": "llama3"}}, "rope_type = 'llama3' is not supported"),
        (llama, {"rope_scaling": {"type": "linear"}}, "type = 'linear' is not supported"),
        (t5, {"num_decoder_layers": 2}, "num_decoder_layers = 2 is not supported, only 3"),
        (t5, {"d_kv": 9}, "3 heads of 9 do not make up the width 24"),
        (qwen2, {"use_sliding_window": True}, "use_sliding_window = True is not supported"),
        (
            bert,
            {"position_embedding_type": "relative_key"},
            "position_embedding_type = 'relative_key' is not supported",
        ),
        (gpt2, {"n_positions": 20}, r"has shape \(19, 24\) for decoder.embeddings.position.weight, shape \(20, 24\)"),
    ],
)
def test_what_is_refused(make, changes, message, tmp_path):
    make().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=message) as caught:
        load_huggingface(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*config\.json"):
        load_huggingface(tmp_path)
    gpt2().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load_huggingface(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="only safetensors are read"):
        load_huggingface(tmp_path)
    bert("BertModel").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has nothing for head\.transform\.0.*is it a language model\?"):
        load_huggingface(tmp_path)


def test_a_model_from_a_folder_is_one_of_ours(tmp_path):
    _, model = pair(qwen2, tmp_path)
    assert type(model) is Transformer and all(p.requires_grad for p in model.parameters())

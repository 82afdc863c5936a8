"""Text to ids and back: byte-level BPE (GPT-2) and WordPiece (BERT), trained and run by the `tokenizers` library.

1. BOS also plays BERT's [CLS].
2. Special tokens are only ever put in by code: "<eos>" typed in a text is text.
3. A tokenizer from elsewhere may name its special tokens otherwise, and have fewer: its end mark then plays several.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

SPECIALS = ("<pad>", "<bos>", "<eos>", "<mask>", "<sep>", "<unk>")
ROLES = tuple(name.strip("<>") for name in SPECIALS)
SENTINELS = 32  # T5's markers of a hidden span, counted down from the top of the vocabulary
BLANK = "___"  # how a text says that something is missing
Kind = Literal["bpe", "wordpiece"]


class Tokenizer:
    """A trained tokenizer with the six special ids: `pad`, `bos`, `eos`, `mask`, `sep`, `unk`."""

    def __init__(self, inner: tokenizers.Tokenizer, names: Sequence[str] = SPECIALS) -> None:
        self.inner, self.names = inner, tuple(names)
        self.inner.encode_special_tokens = True  # a special token's name in a text is plain text
        self.pad, self.bos, self.eos, self.mask, self.sep, self.unk = map(self._id, names)

    def _id(self, special: str) -> int:
        found = self.inner.token_to_id(special)
        if found is None:
            raise ValueError(f"the tokenizer lacks the special token {special}")
        return found

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 2048, kind: Kind = "bpe") -> Tokenizer:
        """Learn a vocabulary of at most `vocab_size` entries, special tokens and sentinels included.

        ValueError if that leaves no room beside them and the alphabet.
        """
        smallest = len(SPECIALS) + SENTINELS + (256 if kind == "bpe" else 1)
        if vocab_size < smallest:
            raise ValueError(f"a {kind} vocabulary of {vocab_size} is too small: at least {smallest}")
        inner = (
            _train_bpe(texts, vocab_size - SENTINELS)
            if kind == "bpe"
            else _train_wordpiece(texts, vocab_size - SENTINELS)
        )
        smallest = inner.get_vocab_size() + SENTINELS
        if vocab_size < smallest:
            raise ValueError(f"a {kind} vocabulary of {vocab_size} is too small for these texts: at least {smallest}")
        inner.add_special_tokens([f"<extra_{i}>" for i in reversed(range(SENTINELS))])
        return cls(inner)

    @property
    def kind(self) -> Kind:
        return "wordpiece" if isinstance(self.inner.model, models.WordPiece) else "bpe"

    @property
    def vocab_size(self) -> int:
        return self.inner.get_vocab_size()

    @cached_property
    def sentinels(self) -> list[int]:
        """Ids of <extra_0>, <extra_1>, … (T5: <extra_id_0>, …): the first is the highest id. Empty if it has none."""
        names = [f"<extra{middle}{i}>" for middle in ("_", "_id_") for i in range(100)]
        return [i for i in map(self.inner.token_to_id, names) if i is not None]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no text: never masked, never drawn as a random token."""
        return frozenset([self.pad, self.bos, self.eos, self.mask, self.sep, self.unk, *self.sentinels])

    @cached_property
    def special(self) -> Tensor:
        """(V,) bool: which ids stand for no text."""
        return torch.tensor([i in self.special_ids for i in range(self.vocab_size)])

    @cached_property
    def continues(self) -> Tensor:
        """(V,) bool: which ids go on with a word that an earlier piece began.

        Exact for WordPiece, which marks them; for BPE, what starts with a letter or digit and no space.
        """
        pieces = [self.inner.id_to_token(i) or "" for i in range(self.vocab_size)]
        if self.kind == "wordpiece":
            return torch.tensor([p.startswith("##") for p in pieces])
        return torch.tensor([p[:1].isalnum() and p[0] != "Ġ" for p in pieces]) & ~self.special

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""
        return self.inner.encode(text, add_special_tokens=False).ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts at once, on all cores."""
        return [e.ids for e in self.inner.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens left out."""
        return self.inner.decode([int(i) for i in ids], skip_special_tokens=True)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Each id as the text it stands for, to show how a text was cut."""
        return [self.inner.decode([int(i)], skip_special_tokens=False) for i in ids]

    def to_json(self) -> str:
        """The `tokenizers` library's format; with a field "specials" if these have other names than ours."""
        text = self.inner.to_str()
        return text if self.names == SPECIALS else json.dumps(json.loads(text) | {"specials": self.names})

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        described = json.loads(text)
        names = described.pop("specials", SPECIALS)
        return cls(tokenizers.Tokenizer.from_str(json.dumps(described)), names)

    @classmethod
    def foreign(cls, text: str, spellings: Mapping[str, Sequence[str]]) -> Tokenizer:
        """Another library's tokenizer.json. `spellings` lists, for each of pad, bos, …, names to look for, best first.

        The end mark plays each role whose names are all missing; ValueError if there is no end mark.
        """
        inner = tokenizers.Tokenizer.from_str(text)
        found = {
            role: next((n for n in spellings[role] if n and inner.token_to_id(n) is not None), "") for role in ROLES
        }
        if not found["eos"]:
            raise ValueError(f"the tokenizer has no end mark: none of {', '.join(filter(None, spellings['eos']))}")
        return cls(inner, [found[role] or found["eos"] for role in ROLES])

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer.json; ValueError if it is not one."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except Exception as error:
            raise ValueError(f"{path} is no tokenizer: {error}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())


def _train_bpe(texts: Iterable[str], size: int) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return inner


def _train_wordpiece(texts: Iterable[str], size: int) -> tokenizers.Tokenizer:
    """As BERT's, lower case.

    The trainer numbers the letters inside words ("##a") in an order that differs between processes, and ties
    between merges are broken by number. So these pieces are named beforehand, which takes a second tokenizer.
    """
    texts = list(texts)
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    inside = [f"##{letter}" for letter in sorted({letter for word in words for letter in word[1:]})]
    trained = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
    trained.normalizer, trained.pre_tokenizer = normalizer, splitter
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=[*SPECIALS, *inside], show_progress=False)
    trained.train_from_iterator(texts, trainer)
    inner = tokenizers.Tokenizer(models.WordPiece(vocab=trained.get_vocab(), unk_token="<unk>"))
    inner.normalizer, inner.pre_tokenizer, inner.decoder = normalizer, splitter, decoders.WordPiece()
    inner.add_special_tokens(list(SPECIALS))
    return inner

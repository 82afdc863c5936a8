"""llmlab: how large language models are trained, one technique a plugin.

>>> from llmlab import Run, corpus, load
>>> run = Run(["sft", {"lora": {"rank": 4}}], data=corpus("facts"), model=load("tiny-gpt")).fit()
>>> print(run.metrics)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# imported on first use: `import llmlab` costs nothing, and a run loads only what it needs
_HOMES = {
    "Run": "run",
    "Training": "training",
    "Batch": "batch",
    "Corpus": "data",
    "corpus": "data",
    "corpora": "data",
    "Lab": "lab",
    "ModelConfig": "model",
    "Tokenizer": "tokenizer",
    "Transformer": "model",
    "detach": "surgery",
    "hookimpl": "technique",
    "knob": "technique",
    "load": "pretrained:load_model",
    "load_patch": "patch",
    "merge": "surgery",
    "record_attention": "model",
    "save_patch": "patch",
    "techniques": "catalogue",
}
__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from .batch import Batch as Batch
    from .catalogue import techniques as techniques
    from .data import Corpus as Corpus
    from .data import corpora as corpora
    from .data import corpus as corpus
    from .lab import Lab as Lab
    from .model import ModelConfig as ModelConfig
    from .model import Transformer as Transformer
    from .model import record_attention as record_attention
    from .patch import load_patch as load_patch
    from .patch import save_patch as save_patch
    from .pretrained import load_model as load  # noqa: F401
    from .run import Run as Run
    from .surgery import detach as detach
    from .surgery import merge as merge
    from .technique import hookimpl as hookimpl
    from .technique import knob as knob
    from .tokenizer import Tokenizer as Tokenizer
    from .training import Training as Training


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"llmlab has no {name!r}: it has {', '.join(__all__)}")
    home, _, original = _HOMES[name].partition(":")
    value = getattr(import_module(f"llmlab.{home}"), original or name)
    globals()[name] = value
    return value

"""Lessons show code from its file: as it stands there, found by name or by object, constant from run to run."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import pytest

import llmlab.losses
from llmlab.lab import show_source
from llmlab.lab.source import source
from llmlab.losses import linear_cross_entropy
from llmlab_plugins.lora import LoRA, LoRALinear


def body(text: str) -> str:
    first, _, rest = text.partition("\n")
    assert first.startswith("# ")
    return rest


@pytest.mark.parametrize(
    ("given", "file", "thing"),
    [
        (("lora", "LoRALinear.forward"), "llmlab_plugins/lora.py", LoRALinear.forward),
        (("lora",), "llmlab_plugins/lora.py", LoRA),
        ((LoRA.adapt_model,), "llmlab_plugins/lora.py", LoRA.adapt_model),
        ((LoRA(),), None, None),
        (("llmlab_plugins.lora", "LoRA"), "llmlab_plugins/lora.py", LoRA),
        (("llmlab.losses", "linear_cross_entropy"), "llmlab/losses.py", linear_cross_entropy),
        ((llmlab.losses, "labelled"), "llmlab/losses.py", llmlab.losses.labelled),
        ((textwrap, "dedent"), None, textwrap.dedent),
    ],
)
def test_shows_what_stands_in_the_file(given: tuple[Any, ...], file: str | None, thing: Any) -> None:
    if thing is None:
        with pytest.raises(ValueError, match="give a class, function or method"):
            source(*given)
        return
    shown = source(*given)
    assert body(shown) == textwrap.dedent(inspect.getsource(thing)).rstrip()
    assert file is None or shown.splitlines()[0] == f"# {file}"


def test_decorators_and_constants_are_part_of_it() -> None:
    assert body(source("lora")).startswith("@technique(")
    assert body(source("llmlab.losses", "IGNORE")).startswith("IGNORE = -100")
    assert body(source("lora", "LoRA.rank")).startswith("rank: int = knob(")


def test_keeps_the_lines_asked_for() -> None:
    part = body(source("llmlab.losses", "_LinearCrossEntropy.forward", start="d = logp.exp_()", end="d.div_"))
    assert [line[:6] for line in part.splitlines()] == ["d = lo", "d.scat", "d = d."]
    assert body(source("llmlab.losses", "labelled", start="return hidden[where]")).count("\n") == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("lora", "LoRALinear.forwad"), "lora.py defines no 'LoRALinear.forwad': did you mean LoRALinear.forward"),
        (("lora", "forward"), "did you mean LoRALinear.forward"),
        (("lorra", "LoRA"), "no technique or module is called 'lorra': did you mean lora"),
        (("llmlab.nowhere.at_all", "x"), "no technique or module is called 'llmlab.nowhere.at_all'"),
        (("", "x"), "no technique or module is called ''"),
        (("llmlab.losses",), "say which function or class of llmlab.losses"),
        (("math", "sin"), "no technique or module is called 'math'"),
        ((len,), "len stands in no file"),
        ((3,), "give a class, function or method, or a name in quotation marks, not int"),
    ],
)
def test_what_is_not_there_gets_one_line(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match="^" + ".*") as caught:
        source(*given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lines_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="no line of labelled contains 'xyz'"):
        source("llmlab.losses", "labelled", start="xyz")
    with pytest.raises(ValueError, match="no line of labelled contains 'def' after 'return'"):
        source("llmlab.losses", "labelled", start="return", end="def")


def test_displays_markdown_for_the_page_and_plain_text_for_other_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    assert show_source("lora", "LoRALinear.forward") is None
    text = source("lora", "LoRALinear.forward")
    assert shown == [{"text/markdown": f"```python\n{text}\n```", "text/plain": text}]

"""Where techniques come from, and that a broken one breaks nothing else."""

from __future__ import annotations

import inspect
import os
import sys
import textwrap
import time
from importlib import metadata
from pathlib import Path

import pytest

from llmlab.catalogue import find, make, techniques
from llmlab.technique import needs_of

GOOD = """
    from llmlab.technique import hookimpl, knob, technique

    @technique(kind="adaptation")
    class Good:
        '''Train nothing but norms.'''
        share: float = knob(0.5, "A share.", low=0.0, high=1.0)

        @hookimpl
        def trains(self, name):
            return "norm" in name
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMLAB_PLUGINS", str(tmp_path))
    monkeypatch.delenv("LLMLAB_STRICT", raising=False)
    techniques.cache_clear()
    yield tmp_path
    techniques.cache_clear()


def put(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(text))


def test_shipped_techniques_are_named_after_their_files():
    shipped = [e for e in techniques().values() if e.source == "shipped"]
    assert {"clm", "sft", "lora"} <= {e.name for e in shipped}
    for entry in shipped:
        assert entry.cls is not None, entry.error
        assert entry.cls.__module__ == f"llmlab_plugins.{entry.name}" and entry.summary


def test_a_file_in_a_named_folder_is_picked_up(folder):
    put(folder, "good", GOOD)
    entry = techniques()["good"]
    assert entry.source == str(folder / "good.py") and entry.needs.kind == "adaptation"
    assert entry.summary == "Train nothing but norms."
    assert needs_of(make({"good": {"share": 0.25}})).name == "good" and make("good").share == 0.5


def test_a_file_may_postpone_its_annotations_and_share_its_name_with_one_in_another_folder(folder, monkeypatch):
    """Dataclasses look up the module of annotations that are text."""
    other = folder / "more"
    other.mkdir()
    put(folder, "good", "from __future__ import annotations\n" + textwrap.dedent(GOOD))
    put(other, "good", "from __future__ import annotations\n" + textwrap.dedent(GOOD).replace("Good", "Better"))
    monkeypatch.setenv("LLMLAB_PLUGINS", os.pathsep.join(map(str, (folder, other))))
    found = techniques()
    assert found["good"].cls.__module__ != found["better"].cls.__module__
    assert inspect.getsourcefile(found["better"].cls) == str(other / "good.py")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("x = 1", "defines no class marked with @technique"),
        ("from llmlab.technique import technique\n@technique(api=99)\nclass Late: pass", "upgrade llmlab"),
    ],
)
def test_a_broken_one_is_listed_with_its_error_and_the_rest_work(text, reason, folder):
    put(folder, "bad", text)
    put(folder, "good", GOOD)
    with pytest.warns(UserWarning, match="left out bad from"):
        found = techniques()
    assert reason in found["bad"].error and "\n" not in found["bad"].error
    assert found["good"].cls and found["clm"].cls
    with pytest.raises(ValueError, match=r"the technique bad from .* could not be loaded"):
        find("bad")


def test_a_slow_one_is_left_out_and_holds_nobody_up(folder, monkeypatch):
    monkeypatch.setattr("llmlab.catalogue.PATIENCE", 0.3)
    put(folder, "aslow", "import time; time.sleep(5)")
    put(folder, "good", GOOD)
    began = time.monotonic()
    with pytest.warns(UserWarning, match="left out aslow from .* over 0.3 seconds"):
        found = techniques()
    assert time.monotonic() - began < 4
    assert found["aslow"].error and found["good"].cls


def test_one_that_gives_up_waiting_itself_says_its_own_words(folder):
    put(folder, "waits", "raise TimeoutError('no answer from the printer')")
    with pytest.warns(UserWarning, match="no answer from the printer"):
        assert "no answer" in techniques()["waits"].error


def test_strict_raises(folder, monkeypatch):
    monkeypatch.setenv("LLMLAB_STRICT", "1")
    put(folder, "bad", "1 / 0")
    with pytest.raises(ZeroDivisionError):
        techniques()


def test_a_name_that_is_taken_is_said_and_the_first_stays(folder):
    put(folder, "other", GOOD.replace("class Good", "class LoRA"))
    with pytest.warns(UserWarning, match="the name lora is taken by shipped"):
        found = techniques()
    assert found["lora"].source == "shipped"
    assert any("its name is taken by shipped" in (e.error or "") for e in found.values())


def test_a_folder_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setenv("LLMLAB_PLUGINS", "/no/such/folder")
    techniques.cache_clear()
    with pytest.warns(UserWarning, match="names /no/such/folder, which is no folder"):
        assert "clm" in techniques()
    techniques.cache_clear()


def test_an_installed_package_brings_techniques_by_entry_point(folder, monkeypatch):
    """A real distribution folder on the path, as pip would leave it."""
    site = folder / "site"
    info = site / "demo_plugins-2.5.dist-info"
    info.mkdir(parents=True)
    put(site, "demo_plugin_module", GOOD.replace("Good", "Demo"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo-plugins\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[llmlab.plugins]\ndemo = demo_plugin_module:Demo\n")
    monkeypatch.syspath_prepend(str(site))
    assert "demo" in [p.name for p in metadata.entry_points(group="llmlab.plugins")]
    try:
        assert techniques()["demo"].source == "demo-plugins 2.5"
    finally:
        sys.modules.pop("demo_plugin_module", None)


def test_only_named_places_are_imported(folder):
    put(folder, "_private", "raise RuntimeError('a file with an underscore is a helper')")
    put(folder, "test_good", "raise RuntimeError('a test is no technique')")
    (folder / "notes.txt").write_text("no Python")
    assert not [e for e in techniques().values() if e.error]


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match="no technique is called 'lroa': did you mean lora"):
        find("lroa")
    with pytest.raises(ValueError, match=r"a technique is written \{name: knobs\}"):
        make({"lora": {}, "sft": {}})

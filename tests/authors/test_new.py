"""`llmlab new` writes techniques that keep the rules and lessons that run, and never over anything."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import nbformat
import pytest

from course import rules
from llmlab.catalogue import from_file, techniques
from llmlab.cli import main
from llmlab.lab.checking import exercises, judge
from llmlab.scaffold import KINDS, create, names_of
from llmlab.testing import CHECKS, check_technique

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Call `llmlab` in an empty folder: (status, what it printed, what it complained)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return ended.value.code, *capsys.readouterr()

    return call


@every_kind
def test_the_files_of_a_folder(kind, tmp_path):
    made = create("WeightNoise", kind, tmp_path)
    assert [path.name for path in made] == [
        "weightnoise.py",
        "weightnoise.ipynb",
        "_weightnoise_exercises.py",
        "test_weightnoise.py",
    ]
    for path in made:
        text = path.read_text(encoding="utf-8")
        assert "emplate" not in text and "{{" not in text, path
    [cls] = from_file(made[0])
    assert cls.__name__ == "WeightNoise" and cls.llmlab.name == "weightnoise" and cls.llmlab.kind == kind
    check_technique(cls, only=["docstring", "knobs", "hooks", "imports"])


@pytest.mark.slow
@every_kind
def test_it_keeps_the_rules(kind, tmp_path):
    [cls] = from_file(create("Fresh", kind, tmp_path)[0])
    check_technique(cls)


@pytest.mark.slow
@every_kind
def test_its_lesson_runs_and_keeps_the_rules_of_lessons(kind, tmp_path):
    lesson = create("Fresh", kind, tmp_path)[1]
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", str(lesson)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LLMLAB_PLUGINS": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    notebook = nbformat.read(lesson, as_version=4)
    found = [*rules.goals(notebook), *rules.sections(notebook), *rules.numbers_are_asserted(notebook)]
    assert not [*found, *rules.compared_outputs_hold_no_times(notebook)]
    told = "".join(rules.printed(cell) for cell in rules.code(notebook))
    assert [f"exercise fresh.{i}: no answer yet" in told for i in (1, 2, 3)] == [True] * 3


@every_kind
def test_its_exercises_know_right_from_wrong(kind, monkeypatch):
    exercises()
    monkeypatch.setattr("llmlab.lab.checking._known", {})  # each kind has exercises of these names
    sys.modules.pop(f"llmlab.templates.exercises.{kind}", None)
    importlib.import_module(f"llmlab.templates.exercises.{kind}")
    answers = importlib.import_module(f"llmlab.templates.answers.{kind}").ANSWERS
    assert list(answers) == ["template.1", "template.2", "template.3"]
    for name, (right, wrong) in answers.items():
        assert judge(name, right).right, judge(name, right).line
        assert len(wrong) >= 3
        for answer in wrong:
            assert judge(name, answer).right is False, (name, answer)


def test_in_a_clone_each_file_goes_to_its_place(tmp_path, monkeypatch):
    for folder in ("llmlab", "plugins/llmlab_plugins", "course", "tests"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "llmlab/hookspecs.py").touch()
    (tmp_path / "course/46_other.ipynb").touch()
    monkeypatch.chdir(tmp_path / "tests")
    assert [str(path.relative_to(tmp_path)).replace(os.sep, "/") for path in create("gain", "adaptation")] == [
        "plugins/llmlab_plugins/gain.py",
        "course/47_gain.ipynb",
        "llmlab/lab/exercises/gain.py",
        "tests/course/answers/gain.py",
        "tests/plugins/test_gain.py",
    ]
    lesson = (tmp_path / "course/47_gain.ipynb").read_text(encoding="utf-8")
    assert "from llmlab_plugins.gain import Gain" in lesson and "_gain_exercises" not in lesson


def test_the_command_says_what_comes_next_and_is_never_in_the_way(cli, tmp_path):
    status, out, err = cli("new", "gain")
    assert status == 0 and not err and out.startswith("wrote gain.py\n")
    assert "`llmlab check gain.py`" in out and f"LLMLAB_PLUGINS={tmp_path}" in out
    (tmp_path / "gain.py").write_text("mine")
    (tmp_path / "gain.ipynb").unlink()
    status, out, err = cli("new", "gain")
    assert status == 1 and "gain.py is there already" in err and err.count("\n") == 1
    assert (tmp_path / "gain.py").read_text() == "mine" and not (tmp_path / "gain.ipynb").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lora", "the name lora is taken by shipped"),
        ("LoRA", "the name lora is taken by shipped"),
        ("template", "is taken by the template"),
        ("3x", "'3x' is no name for a technique"),
        ("my-own", "'my-own' is no name"),
        ("a/b", "'a/b' is no name"),
        ("lambda", "'lambda' is no name"),
        ("", "'' is no name"),
    ],
)
def test_names_that_cannot_be(name, said):
    with pytest.raises(ValueError, match=said):
        names_of(name)


def test_a_kind_there_is_not(cli, tmp_path):
    status, _, err = cli("new", "gain", "--kind", "reward")
    assert status == 1 and "an objective, an adaptation or an extra, not 'reward'" in err
    assert not list(tmp_path.iterdir())


# -- llmlab check --------------------------------------------------------------------------------------------------


def test_check_tells_each_rule_and_the_way_out_of_a_failure(cli, tmp_path):
    create("Fresh", "adaptation", tmp_path)
    file = tmp_path / "fresh.py"
    only = [part for name in ("docstring", "knobs", "imports") for part in ("--only", name)]
    status, out, _ = cli("check", str(file), *only)
    assert status == 0 and out.startswith("fresh (adaptation)\n  ok     docstring") and "3 passed" in out
    file.write_text(file.read_text().replace('"Linear layers to adapt, by the end of their path."', '"?"'))
    status, out, _ = cli("check", str(file), *only)
    assert status == 1 and "FAILS  knobs" in out and "the help of targets is no sentence: '?'" in out
    assert f"way out: {CHECKS['knobs'].way_out}" in out and "2 passed, 1 failed" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "lroa"], "no technique is called 'lroa': did you mean lora?"),
        (["check", "nothing.py"], "there is no file nothing.py"),
        (["check", "lora", "--only", "sedes"], "no check is called 'sedes'"),
        (["check", "lora", "--set", "lora.rank=0"], "LoRA.rank = 0: must be 1 to 256"),
        (["check", "lora", "--set", "sft.rank=1"], "sft is not among lora"),
    ],
)
def test_check_says_what_is_wrong_with_the_command(cli, arguments, said):
    status, _, err = cli(*arguments)
    assert status == 1 and said in err and err.count("\n") == 1


def test_check_says_why_a_file_cannot_be_read(cli, tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0")
    (tmp_path / "none.py").write_text("x = 1")
    for file, said in (("bad.py", "ZeroDivisionError"), ("none.py", "defines no class marked with @technique")):
        status, _, err = cli("check", file)
        assert status == 1 and f"{file} could not be loaded" in err and said in err and err.count("\n") == 1


def test_check_takes_knobs(cli):
    status, out, _ = cli("check", "lora", "--only", "docstring", "--set", "lora.rank=4")
    assert status == 0 and "1 passed" in out


def test_a_dropped_in_technique_is_checked_by_name(cli, tmp_path, monkeypatch):
    create("Fresh", "extra", tmp_path)
    monkeypatch.setenv("LLMLAB_PLUGINS", str(tmp_path))
    techniques.cache_clear()
    status, out, err = cli("check", "fresh", "--only", "hooks")
    assert status == 0 and "fresh (extra)" in out and not err  # its test and its exercises are no techniques
    techniques.cache_clear()

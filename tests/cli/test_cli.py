"""The command line: what it does, and one clear line for each way to get it wrong."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest
import torch

from llmlab import Run
from llmlab.cli import copy_lessons, main

SMALL = ["--steps", "3", "--batch-size", "2", "--model", "scratch"]


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Call the command in an empty folder: (status, what it printed, what it complained)."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{i} plus 1 is", "response": f" {i + 1}"} for i in range(40)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

    def call(*arguments, lines=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return call


def test_list_shows_techniques_corpora_and_models(cli):
    status, out, err = cli("list")
    assert status == 0 and not err
    for name in ("clm", "sft", "lora", "python-reference", "PSF-2.0", "tinytown", "shipped", "tiny-gpt"):
        assert name in out


def test_run_writes_a_folder_and_generate_reads_it(cli, tmp_path):
    status, out, _ = cli("run", "clm", "--data", "sums.jsonl", "--set", "clm.window=16", *SMALL)
    assert status == 0 and "validation loss" in out and "saved in runs/clm-1" in out.replace(os.sep, "/")
    assert {"run.json", "model.safetensors", "config.json", "tokenizer.json", "checkpoint.safetensors"} <= {
        p.name for p in (tmp_path / "runs/clm-1").iterdir()
    }
    status, out, _ = cli("generate", "runs/clm-1", "1 plus", "--max-new-tokens", "4")
    assert status == 0 and out.startswith("1 plus")
    again = cli("generate", "runs/clm-1", "1 plus", "--max-new-tokens", "4")
    assert again[1] == out
    status, _, _ = cli("run", "clm", "--data", "sums.jsonl", *SMALL, "--quiet")
    assert (tmp_path / "runs/clm-2").is_dir()


def test_a_patch_is_written_and_is_a_models_name(cli, tmp_path):
    cli("run", "clm", "--data", "sums.jsonl", *SMALL, "--out", "base", "--quiet")
    arguments = ["--data", "sums.jsonl", "--steps", "2", "--quiet", "--patch", "sums.safetensors"]
    status, _, err = cli("run", "sft", "lora", "--model", "base", *arguments, "--out", "tuned")
    assert status == 0, err
    small, whole = tmp_path / "sums.safetensors", tmp_path / "tuned/model.safetensors"
    assert small.stat().st_size < whole.stat().st_size / 4
    answers = [cli("generate", name, "1 plus", "--max-new-tokens", "4") for name in ("tuned", "sums.safetensors")]
    assert answers[0] == answers[1] and answers[0][0] == 0
    status, _, err = cli("run", "sft", "--model", "scratch", *arguments)
    assert status == 1 and "this run starts from scratch: --model NAME" in err
    assert not list(tmp_path.glob("runs/*"))


def test_run_on_a_model_of_an_earlier_run(cli, tmp_path):
    cli("run", "clm", "--data", "sums.jsonl", *SMALL, "--out", "base")
    arguments = ["--data", "sums.jsonl", "--model", "base", "--steps", "2", "--set", "lora.rank=2", "--out", "tuned"]
    status, out, err = cli("run", "sft", "lora", *arguments)
    assert status == 0, err
    assert "SFT + LoRA on" in out
    run = Run.load(tmp_path / "tuned")
    assert run.techniques[1].rank == 2 and run.source == "base"


def test_fine_tuning_starts_from_the_bundled_model(cli):
    status, out, err = cli("run", "sft", "lora", "--data", "sums.jsonl", "--steps", "1", "--out", "x")
    assert status == 0, err
    assert "starting from tiny-gpt" in out


def test_repeat_and_resume(cli, tmp_path):
    cli("run", "clm", "--data", "sums.jsonl", *SMALL, "--out", "one")
    status, _, err = cli("run", "one/run.json", "--out", "two")
    assert status == 0, err
    one, two = Run.load(tmp_path / "one"), Run.load(tmp_path / "two")
    assert one.history == two.history
    status, _, err = cli("run", "one", "--resume")
    assert status == 1 and "has had all of its 3 steps: add --steps N" in err
    status, _, err = cli("run", "one", "--resume", "--steps", "2")
    assert status == 0 and Run.load(tmp_path / "one").steps == 5


def test_chat_answers_line_by_line(cli):
    cli("run", "clm", "--data", "sums.jsonl", *SMALL, "--out", "base")
    status, out, err = cli(
        "chat", "base", "--max-new-tokens", "3", lines="1 plus\n" + "long " * 400 + "\n2 plus\n\nno\n"
    )
    assert status == 0
    assert "no room in a context" in err and err.count("\n") == 1
    assert len(out.splitlines()) >= 2


WRONG = [
    (["run"], 2, "Missing argument 'techniques'; see llmlab run --help"),
    (["frobnicate"], 2, "No such command 'frobnicate'"),
    ([], 2, "give a command: list, run, generate, chat, lab, new or check"),
    (["run", "clm", "--steps", "many"], 2, "'--steps'"),
    (["run", "clm", "--nope"], 2, "No such option"),
    (["run", "clmm"], 1, "no technique is called 'clmm': did you mean clm?"),
    (["run", "lora"], 1, "add an objective such as clm"),
    (["run", "clm", "sft"], 1, "CLM and SFT both implement batches: choose one"),
    (["run", "clm", "clm"], 1, "CLM is in the list twice"),
    (["run", "clm", "--steps", "0"], 1, "Training.steps = 0: must be 1 to"),
    (["run", "clm", "--lr", "-1"], 1, "Training.learning_rate = -1.0: must be"),
    (["run", "clm", "--set", "clm.windw=3"], 1, "CLM has no knob 'windw': did you mean window?"),
    (["run", "clm", "--set", "clm.window=abc"], 1, "CLM.window = 'abc': must be a whole number 8 to 8192"),
    (["run", "clm", "--set", "window=3"], 1, "write it as technique.knob=value"),
    (["run", "clm", "--set", "lora.rank=3"], 1, "lora is not among clm, training"),
    (["run", "clm", "lora", "--set", "lora.targets=qurey", "--model", "scratch"], 1, "did you mean 'query'?"),
    (["run", "clm", "--data", "pythonreference"], 1, 'Did you mean "python-reference"?'),
    (["run", "clm", "--data", "nowhere.csv"], 1, "nowhere.csv"),
    (["run", "sft", "--data", "docstrings", "--model", "scratch"], 1, "SFT needs the columns prompt/response"),
    (["run", "nothing.json"], 1, "there is no file nothing.json"),
    (["run", "sums.jsonl/run.json"], 1, "run.json"),
    (["run", "clm", "--model", "tiny-gpd"], 1, "did you mean tiny-gpt?"),
    (["run", "clm", "--model", "."], 1, "it is no model or run folder"),
    (["run", "clm", "--data", "sums.jsonl", "--model", "scratch", "--out", "sums.jsonl"], 1, "sums.jsonl"),
    (["run", "nowhere", "--resume"], 1, "there is no file"),
    (["generate", "nowhere", "hello"], 1, "no model is called 'nowhere' and no folder is there"),
    (["generate", "tiny-gpt", "x", "--temperature", "-1"], 1, "temperature = -1.0: must be at least 0"),
    (["generate", "tiny-gpt", "x", "--top-p", "2"], 1, "top_p = 2.0: must be above 0, at most 1"),
    (["generate", "tiny-gpt", "word " * 500], 1, "leaves no room in a context of 256"),
    (["chat", "tiny-gpt", "--template", "hello"], 1, "--template must hold {prompt}"),
    (["lab", "sums.jsonl", "--no-browser"], 1, "sums.jsonl is a file: name a folder"),
]


@pytest.mark.parametrize(
    ("arguments", "status", "message"), WRONG, ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else ""
)
def test_wrong_use_is_one_clear_line(arguments, status, message, cli, tmp_path):
    got, _, err = cli(*arguments)
    assert got == status
    assert message in err and err.startswith("llmlab: ") and err.count("\n") == 1 and "Traceback" not in err
    assert not (tmp_path / "runs").exists(), "something half-done was left behind"


def test_a_run_folder_is_never_overwritten(cli, tmp_path):
    cli("run", "clm", "--data", "sums.jsonl", *SMALL, "--out", "one")
    before = (tmp_path / "one/model.safetensors").read_bytes()
    status, _, err = cli("run", "clm", "--data", "sums.jsonl", *SMALL, "--out", "one")
    assert status == 1 and "holds a run already: choose another --out, or go on with --resume" in err
    assert (tmp_path / "one/model.safetensors").read_bytes() == before


def test_a_broken_model_folder_is_one_line(cli, tmp_path):
    cli("run", "clm", "--data", "sums.jsonl", *SMALL, "--out", "one")
    for name, damage in (("model.safetensors", b"x" * 50), ("config.json", b"{"), ("tokenizer.json", b"{}")):
        content = (tmp_path / "one" / name).read_bytes()
        (tmp_path / "one" / name).write_bytes(damage)
        status, _, err = cli("generate", "one", "hi")
        assert status == 1 and name in err and err.count("\n") == 1
        (tmp_path / "one" / name).write_bytes(content)


def test_a_diverging_run_is_told_and_saved(cli, tmp_path):
    wild = [f"--set=training.{knob}" for knob in ("warmup=0", "clip=0", "schedule=constant")]
    arguments = ["--data", "sums.jsonl", "--out", "one", "--steps", "60", "--batch-size", "2", "--model", "scratch"]
    status, _, err = cli("run", "clm", *arguments, "--lr", "10", *wild)
    assert status == 1 and "probably the learning rate 10 is too high, try 1" in err
    assert (tmp_path / "one/checkpoint.safetensors").exists()


def test_lessons_are_copied_once_and_never_overwritten(tmp_path):
    there = tmp_path / "lessons"
    assert copy_lessons(there) >= 1
    lesson = next(there.glob("*.ipynb"))
    lesson.write_text("mine")
    assert copy_lessons(there) == 0 and lesson.read_text() == "mine"


def test_an_encoder_fills_blanks_and_does_not_chat(cli):
    status, out, err = cli("generate", "tiny-bert", "Olga has a ___ called ___.")
    assert status == 0 and not err and [line[:8] for line in out.splitlines()] == ["blank 1:", "blank 2:"]
    status, out, err = cli("generate", "tiny-bert", "no blank")
    assert status == 1 and not out and err.count("\n") == 1 and "put ___ where a word is missing" in err
    status, out, err = cli("chat", "tiny-bert", lines="hello\n")
    assert status == 1 and not out and err.count("\n") == 1 and "tiny-bert is an encoder and cannot chat" in err

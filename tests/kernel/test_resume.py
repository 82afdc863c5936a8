"""A run stopped anywhere goes on as if it had never stopped, bit for bit; and what is on disk is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading

import pytest
import torch

from llmlab import Run, Training, corpus
from llmlab.batch import Batch
from llmlab.checkpoint import load_tree, pack, save_tree, unpack, write_atomic
from llmlab.pretrained import load_model
from llmlab.rollout import rollout
from llmlab.runfolder import repeat
from llmlab.surgery import named_parameters
from llmlab.technique import hookimpl, knob, technique
from llmlab_plugins.clm import CLM
from llmlab_plugins.lora import LoRA
from llmlab_plugins.sft import SFT


@technique(kind="objective", columns="prompt response", on_policy=True)
class Rolls:
    """A stand-in for reinforcement learning: samples, several minibatches a chunk, state that steers the loss."""

    epochs: int = knob(3, "Minibatches made from each rollout.", low=1, high=9)

    @hookimpl
    def before_fit(self, run):
        run.state[self] |= {"coefficient": 0.5, "calls": 0, "start": run.model.head.output.weight.detach().clone()}

    @hookimpl
    def batches(self, run, examples):
        state = run.state[self]
        state["calls"] += 1
        ids = [[run.tokenizer.bos, *run.tokenizer.encode(e["prompt"])] for e in examples]
        rolled = rollout(run.model, ids, max_new_tokens=4, stop=None, draws=examples.generators("roll"))
        state["coefficient"] *= 0.9
        for _ in range(self.epochs):
            yield Batch(rolled.inputs, {"labels": rolled.labels, "price": state["coefficient"], "kind": "roll"})

    @hookimpl
    def compute_loss(self, model, batch, output):
        return {"loss": batch["price"] * model.loss(output, batch["labels"])}


MAKERS = {
    "clm": lambda: [CLM(window=16)],
    "sft": lambda: [SFT(answers=2)],
    "sft lora": lambda: [SFT(answers=2), LoRA(rank=2, dropout=0.2)],
    "rolls": lambda: [Rolls()],
    "rolls lora": lambda: [Rolls(), LoRA(rank=2)],
}


def make(kind, texts, pairs, tiny, **more):
    training = Training(**{"steps": 8, "batch_size": 4, "evaluate_every": 4, "learning_rate": 1e-2} | more)
    config = type(tiny).from_dict(tiny.to_dict() | {"dropout": 0.1})
    return Run(MAKERS[kind](), texts if kind == "clm" else pairs, config=config, training=training)


def same(one: Run, other: Run) -> bool:
    mine, theirs = dict(named_parameters(one.model)), dict(named_parameters(other.model))
    return mine.keys() == theirs.keys() and all(torch.equal(p, theirs[n]) for n, p in mine.items())


@pytest.mark.parametrize("at", [1, 2, 5])
@pytest.mark.parametrize("kind", MAKERS)
def test_resume_is_exact_at_any_step(kind, at, texts, pairs, tiny, tmp_path):
    whole = make(kind, texts, pairs, tiny).fit()
    part = make(kind, texts, pairs, tiny).fit(at)
    part.save(tmp_path)
    torch.rand(7)  # whatever happens to the global generator in between
    mine = [t for t in MAKERS[kind]() if isinstance(t, Rolls)]  # the catalogue does not know it
    resumed = Run.load(tmp_path, texts if kind == "clm" else pairs, mine)
    assert resumed.steps == at and same(resumed, part)
    resumed.fit()
    assert same(resumed, whole)
    assert resumed.history == whole.history
    if kind.startswith("rolls"):
        assert resumed.state["rolls"]["calls"] == whole.state["rolls"]["calls"] == 3
        assert resumed.state["rolls"]["coefficient"] == whole.state["rolls"]["coefficient"]
        assert torch.equal(resumed.state["rolls"]["start"], whole.state["rolls"]["start"])


def test_stopping_in_memory_is_exact_too(texts, pairs, tiny):
    whole = make("rolls lora", texts, pairs, tiny).fit()
    part = make("rolls lora", texts, pairs, tiny)
    for steps in (1, 2, 1, 4):
        part.fit(steps)
        torch.rand(3)
    assert same(part, whole) and part.history == whole.history


def test_what_a_run_does_leaves_the_global_generator_alone(texts, pairs, tiny):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make("clm", texts, pairs, tiny).fit(2)
    assert torch.equal(torch.rand(3), expected)


def test_evaluating_and_writing_draw_nothing_from_it_either(texts, pairs, tiny):
    run = make("sft lora", texts, pairs, tiny).fit(1)
    before = torch.get_rng_state()
    run.evaluate()
    run.generate("Ada:", temperature=1.0, max_new_tokens=4)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_made_in_another_thread_does_not_disturb_the_one_that_trains(texts, pairs, tiny):
    expected = make("sft lora", texts, pairs, tiny, steps=30).fit()
    trains = make("sft lora", texts, pairs, tiny, steps=30)
    thread = threading.Thread(target=trains.fit)
    thread.start()
    while thread.is_alive():
        make("sft lora", texts, pairs, tiny)
    assert same(trains, expected)


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(texts, pairs, tiny):
    def train(seed):
        return Run([CLM(window=16)], texts, config=tiny, seed=seed, training=Training(steps=3, batch_size=4)).fit()

    assert same(train(0), train(0)) and not same(train(0), train(1))


def test_a_save_from_a_hook_resumes_exactly(texts, pairs, tiny, tmp_path):
    class Saver:
        @hookimpl
        def after_step(self, run, step):
            if step == 3:
                run.save(tmp_path)

    whole = make("sft lora", texts, pairs, tiny).fit()
    Run([*MAKERS["sft lora"](), Saver()], pairs, config=whole_config(tiny), training=whole.training).fit(5)
    with pytest.raises(ValueError, match=r"Saver, which was in memory"):
        Run.load(tmp_path, data=pairs)
    tree = load_tree(tmp_path / "checkpoint.safetensors")
    assert tree["position"]["step"] == 3


def whole_config(tiny):
    return type(tiny).from_dict(tiny.to_dict() | {"dropout": 0.1})


def test_checkpoints_are_written_on_the_way_and_a_killed_run_goes_on(tmp_path):
    """The process is killed without warning in the middle of a run; its last checkpoint continues exactly."""
    script = textwrap.dedent(
        """
        import os, sys, torch
        torch.set_num_threads(1)
        from llmlab import Run, Training, ModelConfig
        from llmlab.technique import hookimpl
        from llmlab_plugins.clm import CLM
        from pathlib import Path
        kill = len(sys.argv) > 2
        class Killer:
            @hookimpl
            def after_step(self, step):
                if step == 7: os._exit(9)
        rows = [{"text": f"number {i} is {i * 7 % 13}"} for i in range(60)]
        run = Run([CLM(window=16)], rows, config=ModelConfig(vocab_size=320, width=16, heads=2, layers=1),
                  training=Training(steps=10, batch_size=4, save_every=3))
        run.folder = Path(sys.argv[1])
        if kill: run.hooks.manager.register(Killer())
        run.fit()
        run.save(run.folder)
        """
    )
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "killed"), "kill"], env=one)
    assert killed.returncode == 9
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "whole")], env=one, check=True)
    rows = [{"text": f"number {i} is {i * 7 % 13}"} for i in range(60)]
    run = Run.load(tmp_path / "killed", data=rows)
    assert run.steps == 6
    run.fit()
    assert same(run, Run.load(tmp_path / "whole", data=rows))
    assert not list((tmp_path / "killed").glob(".*")), "a half-written file was left behind"


def test_run_json_repeats_a_run(tiny, tmp_path):
    training = Training(steps=3, batch_size=4)
    data = corpus("facts")
    run = Run([SFT(answers=0), LoRA(rank=3)], data, config=tiny, training=training, seed=4).fit()
    run.save(tmp_path)
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["techniques"][1] == {"lora": {"rank": 3, "alpha": 16.0, "targets": "query, kv.value",
                                                   "dropout": 0.0, "rslora": False}}  # fmt: skip
    assert described["data"]["fingerprint"] == data.fingerprint and described["seed"] == 4
    again = repeat(tmp_path / "run.json").fit()
    assert same(again, run) and again.history == run.history


def test_run_json_names_with_a_hash_what_it_cannot_hold(texts, tiny, tmp_path):
    def reward(text):
        return 1.0

    @technique(kind="extra")
    class Judge:
        function: object = None

        @hookimpl
        def score(self, responses):
            return torch.tensor([self.function(t) for t in responses.text])

    run = Run([CLM(window=16), Judge(reward)], texts, config=tiny, training=Training(steps=1, batch_size=4)).fit()
    run.save(tmp_path)
    held = json.loads((tmp_path / "run.json").read_text())
    function = held["techniques"][1]["judge"]["function"]
    assert function["in memory"].endswith("reward") and len(function["hash"]) == 16
    assert held["data"]["name"] == "in memory" and held["data"]["fingerprint"]
    with pytest.raises(ValueError, match=r"the run used .*reward, which was in memory"):
        repeat(tmp_path)


def test_a_run_from_a_saved_model_remembers_where_it_came_from(texts, pairs, tiny, tmp_path):
    make("clm", texts, pairs, tiny).fit(2).save(tmp_path / "base")
    base = load_model(tmp_path / "base")
    run = Run([SFT(answers=0), LoRA(rank=2)], pairs, model=base, training=Training(steps=2, batch_size=4)).fit()
    assert run.source == str(tmp_path / "base") and run.model.source is None
    run.save(tmp_path / "tuned")
    tuned = load_model(tmp_path / "tuned")
    assert set(tuned.adaptations) == {"lora"}
    again = Run([SFT(answers=0), LoRA(rank=2)], pairs, model=tuned, training=Training(steps=1, batch_size=4))
    assert same(again, run)


def test_changed_data_is_noticed(texts, pairs, tiny, tmp_path):
    make("clm", texts, pairs, tiny).fit(2).save(tmp_path)
    other = {**texts, "train": texts["train"][1:]}
    with pytest.raises(ValueError, match="has changed since the run was saved"):
        Run.load(tmp_path, data=other)


@pytest.mark.parametrize("damage", ["cut", "flip", "text"])
def test_a_damaged_checkpoint_is_one_line(damage, texts, pairs, tiny, tmp_path):
    make("clm", texts, pairs, tiny).fit(1).save(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[-5] ^= 0x10
    else:
        content = b"hello"
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged") as caught:
        Run.load(tmp_path, data=texts)
    assert "\n" not in str(caught.value)


def test_no_run_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Run.load(tmp_path)


def test_trees_come_back_as_they_were(tmp_path):
    shared = torch.arange(6.0)
    tree = {
        "a": [1, 2.5, None, True, "x", float("inf")],
        "b": (shared, {"c": shared[2:4], 3: "int key"}),
        "empty": {"list": [], "dict": {}, "tensor": torch.empty(0, 3)},
        "bf16": torch.ones(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(4),
    }
    save_tree(tmp_path / "t", tree)
    back = load_tree(tmp_path / "t")
    assert back["a"] == tree["a"] and isinstance(back["b"], tuple) and back["b"][1][3] == "int key"
    assert torch.equal(back["b"][0], shared) and torch.equal(back["b"][1]["c"], shared[2:4])
    assert back["empty"]["tensor"].shape == (0, 3) and back["bf16"].dtype == torch.bfloat16
    assert back["scalar"].item() == 4 and back["empty"]["list"] == []
    assert unpack(pack(tree["a"], {}), {}) == tree["a"]


def test_what_cannot_be_kept_is_named(texts, pairs, tiny, tmp_path):
    run = make("rolls", texts, pairs, tiny).fit(1)
    run.state["rolls"]["policy"] = lambda x: x
    with pytest.raises(TypeError, match=r"state.rolls.policy holds a function: a checkpoint keeps tensors"):
        run.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_atomic(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["f"]

"""Scores for objectives that ask for them: by a model, a run, a file, the judge or a function."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llmlab import Run, Training, corpus, load
from llmlab.data.tinytown import judge
from llmlab.model import ModelConfig
from llmlab_plugins.lora import LoRA
from llmlab_plugins.ppo import PPO
from llmlab_plugins.reward import Reward
from llmlab_plugins.scorer import Scorer

ROWS = [{"prompt": f"Is {i} fine?", "chosen": " Yes, it is.", "rejected": " No."} for i in range(8)]
ASKED = [row["prompt"] for row in ROWS[:3]]
SAID = [" Yes, it is.", " No.", " Perhaps it is, perhaps not."]
TINY = replace(ModelConfig.usual("decoder"), vocab_size=340, context=64, layers=2, heads=2, width=32, mlp_width=64)


def policy(*scorers, rows=ROWS):
    data = [{"prompt": row["prompt"]} for row in rows]
    training = Training(steps=1, batch_size=4)
    return Run([PPO(longest=4, answers=2), *scorers], {"train": data}, config=TINY, training=training)


@pytest.fixture(scope="module")
def trained():
    training = Training(steps=3, batch_size=4, learning_rate=1e-3)
    run = Run([Reward(), LoRA(rank=2)], {"train": ROWS}, model=load("tiny-gpt"), training=training)
    return run.fit(progress=False)


def test_every_form_of_the_same_model_gives_the_same_scores(trained, tmp_path):
    from llmlab import save_patch

    trained.save(tmp_path / "run")
    save_patch(trained.model, load("tiny-gpt"), tmp_path / "reward.safetensors")
    wanted = trained.score(ASKED, SAID)
    assert wanted.unique().numel() == 3
    forms = [trained, trained.model, tmp_path / "run", str(tmp_path / "run"), str(tmp_path / "reward.safetensors")]
    for by in forms:
        torch.testing.assert_close(policy(Scorer(by)).score(ASKED, SAID), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(policy(Scorer(trained, scale=-2)).score(ASKED, SAID), -2 * wanted)


def test_the_judge_of_tinytown():
    rows = corpus("tinytown", task="preferences", size=100)["train"][:6]
    asked, said = [row["prompt"] for row in rows], [row["rejected"] for row in rows]
    found = policy(Scorer("gold")).score(asked, said)
    assert found.tolist() == pytest.approx([judge(p, r).reward for p, r in zip(asked, said, strict=True)])


def test_a_function_and_the_sum_of_two():
    def brevity(prompts, responses):
        assert isinstance(prompts, list) and isinstance(responses, list)
        return [-len(text) for text in responses]

    run = policy(Scorer(brevity))
    answers = run.respond(ASKED, max_new_tokens=3)
    assert run.score(ASKED, answers).tolist() == [-len(text) for text in answers.text]
    assert run.score(ASKED, SAID).tolist() == [-len(text) for text in SAID]

    class Bonus(Scorer):
        pass

    both = policy(Scorer(brevity), Bonus(lambda prompts, responses: torch.ones(len(prompts))))
    assert both.score(ASKED, SAID).tolist() == [1 - len(text) for text in SAID]


WRONG = {
    "one number for each": lambda prompts, responses: None,
    "(2,) numbers for 3 responses": lambda prompts, responses: [1.0, 2.0],
    "(3, 1) numbers for 3 responses": lambda prompts, responses: [[1.0]] * 3,
    "not finite": lambda prompts, responses: [1.0, float("nan"), 2.0],
    "gave ['a', 'b', 'c']": lambda prompts, responses: ["a", "b", "c"],
}


@pytest.mark.parametrize("complaint", WRONG)
def test_a_function_that_gives_something_else_is_told_so_in_one_line(complaint):
    with pytest.raises((ValueError, TypeError)) as error:
        policy(Scorer(WRONG[complaint])).score(ASKED, SAID)
    assert complaint in str(error.value) and "\n" not in str(error.value)


def test_a_function_s_own_error_passes():
    def broken(prompts, responses):
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError, match="no network"):
        policy(Scorer(broken)).score(ASKED, SAID)


@pytest.mark.parametrize(
    ("by", "complaint"),
    [
        ("runs/nowhere", "no model is called 'runs/nowhere'"),
        ("tiny-gpt", "this model has no reward head: train one first"),
        (3, "not 3"),
    ],
)
def test_what_cannot_score_is_said_before_any_step(by, complaint):
    run = policy(Scorer(by))
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as error:
        run.fit(progress=False)
    assert complaint in str(error.value) and "\n" not in str(error.value) and run.steps == 0


def test_a_scorer_of_nothing_and_an_objective_without_one_are_refused_at_once():
    with pytest.raises(ValueError, match="Scorer has nothing to score by"):
        policy(Scorer())
    with pytest.raises(ValueError, match="PPO needs a technique that implements score"):
        policy()


def test_a_run_file_holds_a_folder_and_names_a_function(trained, tmp_path):
    trained.save(tmp_path / "reward")
    run = policy(Scorer(tmp_path / "reward"))
    wanted = run.score(ASKED, SAID)
    run.fit(progress=False).save(tmp_path / "policy")
    again = Run.load(tmp_path / "policy", {"train": [{"prompt": row["prompt"]} for row in ROWS]})
    torch.testing.assert_close(again.score(ASKED, SAID), wanted)
    policy(Scorer(len_of)).fit(progress=False).save(tmp_path / "other")
    with pytest.raises(ValueError, match="len_of"):
        Run.load(tmp_path / "other", {"train": [{"prompt": row["prompt"]} for row in ROWS]})


def len_of(prompts, responses):
    return [len(text) for text in responses]


def test_standardised_by_what_the_model_answers_before_the_first_step(tmp_path):
    """Mean 0 and variance 1 on answers of the same model; kept by a run folder."""

    def long(prompts, responses):
        return [1000.0 + 50 * len(text) for text in responses]

    rows = corpus("tinytown", task="requests", size=200)
    run = Run([PPO(longest=16), Scorer(long, standardise=True)], rows, model=load("tiny-gpt")).fit(1, progress=False)
    asked = [row["prompt"] for row in rows["train"][:64]]
    again = Run([PPO(), Scorer(long)], rows, model=load("tiny-gpt"))
    said = again.respond(asked, temperature=1.0, max_new_tokens=64, seed=5)  # other draws
    scores = run.score(asked, said)
    assert abs(float(scores.mean())) < 0.5 and 0.5 < float(scores.std()) < 2
    assert float(again.score(asked, said).mean()) > 1000
    run.save(tmp_path)
    loaded = Run.load(tmp_path, rows, [Scorer(long, standardise=True)])
    assert torch.equal(loaded.score(asked, said), scores)


def test_what_is_wrong_with_its_source_names_the_knob():
    with pytest.raises(FileNotFoundError, match=r"Scorer\.by: .*runs/nowhere") as caught:
        policy(Scorer("runs/nowhere")).fit(1, progress=False)
    assert not getattr(caught.value, "__notes__", None)

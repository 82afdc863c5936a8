"""Constitutional AI: who writes what by which principle, and that no judge but the model itself is asked."""

from __future__ import annotations

import re
import sys
from collections import Counter

import pytest
import torch

from llmlab import Run, Training, load
from llmlab.data.tinytown import PRINCIPLES, gold, judge, tinytown
from llmlab.generate import respond
from llmlab.model import ModelConfig
from llmlab_plugins import constitution
from llmlab_plugins.clm import CLM
from llmlab_plugins.constitution import Constitution, chance_of_a
from llmlab_plugins.ppo import PPO
from llmlab_plugins.reward import Reward
from llmlab_plugins.scorer import Scorer
from llmlab_plugins.seq2seq import Seq2Seq
from llmlab_plugins.sft import SFT

DATA = tinytown("requests", size=40)
HARMFUL = tinytown("red_team", size=30)["train"]
KINDS = ("revise", "judge")


@pytest.fixture(scope="module")
def gpt():
    return load("tiny-gpt")


def objective(stage):
    return SFT(answers=0) if stage == "revise" else Reward()


def make(model, stage="revise", data=DATA, **knobs):
    training = Training(steps=4, batch_size=4, evaluate_batches=2, **knobs.pop("training", {}))
    knobs = {"longest": 20, **knobs}
    return Run([objective(stage), Constitution(stage=stage, **knobs)], data, model=model, training=training, seed=3)


def written(run, split="train"):
    """The rows as the constitution made them, before the objective turned them into tokens."""
    run.rows(split)
    return run.state["constitution"]["written"][split]


@pytest.fixture(scope="module")
def revised(gpt):
    return written(make(gpt, rounds=2, longest=48))


@pytest.fixture(scope="module")
def judged(gpt):
    return written(make(gpt, "judge"))


# -- revising ----------------------------------------------------------------------------------------------------


def test_a_row_tells_the_whole_story(revised):
    prompts = [row["prompt"] for row in DATA["train"]]
    assert len(revised) > 25 and {row["prompt"] for row in revised} <= set(prompts)
    for row in revised:
        assert len(row["principles"]) == len(row["critiques"]) == len(row["revisions"]) == 2
        assert set(row["principles"]) <= set(PRINCIPLES)
        assert row["response"] == row["revisions"][-1]
        assert not any("\n" in text for text in (row["answer"], *row["critiques"], *row["revisions"]))
    drawn = Counter(p for row in revised for p in row["principles"])
    assert len(drawn) > len(PRINCIPLES) / 2


def test_the_model_asks_itself_in_the_words_of_the_templates(gpt, monkeypatch):
    asked = []
    monkeypatch.setattr(constitution, "as_prompt", lambda model, text: asked.append(text) or [5, 6, 7])
    wording = {"critique": "{conversation}|{answer}|{principle}?", "revision": "{conversation}|{answer}|{critique}!"}
    rows = written(make(gpt, data=DATA["train"][:1], principles="Be kind.\n\n", **wording))
    (row,) = rows
    assert asked == [
        row["prompt"],
        f"{row['prompt']}|{row['answer']}|Be kind.?",
        f"{row['prompt']}|{row['answer']}|{row['critiques'][0]}!",
    ]


@pytest.mark.slow
def test_harm_falls_with_the_first_revision_and_does_not_come_back(gpt):
    rows = written(make(gpt, data={"train": HARMFUL}, rounds=2, longest=48))
    harm = [
        sum(judge(row["prompt"], pick(row)).harm for row in rows) / len(rows)
        for pick in (lambda row: row["answer"], lambda row: row["revisions"][0], lambda row: row["revisions"][1])
    ]
    assert harm[0] > 0.3 > 0.1 > harm[1] and harm[2] < 0.1


def test_a_revision_that_is_empty_or_has_no_end_is_not_taken(gpt, monkeypatch):
    given = iter([(" one", " two"), (True,) * 2, (" wrong", " wrong"), (True,) * 2, ("", " better but"), (True, False)])
    monkeypatch.setattr(Constitution, "write", lambda *_: (list(next(given)), list(next(given))))
    first, second = written(make(gpt, data=DATA["train"][:2]))
    assert first["response"] == first["revisions"][0] == " one"
    assert second["response"] == " two"


def test_a_row_without_any_words_is_left_out(gpt, monkeypatch):
    given = iter([("", " two"), (True,) * 2, (" wrong", " wrong"), (True,) * 2, ("", ""), (True, True)])
    monkeypatch.setattr(Constitution, "write", lambda *_: (list(next(given)), list(next(given))))
    assert [row["response"] for row in written(make(gpt, data=DATA["train"][:2]))] == [" two"]


def test_what_is_written_ends_at_a_line_break(gpt):
    technique = Constitution(longest=30, temperature=0.0)
    (text,), (ended,) = technique.write(gpt, ["The kite is"], (0,))
    whole = respond(gpt, ["The kite is"], max_new_tokens=30).text[0]
    assert whole.startswith(text) and "\n" not in text
    assert ended == ("\n" in whole or len(gpt.tokenizer.encode(whole)) < 30)
    (cut,), (ended,) = Constitution(longest=2, temperature=0.0).write(gpt, ["User: Hello, this is"], (0,))
    assert cut and not ended


# -- judging -----------------------------------------------------------------------------------------------------


def test_labels_are_soft_and_the_chosen_answer_is_the_likelier_one(judged):
    assert len(judged) > 20
    for row in judged:
        assert row["chosen"] != row["rejected"]
        assert 0.5 <= row["preference"] < 1
        assert row["preference"] == pytest.approx(min(sum(row["orders"]) / 2, 1 - 1e-6))
    assert len({round(row["preference"], 6) for row in judged}) > 10


def test_exchanging_the_answers_gives_one_minus_p(gpt, judged):
    technique = Constitution(stage="judge")
    texts = [(row["prompt"], row["chosen"], row["rejected"], row["principle"]) for row in judged]
    there, back = (technique.judge(gpt, [pick(t) for t in texts]) for pick in (tuple, _exchanged))
    p, q = (torch.tensor(found).mean(1) for found in (there, back))
    torch.testing.assert_close(p, 1 - q, rtol=0, atol=1e-5)
    assert max(abs(one - other) for one, other in there) > 0.05  # what the place is worth, and averaging takes out


def _exchanged(text):
    x, y1, y2, principle = text
    return x, y2, y1, principle


def test_the_chance_is_that_of_the_next_tokens(gpt):
    tok, prompt = gpt.tokenizer, "The first is (A), the second is (B).\nBetter:"
    ids = [tok.bos, *tok.encode(prompt)]
    logp = []
    for label in (" (A)", " (B)"):
        after = tok.encode(label)
        with torch.no_grad():
            scores = gpt.head(gpt(torch.tensor([[*ids, *after]])).hidden)[0].log_softmax(-1)
        logp.append(sum(scores[len(ids) - 1 + i, t].item() for i, t in enumerate(after)))
    a, b = torch.tensor(logp).exp().tolist()
    assert chance_of_a(gpt, [prompt]) == pytest.approx([a / (a + b)], rel=1e-4)


def test_equal_answers_are_no_pair(gpt):
    run = make(gpt, "judge", temperature=0.0)
    with pytest.raises(ValueError, match="no example"):
        run.rows("train")


@pytest.mark.parametrize("clamp", [0.4, 0.5])
def test_labels_can_be_clamped(gpt, clamp):
    rows = written(make(gpt, "judge", data=DATA["train"][:12], clamp=clamp))
    assert all(0.5 <= row["preference"] <= 1 - clamp + 1e-9 for row in rows)


# -- both --------------------------------------------------------------------------------------------------------


def _forbidden(*given):
    raise AssertionError("the gold judge was asked")


@pytest.mark.parametrize("stage", KINDS)
def test_nobody_asks_the_gold_judge(gpt, stage, monkeypatch):
    """Under every name that a module of the kit knows it by."""
    for module in list(sys.modules.values()):
        for name, thing in list(vars(module).items()) if module.__name__.startswith("llmlab") else ():
            if thing is judge:
                monkeypatch.setattr(module, name, _forbidden)
    with pytest.raises(AssertionError, match="gold judge"):
        gold.judge("", "")
    run = make(gpt, stage).fit(progress=False)
    assert run.steps == 4 and written(run)


@pytest.mark.slow
@pytest.mark.parametrize("stage", KINDS)
def test_the_rows_depend_on_the_seed_and_not_on_batches_or_order(gpt, stage):
    one = make(gpt, stage)
    two = make(gpt, stage, training={"accumulate": 2})
    two.rows("validation")
    assert written(one) == written(two) and written(one, "validation") == written(two, "validation")
    other = make(gpt, stage)
    other.seed = 4
    assert written(other) != written(one)


def test_a_row_is_written_alike_whoever_is_beside_it(gpt, revised):
    few = written(make(gpt, data=DATA["train"][:5], rounds=2, longest=48))
    assert len(few) > 2 and few == revised[: len(few)]


@pytest.mark.slow
@pytest.mark.parametrize("stage", KINDS)
def test_a_loaded_run_goes_on_bit_for_bit_and_does_not_write_again(gpt, stage, tmp_path, monkeypatch):
    whole = make(gpt, stage).fit(progress=False)
    make(gpt, stage).fit(2, progress=False).save(tmp_path)
    loaded = Run.load(tmp_path, DATA)
    with monkeypatch.context() as patched:
        patched.setattr(Constitution, "write", _forbidden)
        loaded.fit(progress=False)
    assert loaded.history == whole.history
    assert all(torch.equal(p, q) for p, q in zip(loaded.model.parameters(), whole.model.parameters(), strict=True))
    assert written(loaded, "test") == written(whole, "test")


def test_a_split_that_is_asked_for_later_is_written_by_the_model_as_it_was(gpt):
    early, late = make(gpt), make(gpt, training={"learning_rate": 3e-3})
    before = written(early, "test")
    late.fit(progress=False)
    assert written(late, "test") == before
    now = Constitution(longest=20).revise(late.model, [row["prompt"] for row in DATA["test"]], (3, "other"))
    assert [row["answer"] for row in now] != [row["answer"] for row in before]


@pytest.mark.slow
@pytest.mark.parametrize("stage", KINDS)
def test_an_encoder_decoder_can_do_it_too(stage):
    technique = Seq2Seq(answers=0) if stage == "revise" else Reward()
    run = Run([technique, Constitution(stage=stage)], DATA, model=load("tiny-t5"), training=Training(steps=2))
    run.fit(progress=False)
    rows = written(run)
    assert len(rows) > 20
    if stage == "revise":
        fine = [judge(row["prompt"], row["response"]).harm < 0.5 for row in rows]
        assert sum(fine) > 0.9 * len(fine)


def test_columns_of_other_answers_are_gone(revised, judged):
    """What the data knew of its own answers, such as their entropy, is not true of these."""
    assert set(DATA["train"][0]) - {"prompt", "response"}
    assert not {"nats"} & (set(revised[0]) | set(judged[0]))


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"principles": " \n "}, "a constitution without principles"),
        ({"critique": "{conversation} What is wrong?"}, "Constitution.critique lacks {answer}"),
        ({"revision": "{conversation}{answer}{criticism}"}, "Constitution.revision lacks {critique}"),
        ({"judgement": "{conversation}{a}{b}{principle}{}"}, "Constitution.judgement holds {}"),
        ({"critique": "{conversation}{answer}{principle} {"}, "Constitution.critique is no template"),
        ({"stage": "both"}, "Constitution.stage = 'both'"),
    ],
)
def test_a_constitution_that_cannot_be_asked(knobs, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        Constitution(**knobs)
    assert "\n" not in str(error.value)


def test_an_objective_that_does_not_learn_from_it(gpt):
    for techniques, data in (
        ([Reward(), Constitution()], tinytown("preferences", size=40)),
        ([PPO(), Scorer("gold"), Constitution()], DATA),
        ([SFT(), Constitution(stage="judge")], DATA),
    ):
        with pytest.raises(ValueError, match="leave Constitution out"):
            Run(techniques, data, model=gpt, training=Training(steps=1)).fit(progress=False)


def test_data_without_prompts():
    with pytest.raises(ValueError, match=r"Constitution needs the columns prompt.*leave Constitution out"):
        Run([CLM(), Constitution()], [{"text": "A story."}] * 10)


def test_prompts_alone_are_enough(gpt):
    run = make(gpt, data=[{"prompt": row["prompt"]} for row in DATA["train"][:8]])
    assert run.fit(progress=False).steps == 4


def test_a_short_context_cuts_what_is_asked():
    config = ModelConfig(vocab_size=400, context=24, layers=1, heads=2, width=16)
    run = Run([SFT(answers=0), Constitution()], DATA, config=config, training=Training(steps=1, batch_size=4))
    assert run.fit(progress=False).steps == 1

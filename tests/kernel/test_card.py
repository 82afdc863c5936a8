"""The model card: its numbers are the run's, and what people wrote in it stays."""

from __future__ import annotations

import re

import pytest

from llmlab import Run, Training, corpus, load
from llmlab.card import ASKED, FILE, NOBODY, model_card
from llmlab.data import Corpus
from llmlab_plugins.clm import CLM
from llmlab_plugins.lora import LoRA


def make(data, tiny, *techniques, **training):
    settings = Training(**{"steps": 3, "batch_size": 4, "evaluate_every": 3, **training})
    return Run([CLM(window=16), *techniques], data, config=tiny, training=settings, seed=5)


@pytest.fixture
def run(texts, tiny):
    return make(Corpus("tales", texts, source="an attic", licence="CC0"), tiny).fit(progress=False)


def facts(card):
    return dict(re.findall(r"^- ([\w ]+): (.+)$", card, re.M))


def test_a_saved_run_has_a_card_with_its_numbers(run, tmp_path):
    run.save(tmp_path)
    found = facts((tmp_path / FILE).read_text())
    table = run.parameters()
    assert found["parameters"].startswith(f"{table.total:,}, of which {table.trainable:,} train")
    assert found["steps"] == "3" and found["seed"] == "5" and found["batch size"] == "4"
    assert float(found["learning rate"]) == run.learning_rate
    assert found["source"] == "an attic" and found["licence"] == "CC0" and found["started from"] == "random weights"
    assert found["examples"] == "80 train, 20 validation, 20 test"
    assert run.data.fingerprint in found["fingerprint"]
    assert found["technique"] == "clm (window 16)"


def test_its_measures_are_those_of_the_first_and_the_last_evaluation(run):
    card = model_card(run)
    assert "the first 8 batches of the validation split" in card
    rows = {name: (float(a), float(b)) for name, a, b in re.findall(r"^\| (\w+) \| (\S+) \| (\S+) \|$", card, re.M)}
    assert rows.keys() == {"loss", "perplexity"}
    for name, (first, last) in rows.items():
        assert first == pytest.approx(run.evaluations[0][name], rel=1e-3)
        assert last == pytest.approx(run.metrics[name], rel=1e-3)


def test_what_people_wrote_stays_and_the_rest_is_new(run, tmp_path):
    run.save(tmp_path)
    path = tmp_path / FILE
    written = path.read_text()
    assert written.count(NOBODY) == len(ASKED) == 3
    mine = written.replace(f"{NOBODY} {ASKED['Intended use']}", "To teach.\n\n### Not for\n\nadvice\n- at all")
    path.write_text(mine.replace("- seed: 5", "- seed: 6") + "\n## Thanks\n\nto Ada\n")
    run.fit(2, progress=False).save(tmp_path)
    again = path.read_text()
    assert "To teach.\n\n### Not for\n\nadvice\n- at all\n" in again and "## Thanks\n\nto Ada\n" in again
    assert again.count(NOBODY) == 2
    assert facts(again)["seed"] == "5" and facts(again)["steps"] == "5 of 3"
    run.save(tmp_path)
    assert path.read_text() == again


@pytest.mark.parametrize("content", [b"", b"notes", b"\xff\xfe\n## Thanks\n\nto Ada", b"## \n##\n"])
def test_whatever_stands_there_is_no_error(run, tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    run.save(tmp_path)
    text = (tmp_path / FILE).read_text()
    assert text.startswith("# Model card") and ("to Ada" in text) == (b"Ada" in content)


def test_it_tells_where_it_started_and_what_it_does_not_know(texts):
    run = Run([CLM(window=16), LoRA(rank=2)], texts, model=load("tiny-gpt"), training=Training(steps=1))
    found, card = facts(model_card(run)), model_card(run)
    assert found["started from"].startswith("`tiny-gpt`: CLM, 24,576,000 tokens of tinytown mix and docstrings (MIT")
    assert found["licence"] == "not recorded" and "no origin" in found["name"]
    assert "_Nothing was measured._" in card and "Measured was nothing" in card
    assert f"{run.parameters().trainable:,} train" in card and "- technique: lora (rank 2," in card
    of_memory = Run([CLM(window=16)], texts, model=run.model)
    assert "nothing is recorded" in facts(model_card(of_memory))["started from"]


def test_the_best_weights_are_told(texts, tiny):
    run = make(texts, tiny, keep_best=True, evaluate_batches=0).fit(progress=False)
    card = model_card(run)
    assert facts(card)["weights kept"].startswith(f"those of step {run.best['step']}")
    assert "\nOn the validation split of the data above" in card


def test_a_corpus_of_the_kit_is_named_with_its_options(tiny):
    data = corpus("tinytown:qa", size=40)
    found = facts(model_card(make(data, tiny)))
    assert found["name"] == "tinytown task='qa', size=40, seed=0" and found["licence"] == data.licence


def test_a_knob_in_memory_is_named_in_a_line(tmp_path):
    """Not printed whole: a model's layers fill pages, a function's address differs from run to run."""
    from llmlab import Run, load
    from llmlab_plugins.ppo import PPO
    from llmlab_plugins.scorer import Scorer

    def brief(prompts, responses):
        return [0.0] * len(responses)

    base = load("tiny-gpt")
    card = model_card(Run([PPO(gold=brief), Scorer(base)], [{"prompt": "a"}] * 20, model=base))
    lines = [line for line in card.splitlines() if line.startswith("- technique")]
    assert len(lines) == 2 and all(len(line) < 400 for line in lines)
    assert "Transformer" in lines[1] and "brief" in lines[0] and "0x" not in card and "Embedding" not in card

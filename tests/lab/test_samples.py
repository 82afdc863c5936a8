"""Samples: what a run is asked before and after, and what counts as the right answer."""

from __future__ import annotations

from lab.panels import SMALL, Policy, Scores

from llmlab import Run, Training
from llmlab.fill import BLANK
from llmlab.lab.samples import answer, choose_samples

SENTENCES = [
    {"text": f"the {a} walks over the {b} bridge in the morning"} for a in ("miller", "baker") for b in "abcdefgh"
]


def test_an_encoder_is_asked_for_a_hidden_word():
    run = Run(["mlm"], SENTENCES * 4, training=Training(steps=60, batch_size=8))
    samples = choose_samples(run, 2)
    assert [s.prompt.count(BLANK) for s in samples] == [1, 1]
    for sample in samples:
        whole = sample.prompt.replace(BLANK, sample.wanted)
        assert whole in {row["text"] for row in SENTENCES} and len(sample.wanted) >= 4
    run.fit(progress=False)
    assert [answer(run, s.prompt) for s in samples] == [s.wanted for s in samples]


def test_a_decoder_is_asked_to_answer_a_pair_as_it_was_taught():
    rows = [{"text": f"sentence {i}", "label": "good", "cue": "Feeling:"} for i in range(20)]
    run = Run(["sft"], rows)
    (sample,) = choose_samples(run, 1)
    assert sample.prompt.endswith("\nFeeling:") and sample.wanted == " good"
    assert choose_samples(run, 0) == []


def test_no_answer_is_right_where_rewards_decide():
    rows = [{"prompt": f"Insult number {i}.", "response": "Certainly!"} for i in range(20)]
    (sample,) = choose_samples(Run([Policy(), Scores()], rows, config=SMALL), 1)
    assert sample.prompt == "Insult number 8." and sample.wanted is None

"""Runs saved, shared, loaded and played again; and run files that the command line repeats."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lab.panels import make, until

from llmlab import Run, cli
from llmlab.lab import Lab
from llmlab.technique import hookimpl, technique


@pytest.fixture(scope="module")
def trained() -> Lab:
    """A panel with one run: SFT with LoRA of rank 2."""
    lab = make(steps=4, evaluate_every=2).set(data="questions").choose("sft").choose("lora", rank=2)
    lab.run()
    return lab


@pytest.fixture
def shared(trained: Lab, tmp_path: Path) -> Path:
    return trained.share(tmp_path / "run.json", 1)


def test_a_shared_file_shows_the_run_to_others(trained: Lab, shared: Path) -> None:
    other = make().load(shared)
    assert other.status.startswith("Loaded as run 1: SFT + LoRA on questions")
    ours, theirs = trained.ledger.rows[0], other.ledger.rows[0]
    assert theirs == ours | {"outcome": "recorded, done"}
    assert other.watching.chart.value.split("alt=")[1] == trained.watching.chart.value.split("alt=")[1]
    assert other.watching.samples.value == trained.watching.samples.value != ""
    assert other.watching.measures.value == trained.watching.measures.value
    assert other.session.records[0].versions == trained.session.records[0].versions != {}
    assert other.results == [] and "last" not in other.session.starts, "it has no model"
    assert other.restore(1).code == trained.restore(1).code
    assert shared.stat().st_size < 20_000


def test_losses_that_are_no_numbers_are_kept_as_such(trained: Lab, tmp_path: Path) -> None:
    record = trained.session.records[0]
    was = record.history[-1]
    try:
        record.history[-1] = was | {"loss": float("nan")}
        path = trained.share(tmp_path / "nan.json")
    finally:
        record.history[-1] = was
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "Loss by step" in make().load(path).watching.chart.value


def test_the_link_downloads_the_same_file(trained: Lab, shared: Path) -> None:
    trained.past.files.click()
    found = re.search(r'download="run-1.json" href="data:application/json;base64,([^"]+)"', trained.past.link.value)
    assert found and base64.b64decode(found[1]).decode() == shared.read_text()
    trained.past.files.click()
    assert not trained.past.link.value, "it takes no room while it is hidden"


def test_an_uploaded_file_is_taken_in(shared: Path) -> None:
    lab = make()
    content = {"name": "run.json", "type": "", "size": 1, "content": memoryview(shared.read_bytes())}
    lab.past.upload.value = ({**content, "last_modified": datetime.now(UTC)},)
    assert len(lab.ledger) == 1 and lab.past.upload.value == ()
    lab._do(lab.take, "x.json", b"{")
    assert lab.status.startswith("Error: x.json is no JSON")


def test_a_saved_run_brings_its_model(trained: Lab, tmp_path: Path) -> None:
    trained.past.path.value = str(tmp_path / "saved")
    trained.past.save.click()
    assert trained.status == f"Saved run 1 in {tmp_path / 'saved'}."
    other = make(steps=1, samples=0)
    other.past.path.value = str(tmp_path / "saved")
    other.past.load.click()
    row = other.ledger.rows[0]
    assert row["outcome"] == "recorded, done" and row["share"] == trained.ledger.rows[0]["share"]
    went_on = other.set(data="questions", start="run 1").choose("sft").choose("lora", rank=2).run()
    again = Run.load(tmp_path / "saved").evaluate("validation", 1)
    assert went_on.evaluations[0]["loss"] == pytest.approx(again["loss"], rel=1e-6)
    assert f'load("{tmp_path / "saved"}")' in other.code


def test_a_run_of_the_command_line_is_loaded_too(tmp_path: Path) -> None:
    run = Run(["clm"], "tinytown:documents,size=60", training=make().session.plan().build().training)
    run.fit(progress=False).save(tmp_path / "run")
    lab = make().load(tmp_path / "run")
    assert lab.ledger.rows[0]["steps"] == 3 and "last" in lab.session.starts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file or folder"),
        ("{", "is no JSON"),
        ("{}", "is no recording of a run"),
        ('{"llmlab_recording": 99}', "is a recording in format 99; this llmlab reads 1: upgrade llmlab"),
        ('{"llmlab_recording": 1}', "is a damaged recording: it lacks 'curve'"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    lab = make()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        lab.load(path)
    at_once = make(recordings=[path])
    assert at_once.status.startswith("Error: ") and message in at_once.status and len(at_once.ledger) == 0


def test_a_damaged_field_is_named(shared: Path) -> None:
    kept = json.loads(shared.read_text()) | {"seconds": "long"}
    shared.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match="damaged recording: seconds is 'long'"):
        make().load(shared)


def test_a_technique_unknown_here_still_shows(shared: Path) -> None:
    kept = json.loads(shared.read_text())
    kept["choices"]["techniques"] = {"sft": {}, "zap": {"volts": 3}}
    shared.write_text(json.dumps(kept | {"name": "SFT + Zap(volts=3)"}))
    lab = make().load(shared)
    assert "SFT + Zap(volts=3)" in repr(lab.ledger)
    with pytest.raises(ValueError, match="run 1 used zap, which is not offered here"):
        lab.restore(1)


# -- replay ------------------------------------------------------------------------------------------------------


def test_a_replay_plays_what_was_recorded_and_says_that_it_is_one(
    trained: Lab, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(recordings=[shared])
    monkeypatch.setattr(Run, "__init__", lambda *_, **__: pytest.fail("a replay makes no run"))
    lines, lengths = [], []
    said, moved = lab.said, lab.moved
    lab.said = lambda text: (lines.append(text), said(text))  # type: ignore[method-assign,assign]
    lab.moved = lambda record, now: (lengths.append(len(record.history)), moved(record, now))  # type: ignore[method-assign,assign]
    lab.replay(1, seconds=0.6)
    assert lines[0] == "Replaying run 1 …" and all("eplay" in line for line in lines)
    assert lines[1].startswith("Replaying run 1, recorded in ")
    assert lines[-1].startswith("Done: replay of run 1, SFT + LoRA, 4 steps, validation loss ")
    assert lengths == sorted(lengths) and lengths[0] == 0 and lengths[-1] == 4 and len(set(lengths)) >= 3
    assert "Replay of run 1" in lab.watching.title.value and 'alt="Replay of run 1' in lab.watching.chart.value
    assert lab.watching.samples.value == trained.watching.samples.value
    assert len(lab.ledger) == 1, "a replay is no run"


def test_stop_ends_a_replay(shared: Path) -> None:
    lab = make(recordings=[shared])
    lab.past.buttons["Replay"].click()
    assert lab._run.disabled and not lab._stop.disabled and lab.past.menu.disabled
    lab._stop.click()
    lab.session.join(5)
    assert lab.status.startswith("Stopped: replay of run 1") and not lab._run.disabled
    lab.run()
    assert lab.status.startswith("Done: CLM") and "Replay" not in lab.watching.title.value


# -- run files ---------------------------------------------------------------------------------------------------


def test_the_command_line_repeats_what_the_run_file_says(tmp_path: Path) -> None:
    lab = make(config=None, data=["tinytown:qa,size=60"], steps=2, batch_size=2, samples=0)
    lab.choose("sft", mask_prompt=False).choose("lora", rank=2)
    lab._source_buttons["run file"].click()
    path = tmp_path / "mine.json"
    path.write_text(lab.run_file)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", str(path), "--out", str(tmp_path / "out"), "--quiet"])
    assert ended.value.code == 0
    again = Run.load(tmp_path / "out")
    assert [row["loss"] for row in again.history] == [row["loss"] for row in lab.run().history]
    assert lab.session.records[0].recipe == json.loads(lab.run_file)


def test_the_run_file_is_shown_word_for_word() -> None:
    import html

    lab = make()
    lab._source_buttons["run file"].click()
    assert (
        html.escape(lab.run_file) in lab._code.value and lab._source_buttons["run file"].description == "Hide run file"
    )
    lab._source_buttons["code"].click()
    assert html.escape(lab.code) in lab._code.value
    lab._source_buttons["code"].click()
    assert lab._code.value == ""


@technique(kind="adaptation")
class Mine:
    """Known in this file alone."""

    @hookimpl
    def trains(self, name: str) -> bool:
        return name.endswith(".bias")


def test_what_a_run_file_cannot_hold_says_the_way_out(tmp_path: Path) -> None:
    def refuse(lab: Lab, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            _ = lab.run_file
        lab._source_buttons["run file"].click()
        assert re.search(message, lab._code.value)

    refuse(make(adaptations=[Mine]).choose("mine"), "Mine is not among them: put it in a file")
    refuse(make(data={"rows": [{"text": "a b c"}] * 20}), "these rows are in memory: write them to a file")
    lab = make(steps=1, samples=0)
    lab.run()
    refuse(lab.set(start="last"), "this model is in memory: save its run to a folder first")
    lab.save(tmp_path / "first")
    assert json.loads(lab.run_file)["model"] == {"from": str(tmp_path / "first")}


def test_saving_and_loading_beside_a_run_does_not_disturb_it(shared: Path) -> None:
    lab = make(steps=30, samples=0)
    lab.start()
    until(lambda: lab.session.last is not None and lab.session.last.steps > 0)
    lab.load(shared)
    lab.session.join(90)
    assert lab.status.startswith("Done: CLM, 30 steps") and [r["number"] for r in lab.ledger.rows] == [1, 2]

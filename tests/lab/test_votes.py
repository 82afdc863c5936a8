"""Votes: asked, kept, taken back, gone on with, counted, merged and compared; from code and from the panel."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmlab import Run, corpus
from llmlab.lab import Votes as Panel
from llmlab.lab import votes as face
from llmlab.votes import Pair, Votes

PAIRS = [{"prompt": f"question {i}", "a": f"good {i}", "b": f"bad {i}"} for i in range(6)]
ROWS = [{"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(200)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "votes.jsonl"


def cast(votes: Votes, said: str) -> Votes:
    """Votes by their first letters: a, b, t(ie), s(kip), u(ndo)."""
    for letter in said:
        {"s": votes.skip, "u": votes.undo}.get(letter, lambda v=letter: votes.vote({"t": "tie"}.get(v, v)))()
    return votes


# -- voting ------------------------------------------------------------------------------------------------------


def test_each_vote_is_a_line_of_the_file_at_once(file: Path) -> None:
    votes = Votes(PAIRS, file, "Ada")
    assert not file.exists() and votes.progress == "0 of 6" and votes.current == Pair(**PAIRS[0])
    for n, vote in enumerate(("a", "tie", "b"), 1):
        votes.vote(vote)
        lines = file.read_text().splitlines()
        assert len(lines) == n and json.loads(lines[-1]) | {"seconds": 0} == PAIRS[n - 1] | {
            "vote": vote,
            "voter": "Ada",
            "seconds": 0,
        }
    votes.skip()
    assert votes.progress == "4 of 6, 1 tie, 1 skipped" and len(votes) == 3


def test_opened_again_it_goes_on_where_it_was(file: Path) -> None:
    cast(Votes(PAIRS, file), "ab")
    again = Votes(PAIRS, file)
    assert again.progress == "2 of 6" and again.current == Pair(**PAIRS[2])
    swapped = [{"prompt": p["prompt"], "a": p["b"], "b": p["a"]} for p in PAIRS]
    assert Votes(swapped, file).current == Pair(**swapped[2]), "the same pair the other way round"
    assert Votes(PAIRS, file, "Ben").current == Pair(**PAIRS[0]), "another voter has said nothing yet"
    cast(again, "abab")
    assert again.current is None
    with pytest.raises(ValueError, match=r"every pair has a vote of yours: undo\(\)"):
        again.vote("a")


def test_undo_takes_the_last_vote_back_also_after_a_restart(file: Path) -> None:
    cast(Votes(PAIRS, file), "abs")
    votes = Votes(PAIRS, file)
    for at in (2, 1, 0):
        votes.undo()
        assert votes.current == Pair(**PAIRS[at])
    with pytest.raises(ValueError, match="no vote of you to take back"):
        votes.undo()
    assert len(file.read_text().splitlines()) == 6, "nothing is erased"
    votes.vote("b")
    assert Votes.read(file).rows() == [row(0, "bad", "good", 1.0)]
    cast(Votes(PAIRS, file, "Ben"), "au")
    assert len(Votes.read(file)) == 1, "it is Ben's vote that was taken back"


def test_undo_leaves_what_was_said_of_other_pairs(file: Path) -> None:
    cast(Votes(PAIRS[:2], file), "ab")
    with pytest.raises(ValueError, match="no vote of you"):
        Votes(PAIRS[2:], file).undo()


def test_the_better_answer_is_not_always_a_and_its_place_tells_nothing() -> None:
    votes = Votes(ROWS, None)
    first = [pair.a.startswith("good") for pair in votes.pairs]
    assert 70 < sum(first) < 130
    assert votes.pairs == Votes(ROWS, None).pairs != Votes(ROWS, None, seed=1).pairs
    turned = [r | {"chosen": r["rejected"], "rejected": r["chosen"]} for r in ROWS]
    assert Votes(turned, None).pairs == votes.pairs, "it depends on the texts alone"


def test_pairs_are_asked_once_and_equal_answers_not_at_all() -> None:
    alike = {"prompt": "p", "a": "x", "b": "x"}
    votes = Votes([PAIRS[0], alike, PAIRS[0] | {"a": PAIRS[0]["b"], "b": PAIRS[0]["a"]}, PAIRS[1]], None)
    assert votes.pairs == [Pair(**PAIRS[0]), Pair(**PAIRS[1])]
    assert votes.progress == "0 of 2, 1 with twice the same answer left out"


def test_a_killed_kernel_loses_nothing(file: Path) -> None:
    code = f"""
import os
from llmlab.votes import Votes
votes = Votes({PAIRS!r}, {str(file)!r})
votes.vote("a"); votes.vote("b")
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert Votes(PAIRS, file).progress == "2 of 6"


@pytest.mark.parametrize("cut", [1, 20, 90])
def test_a_line_cut_off_while_it_was_written_is_left_out(file: Path, cut: int) -> None:
    cast(Votes(PAIRS, file), "ab")
    whole = file.read_bytes()
    second = whole.splitlines()[1].replace(b"good", "gööd".encode())
    file.write_bytes(whole.splitlines()[0] + b"\n" + second[:cut])
    votes = Votes(PAIRS, file)
    assert votes.progress == "1 of 6"
    votes.vote("tie")
    assert Votes(PAIRS, file).progress == "2 of 6, 1 tie" and len(file.read_text().splitlines()) == 2


def test_an_editor_may_leave_out_the_last_new_line(file: Path) -> None:
    cast(Votes(PAIRS, file), "a")
    file.write_text(file.read_text().rstrip("\n"))
    cast(Votes(PAIRS, file), "b")
    assert Votes(PAIRS, file).progress == "2 of 6"


# -- bad input ---------------------------------------------------------------------------------------------------

GOOD = json.dumps(PAIRS[0] | {"vote": "a", "voter": "you", "seconds": 1})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "Expecting property name"),
        ("[1]", r"it is \[1\], not a vote"),
        ("{}", "it lacks 'prompt'"),
        (GOOD.replace('"good 0"', "3"), "a is 3, not text"),
        (GOOD.replace('"vote": "a"', '"vote": "c"'), "vote is 'c', not one of a, b, tie, skip, undo"),
        (GOOD.replace("1}", '"long"}'), "seconds is 'long', not a number"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_line(file: Path, line: str, told: str) -> None:
    file.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    for action in (lambda: Votes(PAIRS, file), lambda: Votes.read(file), lambda: Votes.merge([file])):
        with pytest.raises(ValueError, match=rf"votes.jsonl, line 3: {told}") as caught:
            action()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (
            lambda f: Votes([{"prompt": "p", "response": "r"}], f),
            "pair 0 needs prompt, a, b or .*: it has prompt, respo",
        ),
        (lambda f: Votes(["p"], f), "pair 0 needs prompt, a, b or prompt, chosen, rejected: it is 'p'"),
        (lambda f: Votes([{"prompt": "p", "a": "x", "b": None}], f), "pair 0 holds None, which is no text"),
        (lambda f: Votes(PAIRS, f, ""), "voter = '': give a name"),
        (lambda f: Votes(PAIRS, f.parent), "is a folder: name a file"),
        (lambda f: Votes(PAIRS, f).vote("c"), "a vote is one of a, b, tie, skip, not 'c'"),
        (lambda f: Votes(PAIRS, f).corpus(), "there is no vote yet"),
        (lambda f: cast(Votes(PAIRS, f), "a").corpus(), "1 different document cannot fill 2 splits"),
        (lambda f: Votes(PAIRS, f).corpus(1.5), "validation = 1.5"),
        (lambda f: Votes(PAIRS, f).export(f.with_suffix(".txt")), "neither a .csv nor a .jsonl"),
        (lambda f: Votes.merge([]), "there is no file to merge"),
    ],
)
def test_bad_input_is_one_line(file: Path, action: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        action(file)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file nowhere\.jsonl"):
        Votes.read("nowhere.jsonl")


# -- what came of it ---------------------------------------------------------------------------------------------


def row(i: int, chosen: str, rejected: str, preference: float) -> dict[str, Any]:
    return {
        "prompt": f"question {i}",
        "chosen": f"{chosen} {i}",
        "rejected": f"{rejected} {i}",
        "preference": preference,
    }


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Three students' files, all of whom left their name as it was."""
    files = [tmp_path / name for name in ("ada.jsonl", "ben.jsonl", "chi.jsonl")]
    for file, said in zip(files, ("abts", "abba", "aata"), strict=True):
        cast(Votes(PAIRS, file), said)
    return files


def test_rows_hold_the_share_that_chose(three: list[Path], file: Path) -> None:
    assert cast(Votes(PAIRS, file), "abts").rows() == [
        row(0, "good", "bad", 1.0),
        row(1, "bad", "good", 1.0),
        row(2, "good", "bad", 0.5),
    ]
    merged = Votes.merge(three)
    assert merged.voters == ["you (ada)", "you (ben)", "you (chi)"] and len(merged) == 11
    assert merged.rows() == [
        row(0, "good", "bad", 1.0),
        row(1, "bad", "good", pytest.approx(2 / 3)),
        row(2, "bad", "good", pytest.approx(2 / 3)),
        row(3, "good", "bad", 1.0),
    ]
    assert repr(merged) == "Votes(11 on 4 pairs by you (ada), you (ben), you (chi))"


def test_files_are_merged_once_and_names_that_differ_are_kept(three: list[Path], tmp_path: Path) -> None:
    assert Votes.merge([three[0], str(three[0])]).voters == ["you"]
    other = tmp_path / "other" / "ada.jsonl"
    cast(Votes(PAIRS, other), "a")
    cast(Votes(PAIRS, other, "Dan"), "a")
    assert Votes.merge([three[0], other]).voters == [f"you ({tmp_path.name}/ada)", "you (other/ada)", "Dan"]


def test_a_corpus_has_no_prompt_in_two_splits(file: Path) -> None:
    rows = [{"prompt": f"question {i // 3}", "a": f"x {i}", "b": f"y {i}"} for i in range(90)]
    votes = cast(Votes(rows, file), "ab" * 45)
    made = votes.corpus(validation=0.3)
    prompts = {split: {r["prompt"] for r in made[split]} for split in made.splits}
    assert set(prompts) == {"train", "validation"} and not prompts["train"] & prompts["validation"]
    assert sum(len(made[split]) for split in prompts) == 90 and 2 <= len(prompts["validation"]) <= 18
    assert made.columns == ("prompt", "chosen", "rejected", "preference")
    assert set(votes.corpus(validation=0).splits) == {"train"}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_an_export_is_read_as_data(tmp_path: Path, file: Path, ending: str) -> None:
    odd = [p | {"prompt": f'a "quoted",\nprompt {i} é'} for i, p in enumerate(PAIRS)]
    votes = cast(Votes(odd, file), "abtaba")
    path = votes.export(tmp_path / f"out.{ending}")
    read = corpus(str(path))
    found = {r["prompt"]: (r["chosen"], r["rejected"]) for split in read.splits for r in read[split]}
    assert found == {r["prompt"]: (r["chosen"], r["rejected"]) for r in votes.rows()}


def test_an_export_that_fails_leaves_what_was_there(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes, out = cast(Votes(PAIRS, file), "ab"), tmp_path / "out.csv"
    before = votes.export(out).read_text()
    votes.vote("a")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        votes.export(out)
    assert out.read_text() == before and len(list(tmp_path.iterdir())) == 2


def test_agreement_is_a_share_and_kappa(tmp_path: Path) -> None:
    """Two voters, 50 pairs: both a 20, a/b 5, b/a 10, both b 15 gives kappa 0.4 (the textbook's table)."""
    pairs = [{"prompt": f"{i}", "a": f"x {i}", "b": f"y {i}"} for i in range(50)]
    turned = [{"prompt": p["prompt"], "a": p["b"], "b": p["a"]} for p in pairs]
    first, second = "a" * 25 + "b" * 25, "a" * 20 + "b" * 5 + "a" * 10 + "b" * 15
    cast(Votes(pairs, tmp_path / "ada.jsonl"), first)
    for shown, said in ((pairs, second), (turned, second.translate(str.maketrans("ab", "ba")))):
        (tmp_path / "ben.jsonl").unlink(missing_ok=True)
        cast(Votes(shown, tmp_path / "ben.jsonl"), said)
        found = Votes.merge([tmp_path / "ada.jsonl", tmp_path / "ben.jsonl"]).agreement()
        assert found["pairs"] == 50 and found["agree"] == pytest.approx(0.7)
        assert found["kappa"] == pytest.approx(0.4)


def test_agreement_that_is_not_known_is_none(three: list[Path], file: Path) -> None:
    assert Votes.merge(three).agreement() == {"pairs": 4, "agree": 0.5, "kappa": None}
    assert cast(Votes(PAIRS, file), "ab").agreement() == {"pairs": 0, "agree": None, "kappa": None}
    cast(Votes(PAIRS[:2], file, "Ben"), "aa")
    cast(Votes(PAIRS[2:4], file), "ss")
    found = Votes.read(file).agreement()
    assert found["pairs"] == 2 and found["agree"] == 0.5 and not math.isnan(found["kappa"])
    same = file.with_name("same.jsonl")
    for voter in ("Ada", "Ben"):
        cast(Votes(PAIRS, same, voter), "aaaaaa")
    assert Votes.read(same).agreement() == {"pairs": 6, "agree": 1.0, "kappa": None}


def test_voting_needs_neither_torch_nor_widgets() -> None:
    code = "import sys, llmlab.votes; print(any(name in sys.modules for name in ('torch', 'ipywidgets', 'sklearn')))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_a_run_learns_from_its_columns(file: Path) -> None:
    made = cast(Votes(PAIRS, file), "ababab").corpus(validation=0)
    with pytest.raises(ValueError, match="this data has prompt/chosen/rejected/preference"):
        Run(["clm"], made)


# -- the panel ---------------------------------------------------------------------------------------------------


@pytest.fixture
def panel(file: Path, monkeypatch: pytest.MonkeyPatch) -> Panel:
    monkeypatch.setattr(face, "SOON", 0.0)
    votes = Panel(PAIRS[:3], file)
    votes._repr_mimebundle_()
    return votes


def status(votes: Panel) -> str:
    return str(votes._status.value)


def test_buttons_vote_skip_and_undo(panel: Panel, file: Path) -> None:
    assert "question 0" in panel._prompt.value and "good 0" in panel._answers["a"].value
    assert "0 of 3" in status(panel) and 'role="status"' in status(panel) and panel._buttons["undo"].disabled
    panel._buttons["b"].click()
    assert "1 of 3" in status(panel) and "question 1" in panel._prompt.value
    panel._buttons["tie"].click()
    panel._buttons["undo"].click()
    panel._buttons["skip"].click()
    assert "2 of 3, 1 skipped" in status(panel)
    panel._buttons["a"].click()
    assert "Done: 3 of 3, 1 skipped. Every pair has a vote of yours." in status(panel).replace("</span>", "")
    assert [panel._buttons[name].disabled for name in ("a", "b", "tie", "skip", "undo")] == [True] * 4 + [False]
    assert panel._prompt.value == panel._answers["a"].value == ""
    assert [json.loads(line)["vote"] for line in file.read_text().splitlines()] == ["b", "tie", "undo", "skip", "a"]


def test_code_and_panel_show_the_same(panel: Panel) -> None:
    panel.vote("a")
    assert "1 of 3" in status(panel)
    panel.undo()
    assert "0 of 3" in status(panel) and panel._buttons["undo"].disabled


def test_what_comes_from_a_model_is_text(file: Path) -> None:
    votes = Panel([{"prompt": "<b>p</b>", "a": "<script>x</script>", "b": " "}], file)
    votes._repr_mimebundle_()
    shown = votes._prompt.value + votes._answers["a"].value + votes._answers["b"].value
    assert "<b>p" not in shown and "<script" not in shown and "&lt;script&gt;" in shown and "<i>nothing</i>" in shown


def test_a_double_click_is_one_vote(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face, "SOON", 60.0)
    panel._buttons["a"].click()
    panel._buttons["a"].click()
    assert panel.progress == "1 of 3"


def test_what_goes_wrong_in_a_click_is_one_line(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmlab.votes._append", lambda *_: (_ for _ in ()).throw(OSError("no space\nleft")))
    panel._buttons["a"].click()
    assert "Error: no space<" in status(panel) and panel.progress == "0 of 3", "what is not on the disk is no vote"


def test_its_text_is_constant_and_its_controls_have_names(panel: Panel) -> None:
    before = panel._repr_mimebundle_()["text/plain"]
    panel.vote("a")
    assert panel._repr_mimebundle_()["text/plain"] == before == panel._text()
    assert [b.description for b in panel._buttons.values()] == ["A is better", "B is better", "Tie", "Skip", "Undo"]
    assert all(b.tooltip for b in panel._buttons.values())
    assert isinstance(Panel.merge([panel.file]), Panel) and 'aria-label="Answer B"' in panel._answers["b"].value


def test_a_panel_without_pairs_says_so(file: Path) -> None:
    votes = Panel([], file)
    votes._repr_mimebundle_()
    assert "0 of 0. There is no pair to judge." in status(votes)

"""Human feedback: which of two answers people prefer, one line of a file a vote, as rows for a reward model.

    votes = Votes(pairs, file="votes.jsonl", voter="Ada")     # rows with prompt, a, b or prompt, chosen, rejected
    votes.vote("a"); votes.vote("tie"); votes.skip(); votes.undo()
    votes.rows()                                              # prompt, chosen, rejected, preference
    Votes.merge(["ada.jsonl", "ben.jsonl"]).agreement()

`llmlab.lab.Votes` is the same with buttons.

1. A vote is appended and on the disk before the next pair is asked; an undo is a line, too, so no line is ever changed.
2. A pair is told by its texts, not by its place: other pairs may share the file, and none is asked of a voter twice.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .data.split import position, split_by

if TYPE_CHECKING:
    from .data import Corpus

VOTES = ("a", "b", "tie", "skip")
UNDO = "undo"
COLUMNS = ("prompt", "chosen", "rejected", "preference")
Key = tuple[str, str, str]
V = TypeVar("V", bound="Votes")


@dataclass(frozen=True)
class Pair:
    """A prompt and two answers, in the order they are shown."""

    prompt: str
    a: str
    b: str

    @property
    def key(self) -> Key:
        """The same for both orders."""
        return (self.prompt, *sorted((self.a, self.b)))  # type: ignore[return-value]


@dataclass(frozen=True)
class Vote:
    """What one voter said of one pair: "a", "b", "tie" or "skip"; "undo" takes the last vote on it back."""

    prompt: str
    a: str
    b: str
    vote: str
    voter: str
    seconds: float = 0.0

    @property
    def pair(self) -> Pair:
        return Pair(self.prompt, self.a, self.b)

    @property
    def winner(self) -> str | None:
        """The answer that is better; None for neither."""
        return {"a": self.a, "b": self.b}.get(self.vote)


class Votes:
    """Asks for a vote on each of `pairs`, and keeps it in `file`; opened again, it goes on where it was.

    `pairs`: rows with `prompt`, `a` and `b`, shown as they are, or with `prompt`, `chosen` and `rejected`, shown in an
    order that `seed` draws for each. ValueError, one line, for a row or a file that is something else.
    """

    def __init__(
        self,
        pairs: Iterable[Mapping[str, Any]],
        file: str | Path | None = "votes.jsonl",
        voter: str = "you",
        seed: int = 0,
    ) -> None:
        self.voter, self.file = voter, None if file is None else Path(file)
        if not isinstance(voter, str) or not voter.strip():
            raise ValueError(f"voter = {voter!r}: give a name, such as voter='Ada'")
        if self.file is not None and self.file.is_dir():
            raise ValueError(f"{self.file} is a folder: name a file for the votes, such as {self.file / 'votes.jsonl'}")
        made = [_pair(row, i, seed) for i, row in enumerate(pairs)]
        self.pairs = list({pair.key: pair for pair in reversed(made) if pair.a != pair.b}.values())[::-1]
        self.alike = sum(pair.a == pair.b for pair in made)  # left out: there is nothing to choose
        self._said: dict[tuple[Key, str], Vote] = {}
        if self.file is not None and self.file.exists():
            self._keep(_read(self.file))
        self._shown = time.monotonic()

    @classmethod
    def read(cls: type[V], file: str | Path, voter: str = "you") -> V:
        """The votes in a file and the pairs they are on. FileNotFoundError or ValueError in one line."""
        return cls([asdict(vote.pair) for vote in _read(Path(file))], file, voter)

    @classmethod
    def merge(cls: type[V], files: Iterable[str | Path], voter: str = "you") -> V:
        """The votes of several people's files, in memory; a name that is in two of them is told apart by its file."""
        paths = list(
            dict.fromkeys(Path(file).resolve() for file in ([files] if isinstance(files, str | Path) else files))
        )
        if not paths:
            raise ValueError("there is no file to merge: name one or more")
        read = {path: _read(path) for path in paths}
        homes = Counter(voter for votes in read.values() for voter in {vote.voter for vote in votes})
        stems = Counter(path.stem for path in paths)
        named = []
        for path, votes in read.items():
            place = path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}"
            named += [replace(v, voter=f"{v.voter} ({place})" if homes[v.voter] > 1 else v.voter) for v in votes]
        merged = cls([asdict(vote.pair) for vote in named], None, voter)
        merged._keep(named)
        return merged

    # -- voting ------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Pair | None:
        """The pair that is asked now; None when this voter has judged them all."""
        return next((pair for pair in self.pairs if (pair.key, self.voter) not in self._said), None)

    def vote(self, vote: str) -> None:
        """Say of the current pair that "a" or "b" is better, or "tie"; ValueError when there is none left."""
        if vote not in VOTES:
            raise ValueError(f"a vote is one of {', '.join(VOTES)}, not {vote!r}")
        pair = self.current
        if pair is None:
            raise ValueError("every pair has a vote of yours: undo() takes the last one back")
        self._add(Vote(**asdict(pair), vote=vote, voter=self.voter, seconds=round(time.monotonic() - self._shown, 1)))

    def skip(self) -> None:
        """Say nothing of the current pair; it is not asked again."""
        self.vote("skip")

    def undo(self) -> None:
        """Take back the last vote of this voter on these pairs; ValueError if there is none."""
        if not self.undoable:
            raise ValueError(f"there is no vote of {self.voter} to take back")
        self._add(replace(self._mine()[-1], vote=UNDO, seconds=0.0))

    @property
    def undoable(self) -> bool:
        """Whether there is a vote of this voter to take back."""
        return bool(self._mine())

    def _mine(self) -> list[Vote]:
        """This voter's votes on these pairs, skips among them."""
        asked = {pair.key for pair in self.pairs}
        return [v for (key, voter), v in self._said.items() if voter == self.voter and key in asked]

    def _add(self, vote: Vote) -> None:
        if self.file is not None:
            _append(self.file, vote)
        self._keep([vote])
        self._shown = time.monotonic()

    def _keep(self, votes: Iterable[Vote]) -> None:
        """Votes in the order they were given; a later one of the same voter on the same pair counts."""
        for vote in votes:
            self._said.pop((vote.pair.key, vote.voter), None)
            if vote.vote != UNDO:
                self._said[vote.pair.key, vote.voter] = vote

    @property
    def progress(self) -> str:
        """Such as "3 of 40, 2 ties"."""
        mine = [vote.vote for vote in self._mine()]
        told = [f"{len(mine)} of {len(self.pairs)}"]
        told += [f"{n} tie{'s' * (n != 1)}" for n in [mine.count("tie")] if n]
        told += [f"{n} skipped" for n in [mine.count("skip")] if n]
        told += [f"{self.alike} with twice the same answer left out"] if self.alike else []
        return ", ".join(told)

    # -- what came of it ---------------------------------------------------------------------------------------

    @property
    def votes(self) -> list[Vote]:
        """Everybody's votes that count, skips left out, in the order they were given."""
        return [vote for vote in self._said.values() if vote.vote != "skip"]

    @property
    def voters(self) -> list[str]:
        return list(dict.fromkeys(vote.voter for vote in self.votes))

    def __len__(self) -> int:
        return len(self.votes)

    def __repr__(self) -> str:
        return f"Votes({len(self)} on {len(self._by_pair())} pairs by {', '.join(self.voters) or 'nobody yet'})"

    def _by_pair(self) -> dict[Key, list[Vote]]:
        found: dict[Key, list[Vote]] = {}
        for vote in self.votes:
            found.setdefault(vote.pair.key, []).append(vote)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """A row a pair: `chosen` is what more voters chose, `preference` their share; a tie is half a vote for each."""
        rows = []
        for votes in self._by_pair().values():
            pair = votes[0].pair
            share = sum(0.5 if v.winner is None else float(v.winner == pair.a) for v in votes) / len(votes)
            better, worse, share = (pair.a, pair.b, share) if share >= 0.5 else (pair.b, pair.a, 1 - share)
            rows.append(dict(zip(COLUMNS, (pair.prompt, better, worse, share), strict=True)))
        return rows

    def corpus(self, validation: float = 0.2, seed: int = 0) -> Corpus:
        """The rows as a corpus; a prompt is in one split alone. ValueError for fewer than two prompts."""
        from .data.memory import as_corpus

        if not 0 <= validation < 1:
            raise ValueError(f"validation = {validation!r}: must be a share, at least 0 and below 1")
        rows = self.rows()
        if not rows:
            raise ValueError("there is no vote yet: vote on a pair first")
        return as_corpus(split_by(rows, "prompt", seed, (1 - validation, validation, 0)))

    def export(self, file: str | Path) -> Path:
        """Write the rows to a .csv or .jsonl, whole or not at all; `corpus(file)` reads it."""
        path, rows = Path(file), self.rows()
        if path.suffix.lower() == ".jsonl":
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        elif path.suffix.lower() == ".csv":
            lines = io.StringIO(newline="")
            writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            content = lines.getvalue()
        else:
            raise ValueError(f"{path} is neither a .csv nor a .jsonl: choose one of these names")
        from .checkpoint import write_atomic  # it imports torch, which voting does not need

        write_atomic(path, content)
        return path

    def agreement(self) -> dict[str, float | int | None]:
        """`agree`: share of the `pairs` with several voters on which all say the same; `kappa`: Cohen's, of two voters.

        None where it is not known: without such pairs, of three or more voters, or if both always said one thing.
        """
        shared = [votes for votes in self._by_pair().values() if len(votes) > 1]
        alike = [len({vote.winner for vote in votes}) == 1 for votes in shared]
        found: dict[str, float | int | None] = {"pairs": len(shared), "agree": None, "kappa": None}
        if shared:
            found["agree"] = sum(alike) / len(alike)
        if shared and len(self.voters) == 2:
            from sklearn.metrics import cohen_kappa_score

            said = [{v.voter: _side(v, votes[0].pair) for v in votes} for votes in shared]
            first, second = ([both[who] for both in said] for who in self.voters)
            if len({*first, *second}) > 1:
                found["kappa"] = float(cohen_kappa_score(first, second))
        return found


def _side(vote: Vote, shown: Pair) -> str:
    """What was said, in the order of `shown`: two voters may have seen two orders."""
    return "tie" if vote.winner is None else "a" if vote.winner == shown.a else "b"


def _pair(row: Mapping[str, Any], i: int, seed: int) -> Pair:
    names = next((n for n in (("a", "b"), ("chosen", "rejected")) if isinstance(row, Mapping) and {*n} <= {*row}), None)
    if names is None or "prompt" not in row:
        has = f"it has {', '.join(map(str, row)) or 'nothing'}" if isinstance(row, Mapping) else f"it is {row!r}"
        raise ValueError(f"pair {i} needs prompt, a, b or prompt, chosen, rejected: {has}")
    texts = [row["prompt"], *(row[name] for name in names)]
    if bad := [text for text in texts if not isinstance(text, str)]:
        raise ValueError(f"pair {i} holds {bad[0]!r}, which is no text")
    prompt, first, second = texts
    if names[0] == "chosen":  # the draw knows the texts alone, not which is better
        ordered = sorted(texts[1:])
        first, second = ordered if position("\0".join((prompt, *ordered)), seed) < 0.5 else ordered[::-1]
    return Pair(prompt, first, second)


# -- the file ----------------------------------------------------------------------------------------------------


def _read(path: Path) -> list[Vote]:
    """The lines of a file, undos among them. A last line that was cut off while it was written is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}: Votes(pairs, file=...) writes one") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    votes = []
    for number, line in enumerate(content.split(b"\n"), 1):
        last = number == content.count(b"\n") + 1
        if line.strip():
            try:
                votes.append(_parsed(line))
            except ValueError as error:
                if last and isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
                    break
                raise ValueError(f"{path}, line {number}: {error}") from error
    return votes


def _parsed(line: bytes) -> Vote:
    row = json.loads(line.decode())
    if not isinstance(row, dict):
        raise ValueError(f"it is {row!r}, not a vote")
    for name in ("prompt", "a", "b", "vote", "voter"):
        if not isinstance(row.get(name), str):
            raise ValueError(f"{name} is {row[name]!r}, not text" if name in row else f"it lacks {name!r}")
    if row["vote"] not in (*VOTES, UNDO):
        raise ValueError(f"vote is {row['vote']!r}, not one of {', '.join((*VOTES, UNDO))}")
    seconds = row.get("seconds", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(f"seconds is {seconds!r}, not a number")
    return Vote(row["prompt"], row["a"], row["b"], row["vote"], row["voter"], seconds)


def _append(path: Path, vote: Vote) -> None:
    """Write one line, and return when the disk has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        tail = file.read().rpartition(b"\n")[2]
        start = b""
        if tail:  # cut off while it was written, or by an editor that ends no last line
            try:
                _parsed(tail)
                start = b"\n"
            except ValueError:
                file.truncate(file.tell() - len(tail))
        file.write(start + json.dumps(asdict(vote), ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


__all__: Sequence[str] = ("Pair", "Vote", "Votes")

"""Run pip and show one moving line for its hundred: what it is doing and for how long.

`python tools/pip_progress.py install …`. Where the output is no terminal, a line every ten seconds. If pip
fails, its last lines are shown and its exit status is passed on.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import deque

NOTEWORTHY = re.compile(r"^\s*(Collecting|Downloading|Building|Preparing|Installing)\b.*")
TERMINAL = sys.stdout.isatty()


def shorten(line: str, width: int = 64) -> str:
    """What pip says, without the version ranges and the list of a hundred packages behind it."""
    line = line.strip()
    if line.startswith("Installing collected packages"):
        return f"Installing {line.count(',') + 1} packages"
    if line.startswith("Collecting"):
        line = "Collecting " + re.split(r"[<>=!~ (\[;]", line.removeprefix("Collecting ").strip())[0]
    if wheel := re.match(r"Downloading (?:\S*/)?([^-\s]+)-([^-\s]+)\S*( \(.*\))?", line):
        line = f"Downloading {wheel[1]} {wheel[2]}{wheel[3] or ''}"
    line = line.partition(": ")[0]  # "…: started", "…: finished with status 'done'"
    return line if len(line) <= width else line[: width - 1] + "…"


def main(arguments: list[str]) -> int:
    """Run `pip *arguments`; return its exit status."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        *arguments,
        "--progress-bar",
        "off",
    ]
    start, doing, last = time.monotonic(), "Starting pip", deque[str](maxlen=25)
    pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")

    def show(end: str) -> None:
        print(
            f"\r\033[K    {time.monotonic() - start:4.0f} s  {doing}"
            if TERMINAL
            else f"    {time.monotonic() - start:4.0f} s  {doing}",
            end=end,
            flush=True,
        )

    done = threading.Event()

    def tick() -> None:
        # Its own thread, because pip may say nothing for a minute while a large file arrives.
        while not done.wait(0.2 if TERMINAL else 10):
            show("" if TERMINAL else "\n")

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    assert pip.stdout is not None
    for line in pip.stdout:
        last.append(line.rstrip())
        if NOTEWORTHY.match(line):
            doing = shorten(line)
    status = pip.wait()
    done.set()
    ticker.join()
    doing = "Installed" if status == 0 else "pip failed; its last lines:"
    show("\n")
    if status:
        print("\n".join(last), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

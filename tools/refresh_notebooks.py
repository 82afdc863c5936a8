"""Run notebooks from top to bottom and store their outputs, so that a second run changes no byte.

`make refresh`, or `python tools/refresh_notebooks.py [NOTEBOOK …]` (default: all of course/). `--check`
writes nothing and exits with 1 if a file would change: for one machine, as numbers differ between processors.
`--time` (`make time`) writes nothing either: it runs each lesson three times on two threads, prints the median of what
its own cells took, without the kernel's start, and exits with 1 if that is more than a lesson may take.
What differs from run to run is not stored: times, the state of widgets and the random names of their views.
A panel then shows its text where no kernel runs, rather than "model not found".
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

COURSE = Path(__file__).resolve().parents[1] / "course"
KERNELSPEC = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
CELL_TIME = 150  # seconds after which a cell's reply counts as lost
MOST = 20  # seconds that the cells of a lesson may take
SAYS = re.compile(r"\bcells\b[^.]*?\b(\d+) seconds", re.S)  # the time that a lesson's first cell tells
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def clean(notebook: Any) -> None:
    """Drop, in place, what differs from run to run or from machine to machine."""
    notebook.metadata = {"kernelspec": dict(KERNELSPEC), "language_info": {"name": "python"}}
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)


def execute(path: Path) -> Any:
    """The notebook at `path` after a run, which is not stored. A failing cell raises CellExecutionError.

    Now and then a kernel's reply is lost, and the kernel waits as its client does: then there is a second try.
    """
    import nbformat
    from nbclient.exceptions import CellTimeoutError

    notebook = nbformat.read(path, as_version=4)
    try:
        run(notebook, path.parent, CELL_TIME)
    except CellTimeoutError:
        notebook = nbformat.read(path, as_version=4)
        run(notebook, path.parent)
    return notebook


def run(notebook: Any, folder: Path, timeout: int = 600) -> None:
    """Run a notebook's cells, in place, as if it stood in `folder`."""
    from nbclient import NotebookClient

    # store_widget_state stays on: without it nbclient fails at an Output widget. clean() drops the state.
    NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name=KERNELSPEC["name"],
        coalesce_streams=True,  # where a stream is cut depends on timing
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns that a local kernel is not encrypted
        resources={"metadata": {"path": str(folder)}},
    ).execute()


def refresh(path: Path) -> str:
    """The text of the notebook at `path` after a run."""
    import nbformat

    notebook = execute(path)
    clean(notebook)
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def seconds(notebook: Any) -> float:
    """What the code cells of a notebook took in its last run, as its kernel tells."""
    total = 0.0
    for cell in notebook.cells:
        if times := cell.metadata.get("execution"):
            busy, idle = (datetime.fromisoformat(times[f"iopub.status.{state}"]) for state in ("busy", "idle"))
            total += (idle - busy).total_seconds()
    return total


def time_lessons(paths: list[Path], runs: int = 3) -> int:
    """Print what each lesson's cells take, and what it says; 1 if one takes too long or fails."""
    bad = 0
    for path in paths:
        print(f"{path.stem:24} ", end="", flush=True)
        try:
            notebooks = [execute(path) for _ in range(runs)]
        except Exception as error:
            print(f"failed\n{error}")
            bad += 1
            continue
        took = statistics.median(map(seconds, notebooks))
        told = SAYS.search(notebooks[0].cells[0].source)
        slow = took > MOST
        bad += slow
        print(f"{took:5.1f} s   it says {told[1] + ' s' if told else 'nothing'}", end="")
        print(f"   too long: at most {MOST} s" if slow else "")
    return int(bad > 0)


def main(arguments: list[str] | None = None) -> int:
    """Refresh the notebooks named; 1 if one failed or, with --check, would change."""
    parser = argparse.ArgumentParser(description="Run notebooks and store their outputs.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every notebook in course/")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    parser.add_argument("--time", action="store_true", help="write nothing; print what the cells of each lesson take")
    options = parser.parse_args(arguments)
    # As in `make test`, so that both see the same numbers on any count of cores; kernels inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "2" if options.time else "1")
    os.environ.pop("MPLBACKEND", None)  # any value here would take the pictures out of the notebooks
    every = [path for path in sorted(COURSE.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    if options.time:
        return time_lessons(options.notebooks or every)

    bad = 0
    for path in options.notebooks or every:
        start, before = time.monotonic(), path.read_text(encoding="utf-8")
        print(f"{path.name} … ", end="", flush=True)
        try:
            after = refresh(path)
        except Exception as error:
            print(f"failed\n{error}")
            bad += 1
            continue
        changed = after != before
        if changed and not options.check:
            path.write_text(after, encoding="utf-8", newline="\n")
        bad += changed and options.check
        print(f"{'changed' if changed else 'same'}, {time.monotonic() - start:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())

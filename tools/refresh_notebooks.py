"""Run notebooks from top to bottom and store their outputs, so that a second run changes no byte.

`make refresh`, or `python tools/refresh_notebooks.py [NOTEBOOK …]` (default: all of course/). `--check`
writes nothing and exits with 1 if a file would change: for one machine, as numbers differ between processors.
What differs from run to run is not stored: times, the state of widgets and the random names of their views.
A panel then shows its text where no kernel runs, rather than "model not found".
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

COURSE = Path(__file__).resolve().parents[1] / "course"
KERNELSPEC = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def clean(notebook: Any) -> None:
    """Drop, in place, what differs from run to run or from machine to machine."""
    notebook.metadata = {"kernelspec": dict(KERNELSPEC), "language_info": {"name": "python"}}
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)


def refresh(path: Path, timeout: int = 600) -> str:
    """The text of the notebook at `path` after a run. A failing cell raises CellExecutionError."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    # store_widget_state stays on: without it nbclient fails at an Output widget. clean() drops the state.
    NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name=KERNELSPEC["name"],
        record_timing=False,
        coalesce_streams=True,  # where a stream is cut depends on timing
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns that a local kernel is not encrypted
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    clean(notebook)
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Refresh the notebooks named; 1 if one failed or, with --check, would change."""
    parser = argparse.ArgumentParser(description="Run notebooks and store their outputs.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every notebook in course/")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    options = parser.parse_args(arguments)
    # As in `make test`, so that both see the same numbers on any count of cores; kernels inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("MPLBACKEND", None)  # any value here would take the pictures out of the notebooks

    bad = 0
    for path in options.notebooks or sorted(COURSE.rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
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

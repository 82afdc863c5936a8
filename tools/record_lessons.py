"""Record the longer run that each lesson offers for replay: `python tools/record_lessons.py [LESSON …]`, default all.

A lesson's cells run as far as its panel, then the choices below, and what was seen goes to course/recordings/.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from refresh_notebooks import COURSE, run

# lesson -> what is chosen in its panel
LONGER = {
    "01_start_here": 'lab.choose("clm").set(data="stories", start="scratch", steps=300, evaluate_every=30)',
    "21_clm": 'lab.choose("clm", window=128).set(data="stories", start="scratch", steps=500, evaluate_every=50)',
    "22_mlm": 'lab.choose("mlm", window=128).set(data="stories", start="scratch", steps=400, evaluate_every=40)',
    "23_seq2seq": 'lab.choose("seq2seq").set(data="dates into French", start="tiny-t5", steps=400, evaluate_every=40)',
    "31_sft": 'lab.choose("sft").set(data="dates into French", start="tiny-gpt", steps=400, evaluate_every=40)',
    "32_distillation": 'lab.choose("distillation").set(data="2,000 texts", steps=300, evaluate_every=30)',
    "41_adapters": 'lab.choose("adapters", size=64)'
    '.set(data="dates into French", start="tiny-gpt", steps=600, evaluate_every=50)',
    "42_lora": 'lab.choose("lora", rank=16, targets="query, kv.key, kv.value, out, up, down")'
    '.set(data="dates into French", start="tiny-gpt", steps=600, evaluate_every=50)',
    "43_prefix": 'lab.choose("prefix").set(data="dates into French", start="tiny-gpt", steps=600, evaluate_every=50)',
    "44_bitfit": 'lab.choose("bitfit").set(data="dates into French", start="tiny-gpt", steps=300, evaluate_every=30)',
    "45_compare": 'lab.choose("adapters")'
    '.set(data="dates into French", start="tiny-gpt", steps=600, evaluate_every=50)',
    "46_ia3": 'lab.choose("ia3").set(data="dates into French", start="tiny-gpt", steps=300, evaluate_every=30)',
    "51_reward": 'lab.choose("reward", measured=32).set(data="all prompts", steps=160, evaluate_every=20)',
    "52_ppo": 'lab.choose("ppo", beta=0.0).set(data="requests", start="helpful", steps=160, evaluate_every=20)',
    "53_rlhf": 'lab.choose("ppo", beta=0.1).set(data="requests", steps=100, evaluate_every=20)',
    "54_constitution": 'lab.choose("sft", answers=0)'
    '.set(data="requests without answers", start="helpful model", steps=120, evaluate_every=20)',
    "55_responsible_use": 'lab.choose("swap", train=True)'
    '.set(data="skewed town", start="tiny-gpt", steps=200, evaluate_every=20)',
    "56_dpo": 'lab.choose("dpo").set(data="few pairs", steps=80, learning_rate=5e-3, evaluate_every=10)',
    "57_grpo": 'lab.choose("grpo").set(data="two opinions", start="tiny-gpt", steps=160, evaluate_every=20)',
}


def record(lesson: str, choices: str) -> Path:
    """Run it and write the recording."""
    import nbformat

    notebook: Any = nbformat.read(COURSE / f"{lesson}.ipynb", as_version=4)
    panel = next(
        i for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source.strip().endswith("\nlab")
    )
    target = Path("recordings") / f"{lesson}.json"
    last = f'{choices}\nlab.run()\nprint(lab.status, lab.share("{target.as_posix()}"))'
    notebook.cells = [*notebook.cells[: panel + 1], nbformat.v4.new_code_cell(last)]
    (COURSE / target).parent.mkdir(exist_ok=True)
    run(notebook, COURSE)
    print("".join(o.get("text", "") for o in notebook.cells[-1].outputs).strip(), flush=True)
    return COURSE / target


def main() -> int:
    """Record the lessons named."""
    parser = argparse.ArgumentParser(description="Record the longer run of each lesson.")
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help=f"of {', '.join(LONGER)}; default: all")
    chosen = parser.parse_args().lessons or list(LONGER)
    if unknown := [lesson for lesson in chosen if lesson not in LONGER]:
        parser.error(f"no recipe for {unknown[0]}: there are {', '.join(LONGER)}")
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    for lesson in chosen:
        record(lesson, LONGER[lesson])
    return 0


if __name__ == "__main__":
    sys.exit(main())

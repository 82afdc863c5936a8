"""Nothing is imported that is not used, and the kernel knows no technique."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import llmlab
from llmlab.catalogue import techniques

ROOT = Path(llmlab.__file__).parent
HEAVY = ["torch", "sklearn", "sacrebleu", "rouge_score", "pyarrow", "matplotlib", "ipywidgets", "transformers", "babel"]


def loaded(code: str) -> set[str]:
    """Which heavy packages a fresh Python has loaded after `code`."""
    script = f"{code}\nimport sys; print('loaded', *[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_importing_the_kit_costs_nothing():
    assert loaded("import llmlab, llmlab.cli, llmlab.data; llmlab.corpus('python-reference')") == set()


def test_training_loads_torch_alone():
    code = """
from llmlab import ModelConfig, Run, Training
rows = [{"text": f"{i} is a number"} for i in range(30)]
config = ModelConfig(vocab_size=330, width=8, heads=1, layers=1, context=16)
Run([{"clm": {"window": 8}}, "lora"], rows, config=config, training=Training(steps=1)).fit()
"""
    assert loaded(code) == {"torch"}


def test_only_the_notebook_face_imports_widgets_and_pictures():
    for path in ROOT.rglob("*.py"):
        if "lab" not in path.relative_to(ROOT).parts:
            assert not re.search(r"^\s*(import|from) (ipywidgets|matplotlib)", path.read_text(), re.M), path


def test_the_kernel_names_no_technique():
    """No file of the kernel imports the plugins or is named after one, and no technique imports another."""
    names = {entry.name for entry in techniques().values() if entry.source == "shipped"}
    for path in ROOT.rglob("*.py"):
        if path.is_relative_to(ROOT / "templates"):
            continue  # these become techniques
        text = path.read_text()
        code = re.sub(r'""".*?"""', "", text, flags=re.S)
        assert not re.search(r"^\s*(import|from) llmlab_plugins", code, re.M), path
        assert path.stem not in names or "exercises" in path.parts  # one file a lesson, named after it
    for path in (ROOT.parent / "plugins/llmlab_plugins").glob("*.py"):
        assert not re.search(r"(from|import) (llmlab_plugins|\.)", path.read_text()), path


def test_no_file_of_the_kernel_is_long():
    for path in [*ROOT.rglob("*.py"), *(ROOT.parent / "plugins").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path


def test_the_public_names_are_there():
    for name in llmlab.__all__:
        assert getattr(llmlab, name) is not None, name

"""`llmlab new`: a working technique, its lesson, its exercises and its test, from files that are themselves tested."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
KINDS = ("objective", "adaptation", "extra")
FIRST = {"objective": 24, "adaptation": 46, "extra": 56}  # where lessons of a kind begin to be numbered
FENCE = re.compile(r"^```python *(.*?)\n(.*?)^```\n", re.M | re.S)
FRAGMENTS: dict[str, dict[str, str]] = {  # what differs between lessons about the three kinds
    "objective": {
        "together": "[Template()]",
        "lab": 'objectives=[Template, "sft"]',
        "shown": "Template.compute_loss",
        "equation": r"$$L = -\frac{1}{T} \sum_t (1 - p_t)^\gamma \log p_t$$",
        "exercise_1": "What is the focal loss of one token with $p = 0.9$ and $\\gamma = 2$?",
        "exercise_2": "Which $\\gamma$ makes it the ordinary cross-entropy?",
        "exercise_3": "Write `focal(logp, gamma)`: log-probabilities `(T,)` to the loss of each token `(T,)`.",
        "reference": "- T.-Y. Lin and others, *Focal Loss for Dense Object Detection*, 2017, "
        "[arXiv 1708.02002](https://arxiv.org/abs/1708.02002)",
    },
    "adaptation": {
        "together": "[SFT(), Template()]",
        "lab": 'objectives=["sft"], adaptations=[Template, "lora"]',
        "shown": "TemplateLinear.forward",
        "equation": r"$$y = \gamma \odot (W x + b) + \beta$$",
        "exercise_1": "How many numbers train beside a layer of 128 inputs and 512 outputs?",
        "exercise_2": "With which value does $\\gamma$ start?",
        "exercise_3": "Write `merged(W, gamma)`: the matrix `(d_out, d_in)` that does what `W` and the scale did.",
        "reference": "- D. Lian and others, *Scaling & Shifting Your Features: A New Baseline for Efficient Model "
        "Tuning*, 2022, [arXiv 2210.08823](https://arxiv.org/abs/2210.08823)",
    },
    "extra": {
        "together": "[SFT(), Template()]",
        "lab": 'objectives=["sft"], adaptations=[], extras=[Template]',
        "shown": "Template.after_step",
        "equation": r"$$\theta \leftarrow \theta - \lambda (\theta - \theta^0)$$",
        "exercise_1": "A number was 1 at the start and is 3. What is it after one pull with $\\lambda = 0.1$?",
        "exercise_2": "With which $\\lambda$ is nothing learnt?",
        "exercise_3": "Write `pull(theta, start, strength)`, all but the last of shape `(N,)`.",
        "reference": "- X. Li, Y. Grandvalet and F. Davoine, *Explicit Inductive Bias for Transfer Learning with "
        "Convolutional Networks*, 2018, [arXiv 1802.01483](https://arxiv.org/abs/1802.01483)",
    },
}


@dataclass(frozen=True)
class Names:
    """How a technique is called: the class, and in lower case the technique, its file and its lesson."""

    cls: str

    @property
    def name(self) -> str:
        return self.cls.lower()

    def put_into(self, text: str) -> str:
        """The text of a template with this name."""
        return re.sub(r"Template(?=\W|Linear|$)", self.cls, text).replace("template", self.name)


def names_of(asked: str) -> Names:
    """`WeightNoise`, or `gain` for a class Gain. ValueError if it is no name, or taken."""
    from .catalogue import techniques

    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", asked) or keyword.iskeyword(asked.lower()):
        raise ValueError(f"{asked!r} is no name for a technique: letters and digits, such as WeightNoise or gain")
    names = Names(asked if asked[0].isupper() else asked.capitalize())
    taken = techniques().get(names.name)
    if taken is not None or names.name == "template":
        raise ValueError(
            f"the name {names.name} is taken by {taken.source if taken else 'the template'}: choose another"
        )
    return names


def clone(folder: Path) -> Path | None:
    """The clone of this kit that `folder` is in, if it is in one."""
    for root in (folder, *folder.parents):
        if (root / "plugins/llmlab_plugins").is_dir() and (root / "llmlab/hookspecs.py").is_file():
            return root
    return None


def create(asked: str, kind: str, folder: Path | None = None) -> list[Path]:
    """Write the files of a new technique and return their paths, the plugin first.

    In a clone of the kit each goes to its place; with `folder`, or elsewhere, all go to one folder, which
    LLMLAB_PLUGINS may then name. ValueError or FileExistsError, and nothing is written, if a name or a file is taken.
    """
    if kind not in KINDS:
        raise ValueError(f"a technique is an objective, an adaptation or an extra, not {kind!r}")
    names = names_of(asked)
    root = clone(Path.cwd()) if folder is None else None
    files = _in_the_kit(names, kind, root) if root else _in_a_folder(names, kind, folder or Path.cwd())
    if there := [path for path in files if path.exists()]:
        raise FileExistsError(f"{there[0]} is there already: choose another name, or move it away")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def _in_the_kit(names: Names, kind: str, root: Path) -> dict[Path, str]:
    name = names.name
    taken = {path.name[:2] for path in (root / "course").glob("[0-9][0-9]_*.ipynb")}
    number = next(n for n in range(FIRST[kind], 100) if f"{n:02}" not in taken)
    return {
        root / f"plugins/llmlab_plugins/{name}.py": _template(names, f"{kind}.py"),
        root / f"course/{number:02}_{name}.ipynb": _lesson(names, kind, f"llmlab_plugins.{name}"),
        root / f"llmlab/lab/exercises/{name}.py": _template(names, f"exercises/{kind}.py"),
        root / f"tests/course/answers/{name}.py": _template(names, f"answers/{kind}.py"),
        root / f"tests/plugins/test_{name}.py": _template(names, "test.py"),
    }


def _in_a_folder(names: Names, kind: str, folder: Path) -> dict[Path, str]:
    """A file that begins with an underscore is no technique to the catalogue."""
    name = names.name
    return {
        folder / f"{name}.py": _template(names, f"{kind}.py"),
        folder / f"{name}.ipynb": _lesson(names, kind, name, f"import _{name}_exercises  # noqa: F401\n"),
        folder / f"_{name}_exercises.py": _template(names, f"exercises/{kind}.py"),
        folder / f"test_{name}.py": _template(names, "test.py").replace("llmlab_plugins.", ""),
    }


def _template(names: Names, file: str) -> str:
    return names.put_into((TEMPLATES / file).read_text(encoding="utf-8"))


def _lesson(names: Names, kind: str, module: str, more: str = "") -> str:
    """The lesson as a notebook: a fenced block is a cell of code, with its tags; a heading begins another of text."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    sft = "" if kind == "objective" else "from llmlab_plugins.sft import SFT\n"
    imports = "".join(sorted([*f"from {module} import Template\n".splitlines(True), *sft.splitlines(True)]))
    text = (TEMPLATES / "lesson.md").read_text(encoding="utf-8")
    for key, value in (FRAGMENTS[kind] | {"imports": (more + imports).strip()}).items():
        text = text.replace("{{" + key + "}}", value)
    if module == names.name:  # there is no lesson beside it to point to
        text = text.replace("[Start here](01_start_here.ipynb)", "The lesson *Start here*")
    text = names.put_into(text)
    cells: list[Any] = []
    pieces = FENCE.split(text)
    for i in range(0, len(pieces), 3):
        cells += [
            new_markdown_cell(part.strip()) for part in re.split(r"^(?=#+ )", pieces[i], flags=re.M) if part.strip()
        ]
        if i + 2 < len(pieces):
            tags = pieces[i + 1].split()
            cells.append(new_code_cell(pieces[i + 2].rstrip("\n"), metadata={"tags": tags} if tags else {}))
    for i, cell in enumerate(cells):
        cell.id = f"{names.name}-{i:02d}"
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    made = new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    written: str = nbformat.writes(made)
    return written + "\n"

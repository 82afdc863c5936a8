"""The `llmlab` command: list, run, generate, chat, lab, new, check. Errors are one line (LLMLAB_DEBUG=1: in full)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import authoring

if TYPE_CHECKING:
    from .run import Run

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, help="Train small language models."
)

Model = Annotated[str, typer.Argument(help="A bundled model's name, a run folder, or a patch.")]


@app.command("list")
def list_() -> None:
    """Show the techniques, corpora and models there are, and where each comes from."""
    from rich.console import Console
    from rich.table import Table

    from .catalogue import techniques
    from .data import corpora
    from .pretrained import bundled

    wide = Console(width=None if sys.stdout.isatty() else 150)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a broken technique is listed with its error
        entries = techniques()
    table = Table("technique", "kind", "what it does", "from", box=None, title_justify="left")
    for entry in entries.values():
        summary = f"could not be loaded: {entry.error}" if entry.error else entry.summary
        table.add_row(entry.name, "broken" if entry.error else entry.needs.kind, summary, entry.source)
    data = Table("corpus", "what it holds", "columns", "licence", box=None)
    for source in corpora():
        data.add_row(source.name, source.about, ", ".join(source.columns), source.licence)
    wide.print(table, "", data, "", f"models: {', '.join(bundled()) or 'none bundled'}")


@app.command()
def run(
    techniques: Annotated[list[str], typer.Argument(help="Techniques, such as `sft lora`; or one run.json to repeat.")],
    data: Annotated[str, typer.Option(help="A corpus (see `llmlab list`) or your own file.")] = "python-reference",
    model: Annotated[
        str | None, typer.Option(help="Start from a bundled model, a run folder, a patch, or `scratch`.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per batch.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr", help="Peak learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any knob: lora.rank=4, training.clip=0.5.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<techniques>-<number>.")] = None,
    patch: Annotated[Path | None, typer.Option(help="Also write what differs from the start to this file.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run folder given instead of techniques.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Train a model and write a run folder."""
    from .run import Run
    from .runfolder import repeat

    first = Path(techniques[0])
    if resume:
        made = Run.load(first)
        out = first
        if made.steps >= made.training.steps and steps is None:
            raise ValueError(f"{first} has had all of its {made.steps} steps: add --steps N to train it further")
    elif len(techniques) == 1 and (first.suffix == ".json" or first.is_dir()):
        made = repeat(first)
    else:
        given = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
        made = _new_run(techniques, data, model, given, seed, set_ or [])
    if patch is not None and not made.source:
        raise ValueError("--patch writes what differs from the start, and this run starts from scratch: --model NAME")
    made.folder = out or _free_folder(made)
    if not resume and (made.folder / "checkpoint.safetensors").exists():
        raise ValueError(f"{made.folder} holds a run already: choose another --out, or go on with --resume")
    made.save(made.folder)  # a folder that cannot be written is found now, not after the training
    from .progress import Bar, Lines

    show: Any = False if quiet else Bar() if sys.stdout.isatty() else Lines()
    try:
        made.fit(steps if resume else None, progress=show)
    finally:
        made.save(made.folder)
    if patch is not None:
        made.save_patch(patch)
    _report(made)
    if made.stopped == "interrupted":
        raise typer.Exit(130)


def _new_run(
    names: list[str], data: str, model: str | None, given: dict[str, Any], seed: int, settings: list[str]
) -> Run:
    from .catalogue import find
    from .pretrained import bundled, load_model
    from .run import Run
    from .technique import needs_of
    from .training import Training

    knobs = authoring.settings_of([*names, "training"], settings)
    made = [find(name)(**knobs[name.lower()]) for name in names]
    training = Training(**{k: v for k, v in given.items() if v is not None} | knobs["training"])
    wants_base = any(needs_of(t).base for t in made)
    if model is None and wants_base and "tiny-gpt" in bundled():
        model = "tiny-gpt"
        print("starting from tiny-gpt; another start: --model NAME, or --model scratch")
    start = None if model in (None, "scratch") else load_model(model)
    return Run(made, data, model=start, training=training, seed=seed)


def _free_folder(made: Run) -> Path:
    from .technique import needs_of

    name = "-".join(needs_of(t).name for t in made.techniques)
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder


def _report(made: Run) -> None:
    losses = [e["loss"] for e in made.evaluations if "loss" in e]
    if losses:
        print(f"validation loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    print(f'saved in {made.folder}; try: llmlab generate {made.folder} "..."')


MaxNew = Annotated[int, typer.Option(help="Most tokens to write.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy; 1 samples from the model's own probabilities.")]
TopK = Annotated[int, typer.Option(help="Sample from the k likeliest tokens; 0 is all.")]
TopP = Annotated[float, typer.Option(help="Sample from the fewest tokens that hold this probability.")]
Seed = Annotated[int, typer.Option(help="Seed of the sampling.")]


@app.command()
def generate(
    model: Model,
    prompt: Annotated[
        str, typer.Argument(help="The text to continue, or with blanks (___) to fill; \\n is a new line.")
    ],
    max_new_tokens: MaxNew = 64,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
) -> None:
    """Continue a text; with an encoder, fill its blanks (___); with an encoder-decoder, answer it."""
    from .fill import fill
    from .pretrained import load_model

    loaded, text = load_model(model), prompt.replace("\\n", "\n")
    if loaded.config.family != "encoder":
        answer = _answerer(loaded, max_new_tokens, temperature, top_k, top_p, seed)(text)
        print(answer.strip() if loaded.config.family == "encoder-decoder" else text + answer)
        return
    for i, guesses in enumerate(fill(loaded, [text])[0], 1):
        print(f"blank {i}: " + ", ".join(f"{guess.text} {guess.probability:.0%}" for guess in guesses))


@app.command()
def chat(
    model: Model,
    template: Annotated[str, typer.Option(help="How a line becomes a prompt.")] = "{prompt}",
    max_new_tokens: MaxNew = 64,
    temperature: Temperature = 0.7,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    seed: Seed = 0,
) -> None:
    """Answer line by line; each line is a new prompt. An empty line or Ctrl-D ends it."""
    if "{prompt}" not in template:
        raise ValueError("--template must hold {prompt}, where the line goes")
    from .pretrained import load_model

    loaded = load_model(model)
    if loaded.config.family == "encoder":
        raise ValueError(f'{model} is an encoder and cannot chat: llmlab generate {model} "… ___ …" fills blanks')
    answer = _answerer(loaded, max_new_tokens, temperature, top_k, top_p, seed)
    print("Type a prompt; an empty line ends the chat.")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not line.strip():
            return
        try:
            print(answer(template.replace("\\n", "\n").replace("{prompt}", line)).strip(), flush=True)
        except ValueError as error:  # a line too long for the context ends nothing
            print(f"llmlab: {error}", file=sys.stderr)


def _answerer(model: Any, max_new_tokens: int, temperature: float, top_k: int, top_p: float, seed: int) -> Any:
    from .generate import respond

    settings = dict(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    return lambda prompt: respond(model, [prompt], **settings).text[0]


@app.command()
def lab(
    folder: Annotated[Path, typer.Argument(help="Where your own copy of the lessons goes.")] = Path("lessons"),
    browser: Annotated[bool, typer.Option(help="Open the browser.")] = True,
) -> None:
    """Copy the lessons that are not in FOLDER yet and open them in JupyterLab, reachable from this machine alone."""
    copied = copy_lessons(folder)
    print(f"{copied} lesson files copied to {folder}; what you had changed there is as you left it", flush=True)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.resolve()}", "--ip=127.0.0.1"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    if not browser:
        command.append("--no-browser")
    try:
        raise typer.Exit(subprocess.call(command))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


app.command()(authoring.new)
app.command()(authoring.check)


def copy_lessons(folder: Path) -> int:
    """Copy the course into `folder` without touching a file that is there; return how many files were copied."""
    here = Path(__file__).parent
    course = next((c for c in (here / "course", here.parent / "course") if c.is_dir()), None)
    if course is None:
        raise FileNotFoundError("the lessons are missing from this installation: install llmlab again")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: name a folder for the lessons")
    copied = 0
    for source in sorted(course.rglob("*")):
        target = folder / source.relative_to(course)
        if source.is_file() and ".ipynb_checkpoints" not in source.parts and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            copied += 1
    return copied


def main(arguments: list[str] | None = None) -> None:
    """Run the command and turn every error into one line and an exit status: 2 for wrong use, 1 for the rest."""
    warnings.showwarning = lambda message, *_: print(f"llmlab: {message}", file=sys.stderr)
    try:
        status = app(arguments, prog_name="llmlab", standalone_mode=False)
        sys.exit(status or 0)
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped", 130)
    except Exception as error:
        if os.environ.get("LLMLAB_DEBUG"):
            raise
        if hasattr(error, "format_message"):  # typer: the command itself was written wrongly
            _fail(_usage(error), 2)
        _fail("; ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", [])]), 1)


def _usage(error: Any) -> str:
    """A wrong command as one line: what is wrong with it, and where help is."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return "give a command: list, run, generate, chat, lab, new or check; see llmlab --help"
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "llmlab"
    return f"{error.format_message().rstrip('.')}; see {command} --help"


def _fail(message: str, status: int) -> None:
    print(f"llmlab: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()

"""Drives JupyterLab, Notebook 7 and Voilà in Chromium: a server on loopback over a copy of the course, a page a lesson.

def test_a_lesson(lab: Jupyter) -> None:
    lesson = lab.open("01_start_here.ipynb")
    assert lesson.run_all() == []               # errors, "cell 3: NameError: …"
    panel = lesson.panel("llmlab-lab")
    panel.button("Run").click()
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
VIEWPORT = {"width": 1280, "height": 900}
TALL = 2400
PANEL = "llmlab-lab:not(.llmlab-votes)"  # a panel that trains
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
# windowing takes cells that are out of sight off the page; news and updates would cover the buttons
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}
PAGES = {"jupyterlab": "lab/tree", "notebook": "notebooks", "voila": "voila/render"}
IDLE = """() => {
    const widget = window.jupyterapp && window.jupyterapp.shell.currentWidget;
    const kernel = widget && widget.sessionContext && widget.sessionContext.session
        && widget.sessionContext.session.kernel;
    return kernel && kernel.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
OUTPUTS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')
    .map(c => [c.model.executionCount, c.model.outputs.toJSON()])"""


class Panel:
    """One panel on the page, by its CSS class; of several, the one called for by number."""

    def __init__(self, page: Any, css: str, number: int = 0) -> None:
        self.page, self.at = page, page.locator(f".{css}").nth(number)
        self.at.wait_for(timeout=90_000)  # Voilà shows a page once all cells ran

    def button(self, name: str) -> Any:
        return self.at.get_by_role("button", name=name, exact=True)

    def field(self, name: str) -> Any:
        return self.at.get_by_label(name, exact=True)

    @property
    def status(self) -> Any:
        return self.at.get_by_role("status")

    def picture(self) -> str:
        """The chart's address, which holds all of its data."""
        return str(self.at.locator("img.llmlab-chart").get_attribute("src"))

    def watch(self, until: str, seconds: float = 30) -> tuple[set[str], list[str]]:
        """The pictures and status lines seen until the status matches `until`."""
        pictures, lines, end = set(), [], time.monotonic() + seconds
        while time.monotonic() < end:
            pictures.add(self.picture())
            line = self.status.inner_text()
            lines += [line] if line not in lines else []
            if re.search(until, line):
                return pictures, lines
            time.sleep(0.1)
        raise AssertionError(f"the status never matched {until!r}; it was {lines}")

    def use(self, seconds: float = 60) -> list[str]:
        """Train a little, then start again and stop; the status lines. AssertionError if it does not come to that."""
        self.at.scroll_into_view_if_needed()
        self.button("Run").wait_for()
        self.field("Steps").fill("3")
        self.button("Run").click()
        lines = self.wait(r"Done: .*, 3 steps|Error|cannot", seconds)
        assert "Done" in lines[-1], lines
        self.field("Steps").fill("5000")
        self.button("Run").click()
        self.at.get_by_text(re.compile(r"step [1-9]\d* of 5,000")).wait_for(timeout=seconds * 1000)
        self.button("Stop").click()
        lines += self.wait("Stopped|Error|Done", seconds)
        assert "Stopped" in lines[-1], lines
        assert self.button("Run").is_enabled() and self.button("Stop").is_disabled()
        return lines

    def wait(self, until: str, seconds: float) -> list[str]:
        """The status lines seen until one matches `until`."""
        return self.watch(until, seconds)[1]


class Lesson:
    """A notebook open in a browser."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def run_all(self) -> list[str]:
        """Run every cell and wait; what went wrong, a line a cell."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => null)")
        self.page.wait_for_function(IDLE, timeout=60_000)
        wrong = []
        for i, (count, outputs) in enumerate(self.page.evaluate(OUTPUTS), 1):
            errors = [o for o in outputs if o["output_type"] == "error"]
            wrong += [f"cell {i}: {o['ename']}: {o['evalue']}" for o in errors]
            wrong += [] if count else [f"cell {i} did not run"]
        return wrong

    def execute(self, code: str) -> None:
        """Run Python in the lesson's kernel, without a cell; RuntimeError if it fails."""
        run = """async code => {
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            return (await kernel.requestExecute({code}).done).content;
        }"""
        answer = self.page.evaluate(run, code)
        if answer["status"] != "ok":
            raise RuntimeError(f"{answer['ename']}: {answer['evalue']}")

    def panel(self, css: str = PANEL) -> Panel:
        return Panel(self.page, css)

    def panels(self, css: str = PANEL) -> list[Panel]:
        """Every panel on the page."""
        return [Panel(self.page, css, i) for i in range(self.page.locator(f".{css}").count())]

    def cells(self) -> int:
        """How many cells the notebook has."""
        return int(self.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.length"))

    def errors(self) -> list[str]:
        """What the page says went wrong: tracebacks, Voilà's own message, widgets that did not load."""
        told = self.page.locator(
            "[data-mime-type='application/vnd.jupyter.error'], .voila-error, .jupyter-widgets-error"
        )
        words = self.page.get_by_text(re.compile("There was an error when executing|Error displaying widget"))
        return [*told.all_inner_texts(), *words.all_inner_texts()]

    def close(self) -> None:
        """Close the page and end its kernel, so that lessons do not wait for each other."""
        end = "() => { const w = window.jupyterapp?.shell.currentWidget; return w?.sessionContext?.shutdown(); }"
        self.page.evaluate(end)
        self.page.close()

    def shot(self, name: str, at: Any = None) -> Path:
        """A picture of the page, or of one thing on it, in the folder LLMLAB_SHOTS."""
        folder = Path(os.environ.get("LLMLAB_SHOTS") or self.page.llmlab_folder)
        folder.mkdir(parents=True, exist_ok=True)
        path, size = folder / f"{name}.png", self.page.viewport_size
        if at:  # what does not fit the window would be cut off
            self.page.set_viewport_size({"width": size["width"], "height": TALL})
        (at or self.page).screenshot(path=str(path))
        self.page.set_viewport_size(size)
        return path


class Jupyter:
    """A running server and a browser. `app`: jupyterlab, notebook or voila."""

    def __init__(self, url: str, browser: Any, folder: Path, app: str = "jupyterlab") -> None:
        self.url, self.browser, self.folder, self.app = url, browser, folder, app

    def open(self, name: str, viewport: dict[str, int] | None = None, theme: str = "light") -> Lesson:
        """Open a notebook of the course and wait until its kernel is idle; Voilà runs it, too."""
        page = self.browser.new_page(viewport=viewport or VIEWPORT)
        page.llmlab_folder = self.folder / "shots"
        page.goto(f"{self.url}/{PAGES[self.app]}/{name}?reset", wait_until="domcontentloaded", timeout=120_000)
        if self.app == "voila":
            return Lesson(page)
        page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=60_000)
        page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)").wait_for(timeout=60_000)
        page.wait_for_function(IDLE, timeout=60_000)
        if theme == "dark":
            change = "execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
            page.evaluate(f"() => window.jupyterapp.commands.{change}.then(() => null)")
        return Lesson(page)

    def write(self, name: str, *cells: str) -> None:
        """A notebook of these code cells, beside the lessons."""
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=kernel)
        nbformat.write(made, self.folder / "course" / name)


@contextlib.contextmanager
def chromium(path: str) -> Iterator[Any]:
    """One headless Chromium: Playwright allows one at a time in a thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which(path), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def jupyter(browser: Any, folder: Path, app: str = "jupyterlab", course: Path = ROOT / "course") -> Iterator[Jupyter]:
    """JupyterLab, Notebook 7 or Voilà over a copy of the course in `folder`; it ends with the block."""
    copy = folder / "course"
    shutil.copytree(course, copy)
    with _server(app, copy, folder) as url:
        yield Jupyter(url, browser, folder, app)


@contextlib.contextmanager
def _server(app: str, root: Path, folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "jupyter.log"
    command = [sys.executable, "-m", app, "--no-browser", f"--port={port}"]
    if app == "voila":
        command += ["--Voila.ip=127.0.0.1", str(root)]
    else:
        command += ["--ip=127.0.0.1", "--ServerApp.port_retries=0", "--allow-root", "--expose-app-in-browser"]
        command += ["--IdentityProvider.token=", "--PasswordIdentityProvider.password_required=False"]
        command += [f"--ServerApp.root_dir={root}"]
        command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with log.open("w") as out:
        server = subprocess.Popen(command, env=_environment(folder), stdout=out, stderr=out, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(f"{url}/" + ("" if app == "voila" else "api"), server, log)
        yield url
    finally:
        server.terminate()  # it ends its kernels
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()


def _environment(folder: Path) -> dict[str, str]:
    """A Jupyter that knows nothing of the user's own settings and leaves nothing behind."""
    settings = folder / "settings"
    for plugin, values in SETTINGS.items():
        name, _, part = plugin.partition(":")
        path = settings / name / f"{part}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    own = {"JUPYTERLAB_SETTINGS_DIR": settings} | {
        name: folder / name.lower()
        for name in ("JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    return os.environ | {name: str(path) for name, path in own.items()} | {"OMP_NUM_THREADS": "1"}


def _await(url: str, server: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-2000:]}")

"""Drives JupyterLab in Chromium: a server on loopback over a copy of the course, and one page a lesson.

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

ROOT = Path(__file__).resolve().parents[2]
VIEWPORT = {"width": 1280, "height": 900}
TALL = 2400
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
# windowing takes cells that are out of sight off the page; news and updates would cover the buttons
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}
IDLE = """() => {
    const widget = window.jupyterapp && window.jupyterapp.shell.currentWidget;
    const kernel = widget && widget.sessionContext && widget.sessionContext.session
        && widget.sessionContext.session.kernel;
    return kernel && kernel.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
OUTPUTS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')
    .map(c => [c.model.executionCount, c.model.outputs.toJSON()])"""


class Panel:
    """One panel on the page, by its CSS class."""

    def __init__(self, page: Any, css: str) -> None:
        self.page, self.at = page, page.locator(f".{css}").first
        self.at.wait_for()

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


class Lesson:
    """A notebook open in JupyterLab."""

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

    def panel(self, css: str) -> Panel:
        return Panel(self.page, css)

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
    """A running server and a browser."""

    def __init__(self, url: str, browser: Any, folder: Path) -> None:
        self.url, self.browser, self.folder = url, browser, folder

    def open(self, name: str, viewport: dict[str, int] | None = None, theme: str = "light") -> Lesson:
        """Open a notebook of the course and wait until its kernel is idle."""
        page = self.browser.new_page(viewport=viewport or VIEWPORT)
        page.llmlab_folder = self.folder / "shots"
        page.goto(f"{self.url}/lab/tree/{name}?reset", wait_until="domcontentloaded")
        page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=60_000)
        page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)").wait_for(timeout=30_000)
        page.wait_for_function(IDLE, timeout=60_000)
        if theme == "dark":
            change = "execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
            page.evaluate(f"() => window.jupyterapp.commands.{change}.then(() => null)")
        return Lesson(page)


@contextlib.contextmanager
def jupyter(chromium: str, folder: Path, course: Path = ROOT / "course") -> Iterator[Jupyter]:
    """JupyterLab over a copy of the course in `folder`, and Chromium; both end with the block."""
    from playwright.sync_api import sync_playwright

    copy = folder / "course"
    shutil.copytree(course, copy)
    with _server(copy, folder) as url, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which(chromium), args=FLAGS)
        try:
            yield Jupyter(url, browser, folder)
        finally:
            browser.close()


@contextlib.contextmanager
def _server(root: Path, folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "jupyter.log"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", "--allow-root", "--expose-app-in-browser"]
    command += ["--PasswordIdentityProvider.password_required=False", f"--ServerApp.root_dir={root}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with log.open("w") as out:
        server = subprocess.Popen(command, env=_environment(folder), stdout=out, stderr=out, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(url, server, log)
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
            urllib.request.urlopen(f"{url}/api", timeout=1).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")

"""The chosen techniques of one run behind their hooks: who answers, who is in the way, and who is to blame."""

from __future__ import annotations

import difflib
import inspect
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pluggy

from . import hookspecs
from .technique import implemented, needs_of

if TYPE_CHECKING:
    from .model import ModelConfig

SPECS = {name: spec.llmlab_spec for name, spec in vars(hookspecs).items() if hasattr(spec, "llmlab_spec")}
# one answer is used, so two techniques that give one are in conflict
EXCLUSIVE = [name for name, options in SPECS.items() if options["firstresult"]]


class Hooks:
    """One pluggy manager holding the instances of one run, so no hook needs to ask "am I active?"."""

    def __init__(self, techniques: Sequence[Any], defaults: Any = None) -> None:
        self.techniques = list(techniques)
        self.manager = pluggy.PluginManager(hookspecs.hookspec.project_name)
        self.manager.add_hookspecs(hookspecs)
        if defaults is not None:
            self.manager.register(defaults, name="kernel")
        for plugin in reversed(self.techniques):  # pluggy calls the last registered first; we want list order
            self._register(plugin)
        self._refuse_conflicts()
        if os.environ.get("LLMLAB_TRACE"):
            self._trace()

    def _register(self, plugin: Any) -> None:
        label = _label(plugin)
        if isinstance(plugin, type):
            raise TypeError(f"{plugin.__name__} is a class: write {plugin.__name__}()")
        if self.manager.has_plugin(label):
            raise ValueError(f"{label} is in the list twice: leave one out")
        hooks = list(implemented(plugin))
        for name in hooks:
            if name not in SPECS:
                near = difflib.get_close_matches(name, SPECS, 1)
                raise ValueError(
                    f"{label}.{name} is no hook: "
                    + (f"did you mean {near[0]}?" if near else f"one of {', '.join(SPECS)}")
                )
        if not hooks:
            raise TypeError(f"{label} has no hook: mark its methods with @hookimpl")
        try:
            self.manager.register(plugin, name=label)
        except pluggy.PluginValidationError as error:
            wrong = str(error).splitlines()[-1]
            raise ValueError(f"{label} does not fit the hooks of version {hookspecs.API}: {wrong}") from error

    def _refuse_conflicts(self) -> None:
        for hook in EXCLUSIVE:
            owners = self.owners(hook)
            if len(owners) > 1:
                raise ValueError(f"{' and '.join(owners)} both implement {hook}: choose one")

    def owners(self, hook: str) -> list[str]:
        """Names of the techniques that answer `hook`, wrappers and the kernel's default left out."""
        impls = getattr(self.manager.hook, hook).get_hookimpls()
        names = [i.plugin_name for i in impls if not (i.wrapper or i.hookwrapper) and i.plugin_name != "kernel"]
        return [_label(t) for t in self.techniques if _label(t) in names]

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call a hook; an error is noted with the technique it came from."""
        with self.blame(hook):
            return getattr(self.manager.hook, hook)(**arguments)

    def drain(self, hook: str, **arguments: Any) -> list[Any]:
        """Call a hook that answers with a generator and exhaust it under guard: its errors come while iterating."""
        with self.blame(hook):
            return list(getattr(self.manager.hook, hook)(**arguments) or ())

    def only(self, plugin: Any, hook: str, **arguments: Any) -> Any:
        """Call `hook` of one technique alone."""
        others = [p for p in self.manager.get_plugins() if p is not plugin]
        with self.blame(hook):
            return self.manager.subset_hook_caller(hook, others)(**arguments)

    @contextmanager
    def blame(self, hook: str) -> Iterator[None]:
        """Note on a passing error which technique and hook it came from; its type and traceback stay."""
        try:
            yield
        except Exception as error:
            self._note(error, hook)
            raise

    def _note(self, error: Exception, hook: str) -> None:
        if any(note.startswith("raised by ") for note in getattr(error, "__notes__", ())):
            return  # a hook called from this one is to blame
        impls = getattr(self.manager.hook, hook).get_hookimpls()
        owners = {inspect.unwrap(i.function).__code__: i.plugin_name for i in impls if i.plugin_name != "kernel"}
        frames = [(f, line) for f, line in traceback.walk_tb(error.__traceback__) if f.f_code in owners]
        if frames:  # the innermost: an error also passes through the wrappers around it
            frame, line = frames[-1]
            name, file = owners[frame.f_code], os.path.basename(frame.f_code.co_filename)
            if str(error).startswith(f"{name}."):
                return  # it names a knob or the data, and the way out: nothing to mend in the plugin
            error.add_note(f"raised by {name} in hook {hook} ({file}, line {line}): mend it there, or leave {name} out")

    def _trace(self) -> None:
        started: list[float] = []

        def before(hook: str, impls: Sequence[Any], arguments: Mapping[str, Any]) -> None:
            started.append(time.perf_counter())

        def after(outcome: Any, hook: str, impls: Sequence[Any], arguments: Mapping[str, Any]) -> None:
            took = (time.perf_counter() - started.pop()) * 1e3
            names = " ".join(i.plugin_name for i in reversed(impls)) or "nobody"
            print(f"llmlab: {hook} -> {names} ({took:.2f} ms)", file=sys.stderr)

        self.manager.add_hookcall_monitoring(before, after)


def _label(plugin: Any) -> str:
    return plugin.__name__ if isinstance(plugin, type) else type(plugin).__name__


def check_company(
    techniques: Sequence[Any],
    hooks: Hooks,
    family: str | None,
    columns: Sequence[str] | None,
    config: ModelConfig | None = None,
) -> None:
    """Refuse, before any work, what cannot work: ValueError names the technique, what it lacks and the way out.

    What is not known yet is None, and not asked about; `family` is that of `config`, if that is known.
    """
    family = config.family if config is not None else family
    for plugin in techniques:
        needs, label = needs_of(plugin), _label(plugin)
        if family is not None and family not in needs.families:
            raise ValueError(f"{label} works on {' or '.join(needs.families)} models, not on this {family}")
        if config is not None and needs.objection is not None and (why := needs.objection(plugin, config)):
            raise ValueError(f"{label} {why}")
        if columns is not None and not needs.suits([*columns, *_given(hooks.techniques, plugin)]):
            asked = " or ".join("/".join(wanted.split()) for wanted in needs.columns)
            said = f"{label} needs the columns {asked}; this data has {'/'.join(columns)}"
            raise ValueError(said if needs.kind == "objective" else f"{said}: give other data, or leave {label} out")
        for other in hooks.techniques if needs.labels and needs.kind != "objective" else ():
            if needs_of(other).kind == "objective" and needs_of(other).labels is False:
                raise ValueError(f"{label} works on tokens, and {_label(other)} predicts none: leave {label} out")
        for hook in needs.needs:
            if not [name for name in hooks.owners(hook) if name != label]:
                raise ValueError(f"{label} needs a technique that implements {hook}: add one to the run")


def _given(techniques: Sequence[Any], to: Any) -> Iterator[str]:
    """The columns that the other techniques add to the data."""
    for plugin in techniques:
        if plugin is not to and (gives := needs_of(plugin).gives) is not None:
            yield from gives(plugin).split()

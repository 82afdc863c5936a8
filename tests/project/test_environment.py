"""Project files agree: pyproject.toml, constraints.txt, environment.yml, CHANGELOG, README and Makefile."""

from __future__ import annotations

import copy
import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name as canonical
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
ENVIRONMENT: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # PyPI name to conda-forge name
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def requirements(*extras: str) -> list[Requirement]:
    """What pip installs for the project with `extras`."""
    return [Requirement(r) for r in [*PROJECT["dependencies"], *(r for e in extras for r in EXTRAS[e])]]


def pins(name: str) -> dict[str, str]:
    """The exact versions in a constraints file."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return {canonical(n): v for n, _, v in (line.partition("==") for line in lines if line)}


def disagreements(project: dict[str, Any], environment: dict[str, Any]) -> list[str]:
    """One line for each way in which environment.yml says something else than pyproject.toml."""
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    found = {re.match(r"[\w.-]+", d)[0]: re.sub(r"^[\w.-]+", "", d).strip() for d in conda}
    python = found.pop("python").lstrip("=")
    found.pop("pip")
    asked = {CONDA_NAMES.get(r.name, r.name): r.specifier for r in map(Requirement, project["dependencies"])}
    lines = [f"missing: {name}" for name in asked.keys() - found.keys()]
    lines += [f"not in pyproject.toml: {name}" for name in found.keys() - asked.keys()]
    lines += [
        f"{name}: pyproject.toml {asked[name]}, environment.yml {found[name]}"
        for name in asked.keys() & found.keys()
        if asked[name] != SpecifierSet(found[name])
    ]
    if not SpecifierSet(project["requires-python"]).contains(f"{python}.0"):
        lines.append(f"python {python} is outside {project['requires-python']}")
    return sorted(lines)


def test_conda_and_pip_ask_for_the_same() -> None:
    assert disagreements(PROJECT, ENVIRONMENT) == []
    assert ENVIRONMENT["channels"] == ["conda-forge"]
    assert ENVIRONMENT["dependencies"][-1] == {"pip": ["-e ."]}


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("pytorch>=2.8,<3", "pytorch>=2.8,<4", "torch: pyproject.toml <3,>=2.8, environment.yml >=2.8,<4"),
        ("pluggy>=1.6,<2", None, "missing: pluggy"),
        ("pluggy>=1.6,<2", "plugy>=1.6,<2", "not in pyproject.toml: plugy"),
        ("python=3.11", "python=3.10", "python 3.10 is outside >=3.11"),
    ],
)
def test_a_disagreement_is_found(old: str, new: str | None, line: str) -> None:
    environment = copy.deepcopy(ENVIRONMENT)
    where = environment["dependencies"].index(old)
    environment["dependencies"][where : where + 1] = [] if new is None else [new]
    assert any(found.endswith(line) for found in disagreements(PROJECT, environment))


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_every_requirement_has_a_lower_and_an_upper_bound(extra: str | None) -> None:
    for requirement in map(Requirement, EXTRAS[extra] if extra else PROJECT["dependencies"]):
        assert {s.operator for s in requirement.specifier} == {">=", "<"}, requirement


def test_constraints_pin_every_requirement_inside_its_range() -> None:
    versions = pins("constraints.txt")
    for requirement in requirements("test", "dev", "frontends"):
        assert canonical(requirement.name) in versions, f"constraints.txt does not name {requirement.name}"
        assert requirement.specifier.contains(versions[canonical(requirement.name)]), requirement
    extra = pins("benchmarks/constraints.txt")
    for requirement in requirements("bench"):
        version = (versions | extra).get(canonical(requirement.name))
        assert version is not None, requirement
        assert requirement.specifier.contains(version), requirement
    assert not versions.keys() & extra.keys(), "a package is pinned in two files"


def test_the_second_environment_names_what_differs_and_no_more() -> None:
    """The Makefile puts its pins in the place of the other file's, line by line, so they are spelt alike."""
    versions, own = pins("constraints.txt"), pins("benchmarks/constraints-adapters.txt")
    for requirement in requirements("bench-adapters"):
        version = (versions | own).get(canonical(requirement.name))
        assert version is not None, requirement
        assert requirement.specifier.contains(version), requirement
    assert all(versions.get(name) != version for name, version in own.items())
    lines = [
        (ROOT / name).read_text().splitlines() for name in ("constraints.txt", "benchmarks/constraints-adapters.txt")
    ]
    first, second = ({line.partition("==")[0] for line in file} for file in lines)
    assert len(first & second) == len(versions.keys() & own.keys())


FILES = ["constraints.txt", "benchmarks/constraints.txt", "benchmarks/constraints-adapters.txt"]


@pytest.mark.parametrize("name", FILES)
def test_constraints_are_plain_public_versions(name: str) -> None:
    for package, version in pins(name).items():
        assert package != "llmlab"
        assert Version(version).local is None, f"{package}: a local version exists on one index only"


def test_constraints_pin_what_the_requirements_need_in_turn() -> None:
    """A dependency of a dependency that constraints.txt does not name would float."""
    versions, todo, seen = pins("constraints.txt"), requirements("test", "dev", "frontends"), set()
    while todo:
        requirement = todo.pop()
        key = (canonical(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            wants = map(Requirement, importlib.metadata.requires(requirement.name) or [])
        except importlib.metadata.PackageNotFoundError:
            continue  # an environment without the `dev` or `frontends` extra
        assert key[0] in versions, f"constraints.txt does not name {requirement.name}"
        todo += [r for r in wants if _needed(r, requirement.extras)]


def _needed(requirement: Requirement, extras: set[str]) -> bool:
    """Whether `requirement` applies on this platform to a package asked for with `extras`."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ["", *extras])


def test_the_version_stands_in_one_place() -> None:
    version = PROJECT["version"]
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert importlib.metadata.version("llmlab") == version, "run `make check` again: the install is out of date"
    import llmlab

    assert getattr(llmlab, "__version__", version) == version


def targets() -> set[str]:
    """The Makefile's documented targets: those that `make help` lists."""
    return set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_make_command_in_the_documents_exists(name: str) -> None:
    told = set(re.findall(r"(?:`|^ *)make ([a-z-]+)", (ROOT / name).read_text(), re.MULTILINE))
    assert told <= targets()


def test_the_readme_tells_the_two_commands_and_the_ways_without_make() -> None:
    assert {"lab", "test"} <= set(re.findall(r"make ([a-z-]+)", README))
    for line in ('pip install -c constraints.txt -e ".[test,dev]"', "conda env create -f environment.yml"):
        assert line in README


def test_phony_targets_are_complete() -> None:
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
    assert phony == targets()


def test_the_readme_lists_every_lesson() -> None:
    lessons = {path.name for path in (ROOT / "course").glob("*.ipynb")}
    assert {name for name in lessons if f"(course/{name})" not in README} == set()
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert [link for link in linked if not (ROOT / link).exists()] == []

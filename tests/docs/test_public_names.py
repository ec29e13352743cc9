"""Every public name is documented once, says what it does, and shows it in an example that runs."""

import importlib
import inspect
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import avfusion
from tests.test_floors import PUBLIC

ROOT = Path(__file__).parents[2]
API = ROOT / "docs" / "api"
NESTED = ("aveb.metrics", "aveb.mini", "aveb.parsers", "aveb.runner")
PACKAGES = ["avfusion", *(f"avfusion.{unit}" for unit in sorted({*PUBLIC, *NESTED}))]

# Public names without an example of their own, and why.
NO_EXAMPLE = {
    "avfusion.functional.AttentionImplementation": "a list of names, shown by attention",
    "avfusion.aveb.TASKS": "a constant, shown by get_task",
    "avfusion.aveb.metrics.METRICS": "a constant, shown by make_metric",
    "avfusion.aveb.mini.COLOURS": "a constant of the generated media",
    "avfusion.aveb.mini.DIGITS": "a constant of the generated media",
    "avfusion.aveb.mini.PULSE": "a constant of the generated media",
    "avfusion.aveb.mini.QUESTION_WORDS": "a constant of the generated media",
    "avfusion.aveb.mini.SCENE": "a constant of the generated media",
    "avfusion.aveb.mini.SHAPES": "a constant of the generated media",
    "avfusion.aveb.mini.SOUNDS": "a constant of the generated media",
    "avfusion.aveb.mini.SPOKEN": "a constant of the generated media",
    "avfusion.aveb.mini.Difficulty": "a list of names, shown by generate",
    "avfusion.aveb.mini.LEVELS": "a constant, shown by generate",
    "avfusion.aveb.mini.MAKERS": "a constant, shown by generate",
    "avfusion.aveb.mini.SPLITS": "a constant, shown by generate",
    "avfusion.aveb.parsers.SOUND_SOURCE_TEMPLATES": "a constant, shown by parse_label",
}
# Documented beside the public names, because a page or a command names it.
EXTRA = {"avfusion.aveb.runner.transformers_model.TransformersAnswerer"}


def resolve(name: str) -> Any:
    package, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(package), attribute)


def public_names() -> dict[str, Any]:
    """Every public object by its shortest name: what is reached from several packages counts once."""
    found: dict[str, Any] = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if not any(value is other for other in found.values()):
                found[f"{package}.{name}"] = value
    return found


NAMES = public_names()


def described(page: str, directive: str) -> list[str]:
    """Full names in a page's ``auto…`` directives."""
    names, module = [], ""
    for line in (API / page).read_text().splitlines():
        if current := re.match(r"\.\. (?:current)?module:: (\S+)", line):
            module = current[1]
        elif module and (found := re.match(directive, line)):
            names.append(found[1] if found[1].startswith("avfusion.") else f"{module}.{found[1]}")
    return names


def test_packages_list_names_once() -> None:
    for package in PACKAGES:
        names = importlib.import_module(package).__all__
        assert len(names) == len(set(names)), package


def test_names_have_docstrings() -> None:
    constants = set(NO_EXAMPLE)
    bare = [name for name, value in NAMES.items() if name not in constants and not inspect.getdoc(value)]
    assert bare == []


def test_names_have_examples() -> None:
    shown = {name for name, value in NAMES.items() if ">>>" in (inspect.getdoc(value) or "")}
    bare = sorted(set(NAMES) - shown - set(NO_EXAMPLE))
    assert not bare, f"without an example: {bare}"
    assert set(NO_EXAMPLE) & shown == set()  # an excuse that is no longer needed
    assert set(NO_EXAMPLE) <= set(NAMES)


def test_names_stand_once_on_a_page_of_the_reference() -> None:
    pages = [path.name for path in API.glob("*.rst") if path.name != "index.rst"]
    found = [name for page in pages for name in described(page, r"\.\. auto(?:class|exception|function|data):: (\S+)")]
    assert [name for name, count in Counter(found).items() if count > 1] == []
    missing, unknown = sorted({*NAMES, *EXTRA} - {*found}), sorted({*found} - {*NAMES, *EXTRA})
    assert not missing + unknown, f"docs/api: not described: {missing}; not public: {unknown}"


def test_names_stand_once_in_the_overview() -> None:
    found = described("index.rst", r"   ([\w.]+)$")
    assert [name for name, count in Counter(found).items() if count > 1] == []
    missing, unknown = sorted({*NAMES} - {*found}), sorted({*found} - {*NAMES})
    assert not missing + unknown, f"docs/api/index.rst: not listed: {missing}; not public: {unknown}"


@pytest.mark.parametrize("page", [path.name for path in API.glob("*.rst") if path.name != "index.rst"])
def test_page_says_its_floor(page: str) -> None:
    assert re.search(r"^Floor: ", (API / page).read_text(), re.MULTILINE)


def test_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "avfusion/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", avfusion.__version__)

"""The library is built in floors and imports go down only; the core needs torch and einops alone.

Every file is read, none is imported, so that an import inside a function or behind a condition counts too.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# Lowest first. A unit is a module or subpackage of avfusion; it may import itself and the floors below its own. The
# package's own __init__ stands above the core: what is above may import the public names, the core may not.
FLOORS = (
    {"_shapes", "errors"},
    {"files", "types"},
    {"functional"},
    {"modules"},
    {"__init__"},
    {"encoders", "interop", "media", "testing", "viz"},
    {"models"},
    {"aveb", "features", "training"},
)
LEVEL = {unit: level for level, units in enumerate(FLOORS) for unit in units}
CORE = {unit for unit, level in LEVEL.items() if level <= LEVEL["__init__"]}

# What people build on; anything else in avfusion is private to it.
PUBLIC = {
    "aveb",
    "aveb.mini",
    "aveb.parsers",
    "aveb.runner",
    "encoders",
    "errors",
    "features",
    "files",
    "functional",
    "interop",
    "media",
    "models",
    "modules",
    "testing",
    "training",
    "types",
    "viz",
}

HF = {
    "accelerate",
    "huggingface_hub",
    "numpy",
    "peft",
    "safetensors",
    "timm",
    "tokenizers",
    "torchvision",
    "transformers",
}
ALWAYS = set(sys.stdlib_module_names) | {"einops", "torch"}
# Third parties that a unit may import beside torch and einops.
SCORING = {"pycocoevalcap", "rapidfuzz", "torchmetrics", "whisper_normalizer"}
MAKING = {"PIL", "espeakng_loader", "matplotlib", "tqdm"}
EXTRAS = {
    "media": {"PIL", "av", "numpy"},
    "encoders": HF,
    "interop": HF,
    "models": HF,
    "features": HF | {"tqdm"},
    "training": HF,
    "viz": {"matplotlib"},
    "aveb": HF | {"av"} | SCORING | MAKING,
}
# The core may use these where they are installed, and has to go on without them.
GUARDED = {"huggingface_hub", "jaxtyping", "safetensors"}


class Import(NamedTuple):
    """One imported name: ``from avfusion.types import Frames`` is ``("avfusion.types", "Frames")``."""

    line: int
    module: str
    name: str | None
    guarded: bool


def _is_guard(node: ast.AST) -> bool:
    if isinstance(node, ast.Try):
        caught = [handler.type for handler in node.handlers]
        return any(isinstance(kind, ast.Name) and kind.id in {"ImportError", "ModuleNotFoundError"} for kind in caught)
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef)


def imports(tree: ast.AST, package: tuple[str, ...], guarded: bool = False) -> Iterator[Import]:
    """Every import below a node of a file of ``package``, relative ones made absolute."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, None, guarded) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*parents, *([node.module] if node.module else [])))
            yield from (Import(node.lineno, module, alias.name, guarded) for alias in node.names)
        else:
            yield from imports(node, package, guarded or _is_guard(node))


def unit_of(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def library_violations(package: Path) -> list[str]:
    """What the files of ``package`` import that their floor does not allow."""
    found = []
    units = {unit_of(path, package) for path in package.rglob("*.py")}
    for path in sorted(package.rglob("*.py")):
        unit, where = unit_of(path, package), path.relative_to(package.parent)
        if unit not in LEVEL:
            found.append(f"{where}: {unit!r} stands on no floor")
            continue
        for item in imports(ast.parse(path.read_text()), where.parent.parts):
            top, *rest = item.module.split(".")
            if top == package.name:
                submodule = rest[0] if rest else item.name if item.name in units else "__init__"
                if submodule != unit and LEVEL.get(submodule or "", len(FLOORS)) >= LEVEL[unit]:
                    found.append(f"{where}:{item.line}: {unit} may not import {submodule}")
            elif top not in ALWAYS | EXTRAS.get(unit, set()) and not (unit in CORE and item.guarded and top in GUARDED):
                found.append(f"{where}:{item.line}: {unit} may not import {top}")
    return found


def public_names(init: Path) -> set[str]:
    """The names in a file's ``__all__``."""
    for node in ast.parse(init.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{init} has no __all__")


def client_violations(folder: Path, package: Path) -> list[str]:
    """What the files of ``folder`` take from ``package`` that is not public."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        where = path.relative_to(folder.parent)
        for item in imports(tree, where.parent.parts):
            top, *rest = item.module.split(".")
            if top != package.name:
                continue
            inside = package.joinpath(*rest)
            source = inside / "__init__.py" if inside.is_dir() else inside.with_suffix(".py")
            public = not rest or ".".join(rest) in PUBLIC
            if public and item.name is not None:
                public = item.name in public_names(source) | (PUBLIC if not rest else set())
            if not public:
                found.append(f"{where}:{item.line}: {'.'.join([item.module, item.name or '']).rstrip('.')} is private")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
                chain = ast.unparse(node)
                if chain.startswith(f"{package.name}."):
                    found.append(f"{where}:{node.lineno}: {chain} is private")
    return found


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(package: Path) -> dict[str, set[str]]:
    """Which modules of ``package`` each of them imports, inside functions and for type checkers too."""
    paths = {module_name(path, package): path for path in package.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        graph[name] = set()
        for item in imports(ast.parse(path.read_text()), path.relative_to(package.parent).parent.parts):
            submodule = f"{item.module}.{item.name}"
            target = submodule if submodule in paths else item.module
            if target in paths:
                graph[name].add(target)
    return graph


def circles(graph: dict[str, set[str]]) -> list[str]:
    """The groups of modules that import each other."""
    reach = {name: set(targets) for name, targets in graph.items()}
    for middle, beyond in reach.items():
        for name, targets in reach.items():
            if middle in targets and name != middle:
                targets.update(beyond)
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach[other])) for name in reach if name in reach[name]
    }
    return [" <-> ".join(group) for group in sorted(groups)]


# What every NamedTuple offers under names with an underscore.
OFFERED = {"_replace", "_fields", "_asdict", "_make"}


def defined_names(tree: ast.AST) -> set[str]:
    """Names of functions, classes, and attributes that a file gives values to."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}:
                names.add(node.attr)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def private_uses(package: Path) -> list[str]:
    """Attributes with an underscore of other objects, defined in other files of ``package``."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}
    defined = {path: defined_names(tree) for path, tree in trees.items()}
    anywhere = set().union(*defined.values())
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.endswith("__"):
                continue
            own = ast.unparse(node.value) in {"self", "cls", "super()"} or node.attr in defined[path] | OFFERED
            if not own and node.attr in anywhere:
                where = f"{path.relative_to(package.parent)}:{node.lineno}"
                found.append(f"{where}: {ast.unparse(node)} is private to another file")
    return found


def test_library_imports_go_down() -> None:
    assert library_violations(ROOT / "avfusion") == []


def test_no_modules_import_each_other() -> None:
    assert circles(import_graph(ROOT / "avfusion")) == []


def test_no_file_uses_the_privates_of_another() -> None:
    assert private_uses(ROOT / "avfusion") == []


@pytest.mark.parametrize("folder", ["examples", "benchmarks"])
def test_clients_use_public_names(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    assert client_violations(ROOT / folder, ROOT / "avfusion") == []


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small library without a violation."""
    files = {
        "__init__.py": "from avfusion.types import Frames\n__all__ = ['Frames']\n",
        "types.py": "import torch\nfrom avfusion.errors import Bad\n",
        "aveb/__init__.py": "__all__ = []\n",
        "aveb/mini/__init__.py": "__all__ = ['generate']\n",
        "errors.py": "import dataclasses\n",
        "functional/__init__.py": "from avfusion.functional.masks import mask\n__all__ = ['mask']\n",
        "functional/masks.py": "import einops\nfrom ..types import Frames\n",
        "modules/projector.py": "try:\n    import huggingface_hub\nexcept ImportError:\n    pass\n",
        "testing/audio.py": "import torch\nfrom avfusion import Frames\n",
        "media.py": "import av\nfrom avfusion import Frames, types\n",
        "models/__init__.py": "import transformers\nfrom avfusion.encoders import Whisper\n",
    }
    for name, text in files.items():
        path = tmp_path / "avfusion" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert library_violations(tmp_path / "avfusion") == []
    return tmp_path / "avfusion"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("functional/masks.py", "from avfusion.modules import CausalQFormer", "may not import modules"),
        ("functional/masks.py", "from ..modules.qformer import CausalQFormer", "may not import modules"),
        ("functional/masks.py", "from .. import modules", "may not import modules"),
        ("functional/masks.py", "import avfusion.modules", "may not import modules"),
        ("types.py", "def f():\n    from avfusion import functional", "may not import functional"),
        ("types.py", "from avfusion import Frames", "may not import __init__"),
        ("modules/projector.py", "from avfusion import Frames", "may not import __init__"),
        ("modules/projector.py", "import transformers", "may not import transformers"),
        ("modules/projector.py", "if True:\n    import numpy as np", "may not import numpy"),
        ("modules/projector.py", "import huggingface_hub", "may not import huggingface_hub"),
        ("modules/projector.py", "from torchvision.ops import box", "may not import torchvision"),
        ("media.py", "from avfusion.encoders import Whisper", "may not import encoders"),
        ("testing/audio.py", "import pytest", "may not import pytest"),
        ("testing/audio.py", "import numpy", "may not import numpy"),
        ("testing/audio.py", "from avfusion.encoders import Whisper", "may not import encoders"),
        ("viz.py", "import matplotlib.pyplot\nimport numpy", "may not import numpy"),
        ("media.py", "import transformers", "may not import transformers"),
        ("__init__.py", "def __getattr__(name):\n    from avfusion import media", "may not import media"),
        ("models/__init__.py", "from avfusion.aveb import run", "may not import aveb"),
        ("models/__init__.py", "from avfusion.missing import run", "may not import missing"),
        ("helpers.py", "", "stands on no floor"),
    ],
)
def test_planted_library_violation_is_found(package: Path, name: str, text: str, message: str) -> None:
    (package / name).write_text(text)
    (found,) = library_violations(package)
    assert name in found
    assert message in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from avfusion.functional.masks import mask", "avfusion.functional.masks.mask is private"),
        ("from avfusion.functional import other", "avfusion.functional.other is private"),
        ("from avfusion import _shapes", "avfusion._shapes is private"),
        ("from avfusion._shapes import Float", "avfusion._shapes.Float is private"),
        ("import avfusion.functional.masks", "avfusion.functional.masks is private"),
        ("from avfusion.aveb.mini.sounds import event", "avfusion.aveb.mini.sounds.event is private"),
        ("from avfusion.aveb.mini import sounds", "avfusion.aveb.mini.sounds is private"),
        ("from avfusion.aveb.mini import generate", None),
        ("import avfusion\navfusion.functional._hidden(1)", "avfusion.functional._hidden is private"),
        ("import avfusion\navfusion.__version__\nfrom avfusion import Frames, functional", None),
        ("from avfusion.functional import mask\nimport av.video\nself._own = 1", None),
    ],
)
def test_planted_client_violation_is_found(package: Path, text: str, message: str | None) -> None:
    folder = package.parent / "examples"
    folder.mkdir()
    (folder / "main.py").write_text(text)
    found = client_violations(folder, package)
    assert [line.split(": ")[1] for line in found] == ([message] if message else [])


@pytest.mark.parametrize(
    "back",
    [
        "from avfusion.modules.state import State",
        "from .state import State",
        "from avfusion.modules import state",
        "import avfusion.modules.state",
        "def f():\n    from avfusion.modules.state import State",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from avfusion.modules.state import State",
        "from avfusion.modules.between import State",
    ],
)
def test_planted_circle_is_found(package: Path, back: str) -> None:
    (package / "modules" / "between.py").write_text("from avfusion.modules.state import State")
    (package / "modules" / "state.py").write_text("from avfusion.modules.projector import step")
    (package / "modules" / "projector.py").write_text("")
    assert circles(import_graph(package)) == []
    (package / "modules" / "projector.py").write_text(back)
    (found,) = circles(import_graph(package))
    assert "avfusion.modules.projector" in found
    assert "avfusion.modules.state" in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def step(projector):\n    return projector._encode()", "projector._encode is private to another file"),
        ("def step(projector):\n    projector._encode = 1", "projector._encode is private to another file"),
        ("def step(projector):\n    return projector._state.x", "projector._state is private to another file"),
        ("def step(projector):\n    return projector.part._encode()", "projector.part._encode is private to another"),
        ("import os\nos._exit(1)", None),
        ("def step(state):\n    return state._replace(x=1)", None),
        ("class Own:\n    def _encode(self): ...\n    def f(self, other):\n        return other._encode()", None),
    ],
)
def test_planted_use_of_a_private_is_found(package: Path, text: str, message: str | None) -> None:
    owner = "class P:\n    def _encode(self): ...\n    def __init__(self):\n        self._state = 1\n"
    (package / "modules" / "projector.py").write_text(owner)
    (package / "modules" / "step.py").write_text(text)
    found = private_uses(package)
    assert len(found) == (message is not None)
    assert all(message in line for line in found if message)

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
    {"aveb"},
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
    "files",
    "functional",
    "interop",
    "media",
    "models",
    "modules",
    "testing",
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


def test_library_imports_go_down() -> None:
    assert library_violations(ROOT / "avfusion") == []


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

"""Every code block that a reader may copy is run, or is a command whose program and options are known."""

import ast
import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
import torch
import yaml
from PIL import Image

from avfusion.media import write_video
from examples.favor.presets import read_preset
from tests.docs.blocks import Block, blocks_of, commands_of

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SKIPPED = {"_build", "_static", "node_modules", "build", "runs"}
PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
    if not SKIPPED & set(page.relative_to(ROOT).parts)
]
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
# Where pytest runs the blocks that have prompts.
DOCTESTED = [ROOT / path for path in PROJECT["tool"]["pytest"]["ini_options"]["testpaths"]]
DATA: dict[str, Callable[[str], object]] = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
SHELL = {"bash", "console", "sh"}
# Those whose commands are run here, in order: the rest want a GPU, a download or minutes.
RUN = {ROOT / "docs/howto/train_fsdp2.md", ROOT / "docs/howto/evaluate.md"}
KNOWN = {"ffmpeg", "pytest", "ruff", "mypy", "sphinx-build", "tensorboard", "git", "pre-commit"}
NO_CODE = {"toctree", "include", "eval-rst", "note", "tip", "warning", "figure", "image"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def kind_of(block: Block) -> str:
    """What becomes of a block; empty where nobody looks at it."""
    if block.directive in NO_CODE or (not block.directive and block.language in ("text", "bibtex")):
        return "words"
    if block.directive not in ("", "code-block"):
        return ""
    if block.language in ("python", "pycon"):
        if block.has_prompt:
            return "doctest" if any(block.page.is_relative_to(path) for path in DOCTESTED) else ""
        if block.caption:
            return "file" if block.page in RUN else ""
        return "script"
    if block.language in SHELL:
        return "shell"
    return "data" if block.language in DATA else ""


def test_every_block_is_somebodys() -> None:
    assert len(BLOCKS) > 60
    assert [block.place for block in BLOCKS if not kind_of(block)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\n>>> 1\n1\n```", "doctest"),
        ("```python\nx = 1\n```", "script"),
        ("```{code-block} python\n:caption: a.py\n\nx = 1\n```", ""),  # a file that nobody runs
        ("```rust\nfn\n```", ""),
        ("```{graphviz}\na\n```", ""),
        ("```\nwhat is this?\n```", ""),
    ],
)
def test_kinds(text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "DOCTESTED", [tmp_path])
    [block] = blocks_of(page)
    assert kind_of(block) == expected


def test_data_can_be_read() -> None:
    for block in BLOCKS:
        if kind_of(block) == "data":
            DATA[block.language](block.text)


def test_presets_can_be_read(tmp_path: Path) -> None:
    page = ROOT / "docs/reference_assembly.md"
    [block] = [block for block in BLOCKS if block.page == page and block.language == "yaml"]
    path = tmp_path / "mine.yaml"
    path.write_text(block.text)
    assert read_preset(path).options


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader stands: a folder with a few media files, from which modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("page", sorted({b.page for b in BLOCKS if kind_of(b) == "script"}), ids=name)
def test_scripts_run(page: Path, folder: Path) -> None:
    write_video("clip.mp4", torch.rand(8, 3, 32, 32), frame_rate=4.0, samples=0.1 * torch.randn(32000))
    with av.open("street.flac", "w") as file:
        stream = file.add_stream("flac", rate=16000)
        for frame in _tone():
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    Image.new("RGB", (32, 32), "red").save("sign.jpg")
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS:
        if block.page == page and kind_of(block) == "script":
            code = compile("\n" * block.line + block.text, name(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, namespace)


def _tone() -> list[av.AudioFrame]:
    samples = (3000 * torch.sin(torch.arange(16000) * 0.2)).to(torch.int16)
    frame = av.AudioFrame.from_ndarray(samples[None].numpy(), format="s16", layout="mono")
    frame.sample_rate = 16000
    return [frame]


@pytest.mark.parametrize("page", sorted(RUN), ids=name)
def test_files_and_commands_run(page: Path, folder: Path) -> None:
    for block in blocks_of(page):
        if kind_of(block) == "file":
            (folder / block.caption).write_text(block.text)
        elif kind_of(block) == "shell":
            for command in commands_of(block):
                _run(shlex.split(command))


def _run(words: list[str]) -> None:
    if words[:2] == ["python", "-m"]:
        main = importlib.import_module(f"{words[2]}.__main__").main
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(words[3:]) == 0
    elif words[0] == "torchrun":
        program = shutil.which("torchrun", path=str(Path(sys.executable).parent))
        assert program is not None
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([program, *words[1:]], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "saved" in done.stdout
    else:
        assert words[:2] == ["pip", "install"], words


@pytest.mark.parametrize("block", [b for b in BLOCKS if kind_of(b) == "shell"], ids=lambda block: name(block.page))
def test_commands_are_known(block: Block) -> None:
    parsed = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert parsed.returncode == 0, parsed.stderr
    for command in commands_of(block):
        check_command(command)


def check_command(command: str) -> None:
    """Raises unless the program is known, and takes each of the options."""
    program, *words = shlex.split(command)
    if (ROOT / program).is_file():
        return
    program = Path(program).name
    if program == "accelerate":
        config = words[words.index("--config_file") + 1] if "--config_file" in words else None
        assert config is None or (ROOT / config).is_file(), config
        program, words = "python", words[words.index("-m") :]
    if program == "pip":
        assert words[0] == "install", command
        _check_requirements([word for word in words[1:] if not word.startswith("-")])
    elif program == "python":
        assert words[0] == "-m", command
        _check_module(*words[1:])
    else:
        assert program in KNOWN | {"torchrun"}, command


def _check_requirements(words: list[str]) -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    for word in words:
        parts = re.fullmatch(r"([\w.-]+)(?:\[([\w,]+)\])?", word)
        assert parts is not None, word
        if parts[1] in ("avfusion", "."):
            assert set((parts[2] or "").split(",")) - {""} <= set(extras), word
        else:
            wanted = {re.split(r"[^\w.-]", line)[0] for lines in extras.values() for line in lines}
            assert parts[1] in wanted, word


def _check_module(module: str, *words: str) -> None:
    assert importlib.util.find_spec(module) is not None, module
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    if not options or module in sys.stdlib_module_names:
        return
    main = importlib.import_module(f"{module}.__main__").main
    command = [] if words[0].startswith("-") else [words[0]]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    unknown = [option for option in options if not re.search(rf"{re.escape(option)}\b", shown.getvalue())]
    assert unknown == [], f"{module} {command}: no option {unknown}"


@pytest.mark.parametrize(
    "command",
    [
        "pip install avfusion[nothing]",
        "pip install leftpad",
        "python -m avfusion.aveb run --modle x",
        "python -m avfusion.missing",
        "curl https://example.org",
    ],
)
def test_planted_command_is_found(command: str) -> None:
    with pytest.raises(AssertionError):
        check_command(command)


def test_code_in_docstrings_has_prompts() -> None:
    """What looks like code there is run, then: by the doctests of ``avfusion/``."""
    found = []
    for file in sorted((ROOT / "avfusion").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                if shows_code(text, module=isinstance(node, ast.Module)):
                    found.append(f"{file.relative_to(ROOT)}: {getattr(node, 'name', 'module')}")
    assert found == []


def shows_code(text: str, *, module: bool = False) -> bool:
    """Whether a docstring holds code that no doctest runs; a module's has no sections, so that what is indented is."""
    literal = re.search(r"^(?!\.\. math).*::\n\s*\n(?! *>>>)", text, re.MULTILINE)
    indented = module and ">>>" not in text and re.search(r"^ +\S", text, re.MULTILINE)
    return "```" in text or bool(literal or indented)


def test_planted_code_is_found() -> None:
    assert shows_code("Do::\n\n    run()")
    assert shows_code("Do\n\n    run()", module=True)
    assert not shows_code(".. math::\n\n    x")
    assert not shows_code("Example:\n    >>> 1\n    1", module=True)

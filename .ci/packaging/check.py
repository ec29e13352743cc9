"""Looks through wheel and sdist, and tries them: ``python .ci/packaging/check.py FOLDER``, which holds ``dist/``.

Each extra has an environment of its own. In it the subpackages that need no more import, and the others name what they
miss; and the pages whose first block installs just this extra are followed to their end, in empty folders.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipFile

sys.path.insert(0, str(Path(__file__).parent))

from environments import build

from tests.docs.blocks import blocks_of
from tests.test_extras import NEEDS, PACKAGES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "start.md", *sorted((ROOT / "docs" / "howto").glob("*.md"))]
EXTRAS = ("", "hf", "media", "viz", "aveb", "hf,media", "hf,aveb")  # what pages install, and what each subpackage needs
INSTALL = re.compile(r"pip install \"?avfusion(?:\[([\w,]+)\])?")
# Tests that read the repository itself, and a few that compute.
SDIST_TESTS = (
    "tests/docs/test_public_names.py",
    "tests/test_floors.py",
    "tests/interop",
    "tests/benchmarks/test_page.py",
)


def main(folder: Path) -> int:
    [wheel], [sdist] = folder.glob("dist/*.whl"), folder.glob("dist/*.tar.gz")
    look_through(wheel, sdist)
    with ThreadPoolExecutor(2) as pool:
        tries = [pool.submit(try_wheel, folder, wheel, extras) for extras in EXTRAS]
        tries.append(pool.submit(try_sdist, folder, sdist))
        outcomes = [each.result() for each in tries]
    for text, _ in outcomes:
        print(text)
    return max(code for _, code in outcomes)


def look_through(wheel: Path, sdist: Path) -> None:
    """Refuses a wheel with more or less than the package, and an sdist that lacks anything of the repository."""
    tracked = set(
        subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    )
    tracked -= {""}
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        relative = re.findall(r"\]\((?!https?://|#)[^)]+\)", archive.read(name).decode())
    if relative:
        raise SystemExit(f"README: its links must lead somewhere from PyPI, found {relative}")
    expect(f"{wheel.name}", packed, {name for name in tracked if name.startswith("avfusion/")})
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    expect(f"{sdist.name}", held & (tracked | held), tracked, allow={"PKG-INFO"})


def expect(what: str, found: set[str], wanted: set[str], allow: set[str] = frozenset()) -> None:
    missing, more = sorted(wanted - found), sorted(found - wanted - allow)
    if missing or more:
        raise SystemExit(f"{what}: lacks {missing[:10]} ({len(missing)}), and must not hold {more[:10]} ({len(more)})")
    print(f"{what}: {len(wanted)} files")


def try_wheel(folder: Path, wheel: Path, extras: str) -> tuple[str, int]:
    """What the extra's environment says, and whether all is well there."""
    name = extras.replace(",", "_") or "core"
    python = build(folder / "environments" / name, wheel.resolve(), extras).absolute()
    imports = run([python, "-c", IMPORTS.format(packages=PACKAGES, needs=NEEDS, extras=extras.split(","))], folder)
    tools = folder / "tools" / name
    tools.mkdir(parents=True)
    for tool in (Path(__file__).with_name("follow.py"), ROOT / "tests" / "docs" / "blocks.py"):
        shutil.copy(tool, tools)
    pages = pages_by_extras()[extras]
    followed = run([python, tools.absolute() / "follow.py", (folder / "followed" / name).absolute(), *pages], folder)
    code = imports.returncode or followed.returncode
    said = "".join(each.stdout + (each.stderr if each.returncode else "") for each in (imports, followed))
    return f"avfusion[{extras}]: {'passed' if code == 0 else 'FAILED'}\n{said}".rstrip(), code


IMPORTS = """
import importlib
for package in {packages!r}:
    extra = {needs!r}.get(package, ("",))[0]
    try:
        module = importlib.import_module(package)
        [getattr(module, name) for name in module.__all__]
    except ImportError as error:
        assert extra and extra not in {extras!r}, error
        assert "avfusion[" + extra + "]" in str(error), error
"""


def pages_by_extras() -> dict[str, list[Path]]:
    """Pages by the extras that their first block installs."""
    found: dict[str, list[Path]] = defaultdict(list)
    for page in PAGES:
        blocks = list(blocks_of(page))
        if any(block.has_prompt or block.caption for block in blocks):
            installs = INSTALL.search(blocks[0].text)
            found[(installs and installs[1]) or ""].append(page)
    unknown = sorted(set(found) - set(EXTRAS))
    if unknown:
        raise SystemExit(f"pages: {unknown} are installed by {found[unknown[0]][0].name} and tried in no environment")
    return found


def try_sdist(folder: Path, sdist: Path) -> tuple[str, int]:
    """Tests that run in the unpacked sdist, with the packages of this environment."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    [inside] = (folder / "unpacked").iterdir()
    done = run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SDIST_TESTS],
        inside,
        PYTHONPATH=str(inside.absolute()),
    )
    return f"{sdist.name}: {done.stdout.strip().splitlines()[-1]}", done.returncode


def run(command: list[object], folder: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

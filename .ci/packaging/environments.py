"""Virtual environments that hold the wheel, the extras that are asked for, and nothing else.

Their packages are links to those of the environment that runs this, found by following requirements from the wheel:
nothing is downloaded twice, and what is not required cannot be imported. pip itself then checks the requirements.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def build(folder: Path, wheel: Path, extras: str = "") -> Path:
    """Makes the environment in ``folder`` and gives its interpreter.

    Args:
        folder: a new folder.
        wheel: to install.
        extras: with commas between.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    links = folder / "links"
    links.mkdir()
    for name in sorted(_required(wheel, {*extras.split(",")} - {""})):
        for top in _top_levels(metadata.distribution(name)):
            if not (links / top.name).exists():
                (links / top.name).symlink_to(top)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "links.pth").write_text(f"{links.resolve()}\n")
    target = f"{wheel}[{extras}]" if extras else str(wheel)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-compile"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*pip, target], check=True, env=environment)
    return python


def _required(wheel: Path, extras: set[str]) -> set[str]:
    """Names of all distributions that the wheel with its extras needs."""
    own = _requirements_of(wheel)
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [("avfusion", extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        lines = own if name == "avfusion" else metadata.distribution(name).requires or []
        if name != "avfusion":
            found.add(name)
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                next_name = re.sub(r"[-_.]+", "-", requirement.name).lower()
                waiting += [(next_name, more) for more in ("", *requirement.extras)]
    return found


def _requirements_of(wheel: Path) -> list[str]:
    from zipfile import ZipFile

    with ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = archive.read(name).decode().splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]


def _top_levels(distribution: metadata.Distribution) -> Iterator[Path]:
    """What a distribution puts into ``site-packages``, its own record of it included."""
    tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}
    for top in sorted(tops):
        yield Path(str(distribution.locate_file(top))).resolve()

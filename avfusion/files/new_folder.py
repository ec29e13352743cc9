"""A folder that is whole or not there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avfusion.errors import InvalidValueError
from avfusion.files.locks import LOCK, locked

_PART = ".part"


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A new folder that gets its name when it is complete; leftovers of a killed process are removed first.

    Args:
        path: a folder that does not exist, or is empty. A new folder is renamed from ``.NAME.part`` in one step; into
            an empty one, the entries are moved from its own ``.part``.

    Raises:
        InvalidValueError: the folder is not empty, or another process is creating it.
        OSError: it cannot be written; nothing is left of it.

    Example:
        >>> import pathlib, tempfile
        >>> from avfusion.files import new_folder
        >>> folder = pathlib.Path(tempfile.mkdtemp(), "set")
        >>> with new_folder(folder) as part:
        ...     _ = (part / "a.txt").write_text("a")
        ...     folder.exists()
        False
        >>> [file.name for file in folder.iterdir()]
        ['a.txt']
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  # "." has no name; links stay
    exists = path.exists()
    if exists and (not path.is_dir() or any(one.name != _PART for one in path.iterdir())):
        raise InvalidValueError(f"out: must be an empty folder, or not there yet, found {path}")
    part = path / _PART if exists else path.with_name(f".{path.name}{_PART}")
    with locked(part):
        for left in part.iterdir():
            if left.name != LOCK:
                _remove(left)
        try:
            yield part
            if exists:
                for one in sorted(part.iterdir()):
                    if one.name != LOCK:
                        one.rename(path / one.name)
            else:
                part.rename(path)
                (path / LOCK).unlink(missing_ok=True)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()

"""One process at a time."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from avfusion.errors import InvalidValueError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_held: set[str] = set()  # of this process, to which the system would give each of them again
_guard = threading.Lock()


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Holds a lock on a folder or file, against other processes and threads.

    The system releases the lock when the process ends for any reason. Without lock support of the system or file
    system, there is no protection.

    Args:
        path: a folder, which is created if necessary and holds a ``.lock`` file meanwhile; or an existing file, which
            gets a ``.NAME.lock`` beside it.

    Raises:
        InvalidValueError: the lock is held; the message names the process.
        OSError: this process may not write there.

    Example:
        >>> import tempfile
        >>> from avfusion.files import locked
        >>> folder = tempfile.mkdtemp()
        >>> with locked(folder), locked(folder):
        ...     pass
        Traceback (most recent call last):
        avfusion.errors.InvalidValueError: out: must be written by one process at a time, found ...
    """
    path = Path(path)
    if path.is_file():
        lock = path.with_name(f".{path.name}{LOCK}")
    else:
        path.mkdir(parents=True, exist_ok=True)
        lock = path / LOCK
    name = os.path.realpath(lock)
    with _guard:
        if name in _held:
            raise _in_use(path, str(os.getpid()))
        _held.add(name)
    try:
        file = _take(lock, path)
        with file:
            try:
                yield
            finally:
                if _is(lock, file):  # it may have moved with its folder
                    with suppress(OSError):
                        lock.unlink()  # before it is let go of: whoever has opened it meanwhile notices
    finally:
        with _guard:
            _held.discard(name)


def _take(lock: Path, path: Path) -> IO[str]:
    """The open lock, which is this process's."""
    while True:
        file = lock.open("a+", encoding="utf-8")
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read(20).strip()
            file.close()
            raise _in_use(path, holder) from None
        except OSError:  # a file system without locks
            return file
        if _is(lock, file):
            with suppress(OSError):  # a disk may be too full for a number
                os.truncate(file.fileno(), 0)
                os.write(file.fileno(), f"{os.getpid()}\n".encode())
            return file
        file.close()  # its last holder has taken it away: there may be another by now


def _is(lock: Path, file: IO[str]) -> bool:
    """Whether the lock of this name is the one that is open."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _in_use(path: Path, holder: str) -> InvalidValueError:
    process = f"process {holder}" if holder.isdigit() else "another process"
    return InvalidValueError(f"out: must be written by one process at a time, found {path} in use by {process}")

"""A file that is whole or not there."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EIO)
_TORCH = ("PytorchStreamWriter", "inline_container")  # torch.save does not say what the disk said


def write_whole(path: str | Path, content: str | Callable[[Path], object]) -> None:
    """Writes a file atomically: until it is complete, an earlier file remains.

    Args:
        path: the file, replaced in one step. A ``.NAME.part`` is written beside it, which the next call replaces.
        content: text, or a function that writes to the path it is called with.

    Raises:
        OSError: the file cannot be written, for example because the disk is full; an earlier file remains.

    Example:
        >>> import pathlib, tempfile
        >>> from avfusion.files import write_whole
        >>> path = pathlib.Path(tempfile.mkdtemp(), "scores.json")
        >>> write_whole(path, "{}")
        >>> path.read_text(), [file.name for file in path.parent.iterdir()]
        ('{}', ['scores.json'])
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with disk_errors(path):
            if isinstance(content, str):
                part.write_text(content, encoding="utf-8")
            else:
                content(part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Raises one clear error if the disk is full, read-only or not writable for this user.

    Libraries raise errors of various types for a full disk, and torch without naming the cause.

    Args:
        path: the file to name in the message.

    Raises:
        OSError: for such an error; other errors are unchanged.

    Example:
        >>> from avfusion.files import disk_errors
        >>> with disk_errors("a.safetensors"):
        ...     raise RuntimeError("I/O error: No space left on device (os error 28)")
        Traceback (most recent call last):
        OSError: [Errno 28] No space left on device: 'a.safetensors'
    """
    try:
        yield
    except Exception as error:
        clear = _told(error, path)
        if clear is None:
            raise
        raise clear from error


def _told(error: BaseException | None, path: str | Path) -> OSError | None:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        text = str(error)
        for code in (*_FULL, *_CLOSED):
            named = isinstance(error, OSError) and error.errno == code
            if named or f"(os error {code})" in text or (code in _FULL and os.strerror(code) in text):
                return OSError(code, os.strerror(code), getattr(error, "filename", None) or str(path))
        if isinstance(error, RuntimeError) and any(sign in text for sign in _TORCH):
            return OSError(errno.EIO, "cannot be written, the disk may be full", str(path))
        error = error.__cause__ or error.__context__
    return None

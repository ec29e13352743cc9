"""Opening exactly one file: neither its name nor its content makes FFmpeg open another."""

import errno
import gc
import io
import math
import os
import re
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from av.container import InputContainer

from avfusion.errors import InvalidTypeError, InvalidValueError, MediaError
from avfusion.media._formats import READ, document, refusal
from avfusion.media._index_size import check_index
from avfusion.media._limits import MediaLimits, decoder_options

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# Metadata may not be UTF-8. PyAV before 19 raises an error by default; PyAV 19 has no option and no error.
ANY_TEXT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
# No demuxer can open any other file.
_ALONE = {"format_whitelist": READ, "protocol_whitelist": "", "enable_drefs": "0", "use_absolute_path": "0"}

# Decoders and filters of a parent process may wait for its garbage collector when it forks. Freed in the child, they
# would wait forever for threads that do not exist there; so they are never freed there.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=gc.freeze)


class Deadline:
    """A time after which reading stops.

    Args:
        seconds: time from now.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Starts the timeout again."""
        self._at = time.monotonic() + self._seconds

    @property
    def passed(self) -> bool:
        return time.monotonic() > self._at

    def check(self) -> None:
        """Raises MediaError after the deadline."""
        if self.passed:
            raise MediaError(f"takes longer than {self._seconds:g} s to read; timeout=... allows more")


class MediaFile:
    """A file that FFmpeg reads through Python. After the deadline, it appears to end.

    FFmpeg gets only the suffix of the name, so that no name is a pattern or an address.

    Args:
        file: an open file.
        name: its name.
        timeout: seconds for all reading.

    Attributes:
        head: the first bytes that were read.
        deadline: the deadline of reading.
        others: names of other files that FFmpeg requested and was refused.
    """

    def __init__(self, file: Any, name: str, *, timeout: float = math.inf) -> None:
        self._file = file
        self._error: BaseException | None = None
        self.head = b""
        self.deadline = Deadline(timeout)
        self.others: list[str] = []
        suffix = _SUFFIX.search(name)
        self.name = "file" + (suffix[0].lower() if suffix else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # PyAV would raise an exception from these callbacks at FFmpeg's next failure, perhaps in another file.
    def read(self, size: int = -1) -> bytes:
        if self.deadline.passed or self._error is not None:
            return b""
        try:
            data = bytes(self._file.read(size))
            if 0 <= size < len(data):
                raise InvalidValueError(f"source: must give at most the {size} bytes asked for, found {len(data)}")
        except BaseException as error:  # noqa: BLE001  # it is raised by check()
            self._error = error
            return b""
        self.head = self.head or data
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return int(self._file.seek(offset, whence))
        except (OSError, ValueError, OverflowError):
            return -errno.EINVAL

    def tell(self) -> int:
        return int(self._file.tell())

    def seekable(self) -> bool:
        return hasattr(self._file, "seekable") and bool(self._file.seekable())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def open_other(self, name: str, flags: int, options: Mapping[str, str]) -> io.BytesIO:
        """Refuses another file: FFmpeg gets an empty one."""
        self.others.append(name)
        return io.BytesIO()

    def check(self) -> None:
        """Raises MediaError if the file was not read completely, or refers to other files.

        An exception from the file's own ``read`` is raised unchanged if it is a TimeoutError or not an OSError.
        """
        self.deadline.check()
        if isinstance(self._error, OSError) and not isinstance(self._error, TimeoutError):
            raise MediaError(f"cannot be read ({self._error.strerror or self._error})") from self._error
        if self._error is not None:
            raise self._error
        if self.others:
            raise MediaError("refers to other files or addresses, which are not read")


def open_container(
    file: MediaFile, *, limits: MediaLimits, format: str | None = None, options: Mapping[str, str] | None = None
) -> InputContainer:
    """Opens a file with FFmpeg.

    Raises:
        MediaError: the file refers to others, or takes too long.
        av.FFmpegError: the file is broken, or not a media file.
    """
    options = {**(options or {}), **_ALONE, **decoder_options(limits)}
    if file.seekable():
        file.seek(0)
        if kind := document(file.read(16)):
            raise MediaError(f"is {kind}, no media file")
        check_index(file)
        file.seek(0)
        file.head = b""
    try:
        container = _open(file, format, options)
    except av.FFmpegError as error:
        file.check()
        refused = error.errno == errno.EINVAL  # for a format that is not allowed
        if not refused and not isinstance(error, av.InvalidDataError):
            raise
        if refused and not file.head:  # refused because of the format
            message = f"is not read as {format}: that refers to other files or addresses, or tells too little"
            raise MediaError(message) from error
        if reason := refusal(file.head):
            raise MediaError(reason) from error
        raise
    try:
        file.check()
    except MediaError:
        container.close()
        raise
    return container


def _open(file: MediaFile, format: str | None, options: dict[str, str]) -> InputContainer:
    asked: Any = file
    return av.open(
        asked,
        "r",
        format=format,
        options=options,
        **ANY_TEXT,
        io_open=file.open_other,
    )


def shown(path: object) -> str:
    """A path as one line for messages.

    Raises:
        InvalidTypeError: it is not a path.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise InvalidTypeError(f"path: must be the path of a file, found {type(path).__name__}")
    name = os.fsdecode(path)
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name) or "''"


def open_file(path: Path) -> io.FileIO:
    """Opens a regular file.

    Raises:
        MediaError: the file is missing, unreadable or empty, or not a regular file.
    """
    try:
        _check_kind(path.stat().st_mode)
        # Non-blocking, in case the file was replaced by a pipe.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        file = io.FileIO(os.open(path, flags))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError("does not exist") from error
    except OSError as error:
        raise MediaError(f"cannot be opened ({error.strerror})") from error
    except ValueError as error:  # an invalid file name
        raise MediaError(f"cannot be opened ({error})") from error
    try:
        found = os.fstat(file.fileno())
        _check_kind(found.st_mode)
        if found.st_size == 0:
            raise MediaError("is empty")
    except MediaError:
        file.close()
        raise
    return file


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for matches, name in _KINDS if matches(mode)), "something else")
        raise MediaError(f"is {kind}, not a file")

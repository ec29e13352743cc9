"""Whether a media file is still the one that was encoded."""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class FileStamp(NamedTuple):
    """The state of a file.

    Attributes:
        size: in bytes.
        time: of the last change, in nanoseconds.
        digest: SHA-256 of the content.

    Example:
        >>> import pathlib, tempfile
        >>> from avfusion.features import FileStamp
        >>> file = pathlib.Path(tempfile.mkdtemp(), "a.wav")
        >>> _ = file.write_bytes(b"sound")
        >>> stamp = FileStamp.of(file)
        >>> stamp.size, stamp.fits(file)
        (5, True)
        >>> _ = file.write_bytes(b"other sound")
        >>> stamp.fits(file)
        False
    """

    size: int
    time: int
    digest: str

    @classmethod
    def of(cls, path: str | Path) -> "FileStamp":
        """The state of a file now; its content is read once.

        Raises:
            OSError: no such file.
        """
        found = Path(path).stat()  # before the content: of a file that changes meanwhile the time will differ
        return cls(found.st_size, found.st_mtime_ns, _digest(path))

    def fits(self, path: str | Path) -> bool:
        """Whether a file has this content, or is gone: then what was kept of it stands for it.

        The content is read only if size and time do not tell.
        """
        found = _stat(path)
        if found is None:
            return True
        if found.st_size != self.size or not stat.S_ISREG(found.st_mode):
            return False
        return found.st_mtime_ns == self.time or _digest(path) == self.digest


class Verified:
    """Files that were compared before; their content is not read again while their size and time stay the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[FileStamp, str, int, int], bool] = {}

    def fits(self, stamps: Sequence[FileStamp], paths: Sequence[str | Path]) -> bool:
        """Whether all files fit their stamps; features without stamps are not compared."""
        if not stamps:
            return True
        if len(stamps) != len(paths):
            return False
        return all(self._fits(stamp, path) for stamp, path in zip(stamps, paths, strict=True))

    def _fits(self, stamp: FileStamp, path: str | Path) -> bool:
        found = _stat(path)
        key = (stamp, str(path), *((-1, -1) if found is None else (found.st_size, found.st_mtime_ns)))
        if key not in self._known:
            self._known[key] = stamp.fits(path)
        return self._known[key]


def _stat(path: str | Path) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _digest(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

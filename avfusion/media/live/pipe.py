"""Reading a pipe or a socket such that it can be left at any moment."""

import contextlib
import os
import selectors
import socket
import threading
from typing import IO, Any


class Pipe:
    """A file that FFmpeg reads through Python.

    Args:
        file: an open file, or the number of one.
        timeout: seconds after which a read gives up.
        owned: whether closing this closes the file.
    """

    def __init__(self, file: IO[bytes] | socket.socket | int, *, timeout: float, owned: bool = False) -> None:
        self._file, self._timeout, self._owned = file, timeout, owned
        self._number = _number(file)
        self._stopped = threading.Event()
        self._woken, self._wake = socket.socketpair()
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._woken, selectors.EVENT_READ)
        self._waits = self._number is not None
        if self._number is not None:
            try:
                self._ready.register(self._number, selectors.EVENT_READ)
            except (OSError, ValueError):  # a regular file, which is always ready, or any file on Windows
                self._waits = False

    def read(self, size: int) -> bytes:
        """Some bytes, none at the end or after :meth:`stop`.

        Raises:
            TimeoutError: nothing came.
        """
        if self._waits:
            ready = self._ready.select(self._timeout)
            if not ready and not self._stopped.is_set():
                raise TimeoutError(f"nothing came for {self._timeout} s")
        if self._stopped.is_set():
            return b""
        if self._number is not None:
            return os.read(self._number, size)
        file: Any = self._file
        return bytes(file.read(size))

    def stop(self) -> None:
        """Ends a read that waits, and every later one; from any thread."""
        self._stopped.set()
        with contextlib.suppress(OSError):  # it has been closed
            self._wake.send(b"\0")

    def close(self) -> None:
        """Releases what it holds."""
        self._ready.close()
        self._woken.close()
        self._wake.close()
        if self._owned:
            if isinstance(self._file, int):
                os.close(self._file)
            else:
                self._file.close()


def _number(file: IO[bytes] | socket.socket | int) -> int | None:
    if isinstance(file, int):
        return file
    try:
        return file.fileno()
    except (AttributeError, OSError):  # in memory
        return None

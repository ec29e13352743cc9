"""Reads from a pipe or socket that can be interrupted at any time."""

import contextlib
import os
import selectors
import socket
import threading
from typing import IO, Any


class Pipe:
    """A file object for FFmpeg.

    Args:
        file: an open file, or a file descriptor.
        timeout: seconds after which a read fails.
        owned: whether :meth:`close` closes the file.
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
        """Some bytes; empty at the end and after :meth:`stop`.

        Raises:
            TimeoutError: no data within the timeout.
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
        """Interrupts this and every later read. May be called from any thread."""
        self._stopped.set()
        with contextlib.suppress(OSError):  # it has been closed
            self._wake.send(b"\0")

    def close(self) -> None:
        """Closes the file if it is owned."""
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

"""The size of the index that FFmpeg would build for an MP4 or QuickTime file: 30 bytes per sample.

A run of samples of equal size takes four bytes in the file, so that a tiny file can describe an index of gigabytes
before anything is decoded.
"""

import re
import zlib
from typing import Protocol

from avfusion.media._limits import LimitError

_MOST = 2**25  # samples that a smaller file may state: an index of a gigabyte
_UNPACKED = 2**26  # bytes of a compressed header to read
_DEEPEST = 3  # nesting of compressed headers
_PIECE = 2**20  # bytes to read at once
_TABLE = 16  # bytes of a table to read
_MARKS = re.compile(rb"stsz|trun|cmvd")
_MEDIA = (b"mdat", b"idat")  # boxes without tables
_BOX = re.compile(rb"[A-Za-z0-9 ]{4}")


class _File(Protocol):
    def read(self, size: int = -1) -> bytes: ...
    def seek(self, offset: int, whence: int = 0) -> int: ...


def check_index(file: _File) -> None:
    """Checks the sample counts in the file's boxes.

    Raises:
        LimitError: too many samples.
    """
    size, at, samples = file.seek(0, 2), 0, 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, kind, first = int.from_bytes(head[:4], "big"), head[4:8], at + 8
        if not _BOX.fullmatch(kind):
            return
        if length == 1:
            length, first = int.from_bytes(head[8:16], "big"), at + 16
        end = size if length == 0 else min(at + length, size)
        if end < first:
            return
        if kind not in _MEDIA:
            samples += _stated(file, first, end)
            if samples > max(size, _MOST):
                raise LimitError(f"states {samples} samples or more, and has {size} bytes")
        at = end


def _stated(file: _File, at: int, end: int) -> int:
    """Sum of the sample counts stated by tables between two offsets."""
    samples = 0
    while at < end:
        file.seek(at)
        piece = file.read(min(_PIECE + _TABLE, end - at))
        if not piece:  # after the deadline
            break
        samples += _count(piece, _PIECE)
        at += _PIECE
    return samples


def _count(data: bytes, before: int, depth: int = 0) -> int:
    """Sum of the counts of tables that begin before an offset."""
    samples = 0
    for mark in _MARKS.finditer(data[: before + 3]):
        at = mark.start()
        flags, one, two = (int.from_bytes(data[place : place + 4], "big") for place in (at + 4, at + 8, at + 12))
        if mark[0] == b"cmvd":
            unpacked = _unpacked(data[at + 8 :])
            samples += _count(unpacked, len(unpacked), depth + 1) if depth < _DEEPEST else 2**62
        elif mark[0] == b"stsz":
            samples += two if one else 0  # all of this size
        elif not flags & 0xF00:
            samples += one
    return samples


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _UNPACKED)
    except zlib.error:
        return b""

"""Missing or wrong sizes in the headers of uncompressed audio.

A writer that cannot seek, because it writes to a pipe or was killed, leaves a placeholder for the size of the audio;
others include the header, or round. Such a file is read as if its header had the actual size, so that all its samples
are returned.
"""

import struct
from typing import IO, NamedTuple

_ABOUT = 1 << 16  # tolerance of a placeholder in bytes: it may include headers, or be rounded
_HEADER = 64  # bytes by which a size may be too large
_W64 = bytes.fromhex("2E91CF11A5D628DB04C10000")
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # a sample, by encoding


class Block(NamedTuple):
    """Location of the samples in a file.

    Attributes:
        start: byte offset of the first sample.
        size: size in bytes, as stated in the header.
        field: byte offset of the size field.
        code: format of the size field, for :mod:`struct`.
        extra: bytes of the header that the size includes.
        step: bytes per sample of all channels; 1 if unknown.
        number: byte offset of the field with the number of samples; 0 if there is none.
    """

    start: int
    size: int
    field: int
    code: str
    extra: int
    step: int
    number: int = 0


class Correction(NamedTuple):
    """Changes to a header.

    Attributes:
        changes: new bytes, by offset.
        missing: bytes of audio that are missing, if the file is truncated.
    """

    changes: dict[int, bytes]
    missing: int


def correct_size(file: IO[bytes]) -> Correction:
    """The correction of an audio file's header; empty if none is needed, or the file is of another format."""
    total = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    try:
        block = _find(file, head, total)
    except (struct.error, OverflowError):  # the header is cut short
        block = None
    if block is None:
        return Correction({}, 0)
    there, limit = total - block.start, 1 << 8 * struct.calcsize(block.code)
    unknown = block.size <= 0 or (block.size > there and _is_placeholder(block.size, limit))
    size = there if unknown else min(block.size, there)
    size -= size % block.step
    # Two bytes too many, or the size of the whole file, are writers' errors; more means truncation.
    over = 0 if unknown else block.size - there
    missing = over if over > max(block.start + 8, _HEADER) else 0
    changes = {}
    if size != block.size and 0 < size and size + block.extra < limit // 2:
        changes[block.field] = struct.pack(block.code, size + block.extra)
        if block.number:
            changes[block.number] = struct.pack(">I", size // block.step)
    # These are read up to the file size.
    if head[:4] == b"FORM" and total - 8 < 1 << 32:
        changes[4] = struct.pack(">I", total - 8)
    elif head[:4] == b"riff":
        changes[16] = struct.pack("<Q", total)
    return Correction(changes, missing)


def _is_placeholder(size: int, limit: int) -> bool:
    """Whether a size is a placeholder for "unknown": close to the largest number of 32 or 64 bits."""
    if abs(size - 0x7F000000) <= _ABOUT:  # as SoX writes AIFF
        return True
    if limit == 1 << 32:
        return size >= 0x80000000 - _ABOUT
    return size >= 1 << 62 or any(abs(size - largest) <= _ABOUT for largest in (1 << 31, 1 << 32))


def _find(file: IO[bytes], head: bytes, total: int) -> Block | None:
    kind, form = head[:4], head[8:12]
    if kind in (b"RIFF", b"RIFX", b"RF64", b"BW64") and form == b"WAVE":
        return _find_wave(file, kind, total)
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        return _find_aiff(file, total)
    if head == b"riff" + _W64:
        return _find_w64(file, total)
    if kind == b"caff":
        return _find_caf(file, total)
    if kind == b".snd":
        return _find_au(file)
    return None


def _find_wave(file: IO[bytes], kind: bytes, total: int) -> Block | None:
    order, at, step, wide = (">" if kind == b"RIFX" else "<"), 12, 1, None
    while at + 8 <= total:
        file.seek(at)
        name, size = struct.unpack(f"{order}4sI", file.read(8))
        if name == b"fmt ":
            code, *_, align, _ = struct.unpack(f"{order}HHIIHH", file.read(16))
            step = align if code in (1, 3, 6, 7, 0xFFFE) and align else 1
        elif name == b"ds64":
            wide = (at + 16, *struct.unpack("<8xQ", file.read(16)))
        elif name == b"data":
            if kind in (b"RF64", b"BW64") and size == 0xFFFFFFFF and wide is not None:
                return Block(at + 8, wide[1], wide[0], "<Q", 0, step)
            return Block(at + 8, size, at + 4, f"{order}I", 0, step)
        at += 8 + size + size % 2
    return None


def _find_aiff(file: IO[bytes], total: int) -> Block | None:
    at, step, count = 12, 1, 0
    while at + 8 <= total:
        file.seek(at)
        name, size = struct.unpack(">4sI", file.read(8))
        if name == b"COMM":
            channels, _, bits = struct.unpack(">HIH", file.read(8))
            step, count = max(1, channels * ((bits + 7) // 8)), at + 10
        elif name == b"SSND":
            # The size may be a placeholder smaller than the fields that it includes.
            return Block(at + 16, max(0, size - 8), at + 4, ">I", 8, step, count)
        at += 8 + size + size % 2
    return None


def _find_w64(file: IO[bytes], total: int) -> Block | None:
    at, step = 40, 1
    while at + 24 <= total:
        file.seek(at)
        name, size = struct.unpack("<16sQ", file.read(24))
        if name[:4] == b"fmt ":
            code, *_, align, _ = struct.unpack("<HHIIHH", file.read(16))
            step = align if code in (1, 3, 6, 7, 0xFFFE) and align else 1
        elif name[:4] == b"data":
            return Block(at + 24, max(0, size - 24), at + 16, "<Q", 24, step)
        if size < 24:
            return None
        at += (size + 7) // 8 * 8
    return None


def _find_caf(file: IO[bytes], total: int) -> Block | None:
    at, step = 8, 1
    while at + 12 <= total:
        file.seek(at)
        name, size = struct.unpack(">4sq", file.read(12))
        if name == b"desc":
            _, _, _, packet, *_ = struct.unpack(">d4sIIIII", file.read(32))
            if not packet:
                return None  # compressed: a table lists the packets
            step = packet
        elif name == b"data":
            return Block(at + 16, max(0, size - 4), at + 4, ">q", 4, step)
        if size < 0:
            return None
        at += 12 + size
    return None


def _find_au(file: IO[bytes]) -> Block | None:
    file.seek(4)
    start, size, encoding, _, channels = struct.unpack(">IIIII", file.read(20))
    return Block(start, size, 8, ">I", 0, max(1, _AU_BYTES.get(encoding, 1) * channels))


class CorrectedFile:
    """An audio file whose header is corrected to the actual size.

    Args:
        file: an open, seekable file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._changes = correct_size(file).changes
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Reads bytes."""
        at = self._file.tell()
        data = self._file.read(size)
        for place, right in self._changes.items():
            if at < place + len(right) and place < at + len(data):
                changed = bytearray(data)
                for index in range(max(at, place), min(at + len(data), place + len(right))):
                    changed[index - at] = right[index - place]
                data = bytes(changed)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()

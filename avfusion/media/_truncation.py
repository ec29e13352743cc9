"""Detects files that are shorter than they state."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from avfusion.errors import MediaError
from avfusion.media._sizes import correct_size
from avfusion.media._time import seconds

_TOLERANCE = 0.25  # tolerance in seconds: containers round lengths, and may include encoder padding
_EBML, _SEGMENT = bytes.fromhex("1A45DFA3"), bytes.fromhex("18538067")
_ASF, _ASF_FILE = bytes.fromhex("3026B2758E66CF11"), bytes.fromhex("A1DCAB8C47A9CF118EE400C00C205365")
_OGG_PAGE = 65307  # bytes of the longest


class Stated:
    """Compares the length that a container states with its packets.

    A length in seconds is used for FLAC only. In other formats it may be that of another stream, from before an edit,
    or an estimate.
    """

    def __init__(self, container: InputContainer) -> None:
        names = container.format.name.split(",")
        self._total = Fraction(container.duration or 0, 1_000_000) if "flac" in names else Fraction(0)
        self._indexed = "mov" in names
        self._end = Fraction(0)
        self._last: dict[int, int] = {}

    def see(self, packet: "Packet[Any]") -> None:
        if packet.pts is not None and packet.time_base is not None:
            self._end = max(self._end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        at = packet.dts if packet.dts is not None else packet.pts
        if at is not None:
            self._last[packet.stream_index] = max(self._last.get(packet.stream_index, at), at)

    def check(self, streams: Sequence[VideoStream | AudioStream | None]) -> None:
        """Raises MediaError if the file ends before the stated end of these streams."""
        if self._total - self._end > _TOLERANCE:
            raise _cut_short(self._total, self._end)
        for stream in streams if self._indexed else ():
            if stream is None or not len(stream.index_entries):
                continue
            last = stream.index_entries[len(stream.index_entries) - 1].timestamp
            stated, held = (seconds(at, stream.time_base) for at in (last, self._last.get(stream.index, 0)))
            if stated is not None and held is not None and stated - held > _TOLERANCE:
                raise _cut_short(stated, held)


def _cut_short(stated: Fraction, held: Fraction) -> MediaError:
    return MediaError(f"is cut short: it states {float(stated):.2f} s and holds {float(held):.2f} s")


def bytes_are_missing(path: Path) -> bool:
    """Whether a file ends before its header says, or inside its last page."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if correct_size(file).missing:
            return True
        file.seek(0)
        head = file.read(4096)
        file.seek(max(0, size - _OGG_PAGE))
        tail = file.read(_OGG_PAGE)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        stated = int.from_bytes(head[4:8], "little")
        # Writers that cannot seek leave a meaningless number.
        return stated < 0x7FFFF000 and stated + 8 > size + 1
    if head[:4] == _EBML:
        segment = head.find(_SEGMENT) + 4
        end = _ebml_end(head, segment)
        return segment > 4 and end is not None and end > size
    if head[:8] == _ASF:
        return _asf_size(head) > size
    if head[:3] == b"ID3" or head[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):
        return _mp3_end(head) > size
    if head[:4] == b"OggS":
        page = tail[max(0, tail.rfind(b"OggS")) :].ljust(27, b"\0")
        return len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])
    return False


def _ebml_end(data: bytes, at: int) -> int | None:
    """End of an EBML element whose size is stored here in 1 to 8 bytes; the first set bit is the number of bytes."""
    width = 9 - data[at].bit_length() if at < len(data) and data[at] else 8
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return None if value == (1 << 7 * width) - 1 else at + width + value  # all ones: unknown


def _asf_size(head: bytes) -> int:
    """Size that an ASF file states; 0 for one that was streamed."""
    at = head.find(_ASF_FILE)
    if at < 0 or at + 92 > len(head):
        return 0
    is_broadcast = head[at + 88] & 1
    return 0 if is_broadcast else int.from_bytes(head[at + 40 : at + 48], "little")


def _mp3_end(head: bytes) -> int:
    """End of the frames of an MP3 file whose first frame states their size; 0 otherwise."""
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or at + 16 > len(head):
        return 0
    flags = int.from_bytes(head[at + 4 : at + 8], "big")
    if not flags & 2:
        return 0
    place = at + (12 if flags & 1 else 8)
    # The size starts at the first frame, 4 bytes and 9 to 32 bytes of side information earlier, and may include tags.
    return int.from_bytes(head[place : place + 4], "big") - 128

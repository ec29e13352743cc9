"""Whether a file holds as much as it states."""

from fractions import Fraction
from pathlib import Path
from typing import Any

from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition

from avfusion.errors import MediaError
from avfusion.media._time import seconds

_TOLERANCE = 0.25  # seconds: containers round their lengths, and encoders' padding is counted or not
_EBML, _SEGMENT = bytes.fromhex("1A45DFA3"), bytes.fromhex("18538067")
_OGG_PAGE = 65307  # bytes of the longest
# What the length of other formats comes from is an estimate, from a bit rate or from the last packet there is.
_STATING = ("mov", "matroska", "webm", "flac", "flv", "asf", "avi", "w64", "caf", "aiff")


class Stated:
    """Compares the lengths that a container states with the packets that come out of it."""

    def __init__(self, container: InputContainer) -> None:
        names = container.format.name.split(",")
        streams = [stream for stream in container.streams if stream.type in ("video", "audio")]
        # An MP3 states its length in the header that also tells where the encoder's delay ends.
        stating = any(name in _STATING for name in names) or (
            "mp3" in names and any(stream.start_time for stream in streams)
        )
        self._total = Fraction(container.duration or 0, 1_000_000) if stating else Fraction(0)
        # Elsewhere FFmpeg gives a stream the length of the whole.
        self._lengths = {
            stream.index: seconds(stream.duration, stream.time_base) or Fraction(0)
            for stream in streams
            if "mov" in names and not stream.disposition & Disposition.attached_pic
        }
        self._ends: dict[int, Fraction] = {}
        self._steps: dict[int, Fraction] = {}

    def see(self, packet: "Packet[Any]") -> None:
        if packet.pts is None or packet.time_base is None:
            return
        index = packet.stream_index
        end = (packet.pts + (packet.duration or 0)) * packet.time_base
        before = self._ends.get(index, end)
        if not packet.duration:  # its length is unknown: it may last as long as any before
            self._steps[index] = max(self._steps.get(index, Fraction(0)), end - before)
        self._ends[index] = max(before, end)

    def check(self) -> None:
        """Raises MediaError if the file ended before it should."""
        ends = {index: end + self._steps.get(index, 0) for index, end in self._ends.items()}
        pairs = [(length, ends.get(index, Fraction(0))) for index, length in self._lengths.items()]
        pairs.append((self._total, max(ends.values(), default=Fraction(0))))
        # Some formats count their length from 0 and some from their first packet: the end on the clock serves both.
        lost, length, end = max((length - end, length, end) for length, end in pairs)
        if lost > _TOLERANCE:
            raise MediaError(f"is cut short: it states {float(length):.2f} s and holds {float(end):.2f} s")


def bytes_are_missing(path: Path) -> bool:
    """Whether a WAV, AVI, AIFF, Matroska or Ogg file ends before it says; FFmpeg tells only of what is left."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
        file.seek(max(0, size - _OGG_PAGE))
        tail = file.read(_OGG_PAGE)
    if head[:4] in (b"RIFF", b"FORM"):
        stated = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
        # Writers that cannot go back leave a number without meaning.
        return stated < 0x7FFFF000 and stated + 8 > size + 1
    if head[:4] == _EBML:
        segment = head.find(_SEGMENT) + 4
        end = _ebml_end(head, segment)
        return segment > 4 and end is not None and end > size
    if head[:4] == b"OggS":
        page = tail[max(0, tail.rfind(b"OggS")) :].ljust(27, b"\0")
        segments = page[27 : 27 + page[26]]
        whole = len(page) >= 27 + page[26] + sum(segments)
        return not (whole and page[5] & 4)  # the flag of a stream's last page
    return False


def _ebml_end(data: bytes, at: int) -> int | None:
    """Where an element ends whose size stands here, in 1 to 8 bytes: the first bit that is set tells how many."""
    width = 9 - data[at].bit_length() if at < len(data) and data[at] else 8
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return None if value == (1 << 7 * width) - 1 else at + width + value  # all ones: unknown

"""Decoding the packets of a container."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from av import AudioFrame, AudioStream, FFmpegError, VideoFrame, VideoStream
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import PictureType

from avfusion.media._damage import Damaged
from avfusion.media._time import seconds
from avfusion.media._truncation import Stated

_BARE = (
    "aac",
    "ac3",
    "amr",
    "dts",
    "eac3",
    "loas",
    "mp3",
)  # formats of consecutive frames, with what may be between them
_SAMPLES = ("aiff", "au", "caf", "w64", "wav")  # whose last packet is shorter
_HELD = 2**26  # bytes of packets to keep while waiting for a later key frame

Frames = Iterator[VideoFrame | AudioFrame]
Fault = tuple[str, str, Fraction | None, FFmpegError | None]  # what is told of it


class MissedError(Exception):
    """Decoding did not start at the requested frame: the file has to be read from its beginning."""


class _Doubt(NamedTuple):
    """A broken MPEG-TS packet, which is no fault where two recordings were concatenated and timestamps go back."""

    fault: Fault
    dts: int | None
    left: int = 1  # packets that may be in between


def packets_of(
    container: InputContainer, streams: Sequence[VideoStream | AudioStream | None], stated: Stated
) -> "Iterator[Packet[Any]]":
    """The packets of some streams; ``stated`` receives every packet of the file."""
    for packet in container.demux():
        stated.see(packet)
        if any(packet.stream is stream for stream in streams):
            yield packet


def decode(packets: "Iterable[Packet[Any]]", damaged: Damaged) -> Frames:
    """The decoded frames of packets; ``damaged`` receives what cannot be decoded."""
    begun: set[int] = set()
    doubted: dict[int, _Doubt] = {}
    pending: Fault | None = None
    for packet in packets:
        names = packet.stream.container.format.name.split(",")
        kind, what = packet.stream.type, ""
        error: FFmpegError | None = None
        if pending is not None and packet.size:
            damaged(*pending)
            pending = None
        if (doubt := doubted.pop(packet.stream_index, None)) is not None:
            later = packet.dts is None or doubt.dts is None or packet.dts >= doubt.dts
            if later and doubt.left and packet.size and not packet.is_corrupt:
                doubted[packet.stream_index] = doubt._replace(left=doubt.left - 1)
            elif later:
                damaged(*doubt.fault)
        if kind == "audio" or packet.is_keyframe:
            begun.add(packet.stream_index)
        if packet.is_corrupt:  # the frame itself may be intact: the lost data can precede it
            what = "an incomplete packet"
        try:
            decoded = packet.decode()
        except FFmpegError as caught:
            error = caught
            decoded, what = [], what or "a packet that cannot be decoded"
            if any(name in _BARE for name in names) and not _is_frame(packet):
                what = ""
        if any(name in _SAMPLES for name in names) and packet.is_corrupt:
            what = ""
        # A recording may begin between two key frames.
        if what and packet.stream_index in begun:
            fault = kind, what, seconds(packet.pts, packet.time_base), error
            if any(name in _BARE for name in names):
                pending = fault  # the last frame of a stopped recording is often incomplete
            elif error is None and "mpegts" in names:
                doubted[packet.stream_index] = _Doubt(fault, packet.dts)
            else:
                damaged(*fault)
        for frame in decoded:
            if isinstance(frame, (VideoFrame, AudioFrame)):
                yield frame


def decode_from(
    packets: "Iterable[Packet[Any]]", pictured: VideoStream, since: Fraction, damaged: Damaged, *, sought: bool
) -> Frames:
    """Like :func:`decode`, with video from the last key frame before ``since``, and audio from the beginning.

    Raises:
        MissedError: decoding cannot start there.
    """
    held = _Held(pictured, since, sought=sought)
    first = True
    for frame in decode(held.take(packets), damaged):
        if isinstance(frame, VideoFrame) and held.key is not None:
            if frame.pts is None:
                raise MissedError
            if first and frame.pts < held.key:
                continue  # it depends on dropped packets
            if first and (frame.pts > held.key or not frame.key_frame or frame.pict_type != PictureType.I):
                raise MissedError
            first = False
        yield frame


class _Held:
    """Drops video packets that are not needed.

    Attributes:
        key: timestamp in ticks of the key frame to start with; None for the first frame of the file.
    """

    def __init__(self, pictured: VideoStream, since: Fraction, *, sought: bool) -> None:
        self.key: int | None = None
        self._pictured, self._since, self._sought = pictured, since, sought

    def take(self, packets: "Iterable[Packet[Any]]") -> "Iterator[Packet[Any]]":
        held: list[Packet[Any]] = []
        size, holds, before = 0, True, None
        for packet in packets:
            if packet.stream is not self._pictured or not holds:
                yield packet
                continue
            shown = seconds(packet.pts, packet.time_base)
            alone = packet.is_keyframe and shown is not None and shown <= self._since
            if self._sought and not held and not alone:
                raise MissedError
            if alone and (held or self._sought):
                self.key, held, size = packet.pts, [], 0
            held.append(packet)
            size += packet.size
            comes = seconds(packet.dts, packet.time_base)
            if comes is not None and before is not None and comes < before:
                raise MissedError  # the clock restarted
            before = before if comes is None else comes
            if packet.size == 0 or size > _HELD or (comes is not None and comes > self._since):
                holds = False
                yield from held
                held = []
        yield from held


def _is_frame(packet: "Packet[Any]") -> bool:
    """Whether a packet of a format without a container is a frame, not a tag."""
    return bytes(packet)[:1] in (b"\xff", b"\x0b", b"\x7f", b"\x56") and bytes(packet)[1:2] > b"\x70"

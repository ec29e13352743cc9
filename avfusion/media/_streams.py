"""Which streams of a file are read, and their frames."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from av import AudioFrame, AudioStream, FFmpegError, VideoFrame, VideoStream
from av.container import InputContainer
from av.stream import Disposition

from avfusion.errors import MediaError
from avfusion.media._time import seconds
from avfusion.media._truncation import Stated


def choose_streams(
    container: InputContainer, *, video: bool, audio: bool
) -> tuple[VideoStream | None, AudioStream | None]:
    """The streams to read: those that FFmpeg thinks best."""
    # A cover picture is an attachment of its own time, not something on display.
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    sounding = list(container.streams.audio)
    if not (moving and video) and not (sounding and audio):
        held = " and ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        asked = " or ".join(kind for kind, wanted in (("video", video), ("audio", audio)) if wanted)
        raise MediaError(f"holds no {asked} ({held})")
    best = {type(stream): stream for stream in (container.streams.best("video"), container.streams.best("audio"))}
    picture = next((stream for stream in moving if stream is best.get(VideoStream)), moving[0] if moving else None)
    if picture is not None and picture.frames == 1:  # an AVIF sequence holds its first picture beside itself
        picture = max(moving, key=lambda stream: stream.frames)
    sound = next((stream for stream in sounding if stream is best.get(AudioStream)), sounding[0] if sounding else None)
    for stream in (picture if video else None, sound if audio else None):
        if stream is not None and stream.codec_context is None:
            raise MediaError(f"its {stream.type} is of a kind that FFmpeg cannot decode")
    if picture is not None and video and picture.disposition & Disposition.dependent:
        raise MediaError("is an image in tiles, which FFmpeg alone does not put together; pillow-heif's opener does")
    if picture is not None:
        picture.thread_type = "AUTO"
    return picture if video else None, sound if audio else None


def decode(
    container: InputContainer,
    streams: Sequence[VideoStream | AudioStream | None],
    stated: Stated,
    *,
    damaged: Callable[[str], None] | None = None,
) -> Iterator[VideoFrame | AudioFrame]:
    """The frames of these streams as they come, while ``stated`` sees every packet.

    A damaged packet is an error, unless ``damaged`` is to be told of it, and of which type its stream is.
    """
    for packet in container.demux():
        stated.see(packet)
        if not any(packet.stream is stream for stream in streams):
            continue
        if packet.is_corrupt:
            if damaged is None:
                raise MediaError("is damaged or cut short: it holds an incomplete packet")
            damaged(packet.stream.type)  # and still it may be whole: what was lost can lie before it
        try:
            decoded = packet.decode()
        except FFmpegError:
            if damaged is None:
                raise
            if not packet.is_corrupt:
                damaged(packet.stream.type)
            continue
        for frame in decoded:
            if isinstance(frame, (VideoFrame, AudioFrame)):
                yield frame


def first_frames(frames: Iterator[VideoFrame | AudioFrame], streams: int) -> list[VideoFrame | AudioFrame]:
    """The first frames, as many as it takes to have one of each stream, within reason."""
    head: list[VideoFrame | AudioFrame] = []
    pictures = 0
    for frame in frames:
        head.append(frame)
        pictures += isinstance(frame, VideoFrame)
        if (pictures > 0) + (len(head) > pictures) == streams or pictures == 16 or len(head) == 1000:
            break
    return head


def beginning(container: InputContainer, head: Sequence[VideoFrame | AudioFrame]) -> Fraction:
    """Where the file begins on its own clock, given its first frames."""
    stated = Fraction(container.start_time or 0, 1_000_000)
    starts = [seconds(stream.start_time, stream.time_base) for stream in container.streams]
    starts += [seconds(frame.pts, frame.time_base) for frame in head]
    # What FFmpeg states is rounded to microseconds, and now and then later than the first frame.
    return min((at for at in starts if at is not None and at - stated < Fraction(1, 500_000)), default=stated)


def key_before(stream: VideoStream | AudioStream, time: Fraction) -> Fraction | None:
    """When the last picture comes, before a time, from which decoding can begin; None where no index tells."""
    entries: Any = getattr(stream, "index_entries", ())
    place = entries.search_timestamp(int(time / stream.time_base)) if len(entries) else -1
    return entries[place].timestamp * stream.time_base if place >= 0 else None

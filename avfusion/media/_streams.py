"""Choosing the streams of a file."""

import contextlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, TypeVar

from av import AudioFrame, AudioLayout, AudioStream, VideoFrame, VideoStream
from av.container import InputContainer
from av.stream import Disposition

from avfusion.errors import MediaError
from avfusion.media._time import seconds

_Stream = TypeVar("_Stream", VideoStream, AudioStream)


def choose_streams(
    container: InputContainer, *, video: bool, audio: bool, audio_track: int | None = None
) -> tuple[VideoStream | None, AudioStream | None]:
    """Chooses the streams to read: FFmpeg's choice among those that can be decoded.

    Raises:
        MediaError: the file has none of the requested streams, or not this track.
    """
    # A cover image is an attachment, not video.
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    sounding = list(container.streams.audio)
    if not (moving and video) and not (sounding and audio):
        held = " and ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        asked = " or ".join(kind for kind, wanted in (("video", video), ("audio", audio)) if wanted)
        raise MediaError(f"holds no {asked} ({held})")
    if audio and audio_track is not None:
        if audio_track >= len(sounding):
            raise MediaError(f"holds no audio track {audio_track}: it has {len(sounding)}, counted from 0")
        sounding = [sounding[audio_track]]
    picture = _best(moving, container.streams.best("video")) if video else None
    sound = _best(sounding, container.streams.best("audio")) if audio else None
    if picture is not None:
        if picture.frames == 1:  # an AVIF sequence stores its first frame separately, too
            picture = max(moving, key=lambda stream: stream.frames)
        if picture.disposition & Disposition.dependent:
            raise MediaError(
                "is an image in tiles, which FFmpeg alone does not put together; pillow-heif's opener does"
            )
        picture.thread_type = "AUTO"
    if sound is not None:
        _forget_order(sound)
    return picture, sound


def is_image(container: InputContainer) -> bool:
    """Whether a format is for still images, so that a file with one frame is an image."""
    name = container.format.name
    kinds = name in ("gif", "apng", "image2pipe") or name.endswith("_pipe")
    return (kinds or (name.startswith("mov") and not container.duration)) and not container.streams.audio


def _best(streams: Sequence[_Stream], best: object) -> _Stream | None:
    """FFmpeg's choice among the streams that can be decoded, or None."""
    known = [stream for stream in streams if stream.codec_context is not None]
    if streams and not known:
        raise MediaError(f"its {streams[0].type} is of a kind that FFmpeg cannot decode")
    return next((stream for stream in known if stream is best), known[0] if known else None)


def _forget_order(sound: AudioStream) -> None:
    """Replaces a custom channel layout by a plain one.

    PyAV frees the channel names of a custom layout twice; those of the replacement are freed once.
    """
    layout = sound.codec_context.layout
    with contextlib.suppress(UnicodeDecodeError):
        if "(" not in layout.name:
            return
    sound.codec_context.layout = AudioLayout(f"{layout.nb_channels} channels")


def first_frames(frames: Iterator[VideoFrame | AudioFrame], streams: int) -> list[VideoFrame | AudioFrame]:
    """The first frames, until there is one of each stream or a limit is reached."""
    head: list[VideoFrame | AudioFrame] = []
    pictures = 0
    for frame in frames:
        head.append(frame)
        pictures += isinstance(frame, VideoFrame)
        if (pictures > 0) + (len(head) > pictures) == streams or pictures == 16 or len(head) == 1000:
            break
    return head


def beginning(container: InputContainer, head: Sequence[VideoFrame | AudioFrame]) -> Fraction:
    """The file's start time on its own clock, from its first frames."""
    # FFmpeg's start time includes subtitles and data, which may begin at any time.
    starts = [
        seconds(stream.start_time, stream.time_base)
        for stream in (*container.streams.video, *container.streams.audio)
        if not stream.disposition & Disposition.attached_pic
    ]
    known = [at for at in starts if at is not None] or [Fraction(container.start_time or 0, 1_000_000)]
    return min([*known, *(at for frame in head if (at := seconds(frame.pts, frame.time_base)) is not None)])


def key_before(stream: VideoStream | AudioStream, time: Fraction) -> Fraction | None:
    """Timestamp of the last key frame before a time; None without an index."""
    entries: Any = getattr(stream, "index_entries", ())
    place = entries.search_timestamp(int(time / stream.time_base)) if len(entries) else -1
    return entries[place].timestamp * stream.time_base if place >= 0 else None

"""Opening a media file, reading it through once, and telling what is wrong with it."""

import math
import os
from collections.abc import Collection
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import av
from av import VideoFrame, VideoStream
from av.container import InputContainer

from avfusion.errors import InvalidValueError, MediaError
from avfusion.media._opening import MediaFile, open_container, open_file, shown
from avfusion.media._pictures import Pictures
from avfusion.media._sound import Sound
from avfusion.media._streams import beginning, choose_streams, decode, first_frames
from avfusion.media._time import PREROLL, TICK
from avfusion.media._truncation import Stated, bytes_are_missing
from avfusion.types import Video, Waveform

_ANIMATED = ("gif", "apng")  # of image formats, those that state a duration even for one picture


class Media(NamedTuple):
    """What a file holds: a batch of one.

    Attributes:
        video: its pictures, or None.
        waveform: its sound, mono, or None.
        duration: seconds from the start of the clip to the end of its last picture or sound; 0 for a still image.

    Example:
        >>> import torch
        >>> from avfusion import Waveform
        >>> from avfusion.media import Media
        >>> media = Media(video=None, waveform=Waveform.from_samples([torch.zeros(8000)], 16000), duration=0.5)
        >>> media.video is None, media.waveform.durations.tolist()
        (True, [0.5])
    """

    video: Video | None
    waveform: Waveform | None
    duration: float


class Request(NamedTuple):
    start: float
    end: float
    frame_rate: float | None
    sample_rate: int
    size: tuple[int, int] | None
    video: bool
    audio: bool


def load_media(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    frame_rate: float | None = 2.0,
    sample_rate: int = 16000,
    start: float = 0.0,
    end: float | None = None,
    size: int | tuple[int, int] | None = None,
    video: bool = True,
    audio: bool = True,
    require: Collection[Literal["video", "audio"]] = (),
    timeout: float = 1800.0,
) -> Media:
    """Reads pictures at exact times and mono sound from a file of any of FFmpeg's formats.

    The path stands for that one file: no name is a pattern or an address, and formats that refer to other files or
    addresses, such as playlists, are refused.

    Both are on one clock. Its 0 is ``start`` seconds after the file's own beginning; a stream that begins later keeps
    its distance in ``video.spans`` and ``waveform.start``.

    With a ``frame_rate``, time is cut into spans ``[i, i + 1) / frame_rate`` from 0 on, and the video has one picture
    for each span that it touches: the one on display at the span's middle, so a cut exactly between two spans is never
    ambiguous. Where the middle lies outside the video, it is the nearest picture: a video from 0 to ``d`` gives
    ``ceil(d * frame_rate)`` of them. Without one, every picture is kept with the span for which it is displayed.

    Sound of any layout is mixed down without exceeding full scale; gaps in it become silence. Rotation and mirroring
    that the file asks for are applied to pictures; pixels that are not square are not stretched, and transparency is
    dropped. An image file gives :meth:`avfusion.Video.from_image` whatever ``start`` and ``end`` are. Cover art is no
    video.

    Args:
        path: a local file.
        frame_rate: pictures a second, or None for each one in the file.
        sample_rate: of the sound, in Hz.
        start: seconds from the beginning of the file.
        end: seconds from the beginning of the file; to its end without it.
        size: ``(height, width)`` of the pictures, or one number for both; as in the file without it.
        video: whether to read pictures.
        audio: whether to read sound.
        require: ``"video"``, ``"audio"`` or both: what the file must hold. Without it, what is absent is None.
        timeout: seconds for opening and reading the file.

    Returns:
        ``video.pixels`` is ``(1, frame, 3, height, width)`` uint8 RGB, ``waveform.samples`` ``(1, sample)`` float32.

    Raises:
        MediaError: a file that is missing, empty, broken, cut short, or holds nothing of what is asked for. Being cut
            short shows where a format states its length, as all but MPEG-TS, bare AAC and bare MP3 do, and costs
            more than a quarter of a second. Or a file that takes longer than ``timeout``.
        InvalidValueError: an argument out of its range.
        InvalidTypeError: a path of another type.

    Example:
        >>> import tempfile, torch
        >>> from avfusion.media import load_media, write_video
        >>> path = tempfile.mkdtemp() + "/clip.mp4"
        >>> write_video(path, torch.zeros(20, 3, 32, 32), frame_rate=10.0, samples=torch.zeros(32000))
        >>> media = load_media(path, frame_rate=2.0)
        >>> media.video.pixels.shape, media.video.spans[0, -1].tolist(), media.waveform.durations.tolist()
        (torch.Size([1, 4, 3, 32, 32]), [1.5, 2.0], [2.0])
    """
    request = checked(frame_rate, sample_rate, start, end, size, video, audio, require)
    if not timeout > 0:
        raise InvalidValueError(f"timeout: must be a positive number of seconds, found {timeout}")
    name = shown(path)
    local = Path(os.fsdecode(path))
    try:
        with MediaFile(open_file(local), local.name, timeout=timeout) as file:
            # None: it landed too late, and what lies before is wanted.
            media, complete = _read(file, request, seek=True) if start > 0 else (None, False)
            if media is None:
                media, complete = _read(file, request, seek=False)
        if complete and bytes_are_missing(local):
            raise MediaError("is cut short: bytes are missing at its end")
        assert media is not None
        for kind, value in (("video", media.video), ("audio", media.waveform)):
            if kind in require and value is None:
                raise MediaError(f"holds no {kind}, which is required")
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error.__cause__
    except av.FFmpegError as error:
        raise MediaError(f"{name}: cannot be read, it is broken or no media file ({error.strerror})") from error
    return media


def checked(
    frame_rate: float | None,
    sample_rate: int,
    start: float,
    end: float | None,
    size: int | tuple[int, int] | None,
    video: bool,
    audio: bool,
    require: Collection[str],
) -> Request:
    if frame_rate is not None and not 0 < frame_rate < math.inf:
        raise InvalidValueError(f"frame_rate: must be a positive number per second or None, found {frame_rate}")
    if sample_rate != int(sample_rate) or sample_rate <= 0:
        raise InvalidValueError(f"sample_rate: must be a positive whole number of Hz, found {sample_rate}")
    if not 0 <= start < math.inf:
        raise InvalidValueError(f"start: must be seconds from 0 on, found {start}")
    if end is not None and not end > start:
        raise InvalidValueError(f"end: must lie after start = {start}, found {end}")
    sides = (size, size) if isinstance(size, int) else size
    if sides is not None and (len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides)):
        raise InvalidValueError(f"size: must be one or two positive whole numbers of pixels, found {size}")
    wanted = {"video": video, "audio": audio}
    if not any(wanted.values()):
        raise InvalidValueError("video, audio: at least one must be read, found neither")
    if isinstance(require, str) or not all(wanted.get(kind) for kind in require):
        raise InvalidValueError(f'require: must hold "video" or "audio" that is also read, found {require!r}')
    return Request(start, math.inf if end is None else end, frame_rate, int(sample_rate), sides, video, audio)


def _read(file: MediaFile, request: Request, *, seek: bool) -> tuple[Media | None, bool]:
    """What the clip holds, or None if the seek missed its beginning; and whether the file was read to its end."""
    file.seek(0)
    try:
        with open_container(file) as container:
            found = _read_streams(container, file, request, seek=seek)
    except (av.FFmpegError, MediaError):
        file.check()  # what a file seems to be once its deadline has passed says nothing about it
        raise
    file.check()
    return found


def _read_streams(
    container: InputContainer, file: MediaFile, request: Request, *, seek: bool
) -> tuple[Media | None, bool]:
    pictured, sounding = choose_streams(container, video=request.video, audio=request.audio)
    stated = Stated(container)
    frames = decode(container, (pictured, sounding), stated)
    head = first_frames(frames, (pictured is not None) + (sounding is not None))
    zero = beginning(container, head)
    # Times after a seek in bare sound are guesses; it is quickly read from its beginning.
    seek = seek and pictured is not None and container.start_time is not None
    if seek:
        container.seek(int(max(zero, zero + Fraction(request.start - PREROLL)) * 1_000_000))
        head, frames = [], decode(container, (pictured, sounding), stated)

    pictures = Pictures(
        zero=zero, begin=request.start, end=request.end, frame_rate=request.frame_rate, size=request.size
    )
    sound = Sound(zero=zero, begin=request.start, end=request.end, sample_rate=request.sample_rate)
    complete = True
    for frame in chain(head, frames):
        file.deadline.check()
        if isinstance(frame, VideoFrame):
            pictures.add(frame)
        else:
            sound.add(frame)
        if (pictured is None or pictures.done) and (sounding is None or sound.done):
            complete = False
            break
    if complete:
        stated.check()
    if seek and any(first is not None and first > 0 for first in (pictures.first, sound.first)):
        return None, False
    return _finish(container, pictured, pictures, sound, request), complete


def _finish(
    container: InputContainer, pictured: VideoStream | None, pictures: Pictures, sound: Sound, request: Request
) -> Media:
    kind = container.format.name
    image = kind in _ANIMATED or not container.duration
    if image and pictures.count == 1 and not container.streams.audio:
        return Media(pictures.still(), None, 0.0)
    rate = pictured.average_rate if pictured is not None else None
    video = pictures.finish(fallback_duration=float(1 / rate) if rate else TICK)
    waveform = sound.finish()
    if video is None and waveform is None:
        ends = max(pictures.end, sound.end)
        if ends == -math.inf:
            raise MediaError("holds nothing that can be decoded")
        raise MediaError(
            f"holds nothing between {request.start} s and {request.end} s, it ends at {request.start + ends:.3f} s"
        )
    ends = max([pictures.end] * (video is not None) + [sound.end] * (waveform is not None))
    return Media(video, waveform, ends)

"""Opening a media file, reading it through once, and telling what is wrong with it."""

import math
import os
from collections.abc import Collection
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import av
from av import VideoFrame, VideoStream
from av.container import InputContainer

from avfusion.errors import InvalidValueError, MediaError
from avfusion.media._limits import MediaLimits, check_picture, check_sizes, is_out_of_memory, limit_stream
from avfusion.media._media import Media
from avfusion.media._opening import MediaFile, open_container, open_file, shown
from avfusion.media._pictures import Pictures
from avfusion.media._request import Request, checked
from avfusion.media._sound import Sound
from avfusion.media._stills import is_animated, open_image, read_animation, read_still
from avfusion.media._streams import beginning, choose_streams, decode, first_frames
from avfusion.media._time import PREROLL, TICK
from avfusion.media._truncation import Stated, bytes_are_missing
from avfusion.types import Video, Waveform

_ANIMATED = ("gif", "apng")  # what FFmpeg reads of the image formats that can move


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
    limits: MediaLimits = MediaLimits(),  # noqa: B008  # it is frozen
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
        limits: on what it may take of memory.

    Returns:
        ``video.pixels`` is ``(1, frame, 3, height, width)`` uint8 RGB, ``waveform.samples`` ``(1, sample)`` float32.

    Raises:
        MediaError: a file that is missing, empty, broken, cut short, or holds nothing of what is asked for. Being cut
            short shows where a format states its length, as all but MPEG-TS, bare AAC and bare MP3 do, and costs
            more than a quarter of a second. Or a file that takes longer than ``timeout``, or more than the ``limits``.
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
    request = checked(frame_rate, sample_rate, start, end, size, video, audio, require, limits)
    if not timeout > 0:
        raise InvalidValueError(f"timeout: must be a positive number of seconds, found {timeout}")
    name = shown(path)
    local = Path(os.fsdecode(path))
    try:
        with MediaFile(open_file(local), local.name, timeout=timeout) as file:
            media, complete = _read_image(file, request), False
            if media is None and start > 0:
                media, complete = _read(file, request, seek=True)
            if media is None:  # or the seek landed too late, and what lies before is wanted
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
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MediaError(f"{name}: asks for more memory than there is; smaller limits=... tell that at once") from error
    return media


def _read_image(file: MediaFile, request: Request) -> Media | None:
    """What an image file holds; None for what FFmpeg is to read."""
    image = open_image(file)
    if image is None:
        return None
    with image:
        check_picture(image.height, image.width, request.limits)
        try:
            if not is_animated(image):
                if not request.video:
                    raise MediaError("holds no audio (an image)")
                return Media(Video.from_image(read_still(image, request.size)[None]), None, 0.0)
            if image.format != "WEBP":
                return None
            if not request.video:
                raise MediaError("holds no audio (an animation)")
            pictures, _ = _collectors(request, Fraction(0))
            for frame in read_animation(image):
                pictures.add(frame)
                if pictures.done:
                    break
        finally:
            file.check()
    return _media(pictures.finish(fallback_duration=TICK), None, pictures.end, request)


def _read(file: MediaFile, request: Request, *, seek: bool) -> tuple[Media | None, bool]:
    """What the clip holds, or None if the seek missed its beginning; and whether the file was read to its end."""
    file.seek(0)
    try:
        with open_container(file, limits=request.limits) as container:
            try:
                found = _read_streams(container, file, request, seek=seek)
            except av.FFmpegError as error:
                check_sizes(container, request.limits, error)
                raise
    except (av.FFmpegError, MediaError):
        file.check()  # what a file seems to be once its deadline has passed says nothing about it
        raise
    file.check()
    return found


def _read_streams(
    container: InputContainer, file: MediaFile, request: Request, *, seek: bool
) -> tuple[Media | None, bool]:
    pictured, sounding = choose_streams(container, video=request.video, audio=request.audio)
    limit_stream(pictured, request.limits)
    stated = Stated(container)
    frames = decode(container, (pictured, sounding), stated)
    head = first_frames(frames, (pictured is not None) + (sounding is not None))
    zero = beginning(container, head)
    # Times after a seek in bare sound are guesses; it is quickly read from its beginning.
    seek = seek and pictured is not None and container.start_time is not None
    if seek:
        container.seek(int(max(zero, zero + Fraction(request.start - PREROLL)) * 1_000_000))
        head, frames = [], decode(container, (pictured, sounding), stated)

    pictures, sound = _collectors(request, zero)
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


def _collectors(request: Request, zero: Fraction) -> tuple[Pictures, Sound]:
    clip: dict[str, Any] = {"zero": zero, "begin": request.start, "end": request.end, "limits": request.limits}
    return (
        Pictures(frame_rate=request.frame_rate, size=request.size, **clip),
        Sound(sample_rate=request.sample_rate, **clip),
    )


def _finish(
    container: InputContainer, pictured: VideoStream | None, pictures: Pictures, sound: Sound, request: Request
) -> Media:
    kind = container.format.name
    image = kind in _ANIMATED or kind.endswith("_pipe") or (kind.startswith("mov") and not container.duration)
    if image and pictures.count == 1 and not container.streams.audio:
        return Media(pictures.still(), None, 0.0)
    rate = pictured.average_rate if pictured is not None else None
    video = pictures.finish(fallback_duration=float(1 / rate) if rate else TICK)
    waveform = sound.finish()
    ends = max([pictures.end] * (video is not None) + [sound.end] * (waveform is not None), default=-math.inf)
    return _media(video, waveform, max(pictures.end, sound.end) if ends == -math.inf else ends, request)


def _media(video: Video | None, waveform: Waveform | None, ends: float, request: Request) -> Media:
    if video is not None or waveform is not None:
        return Media(video, waveform, ends)
    if ends == -math.inf:
        raise MediaError("holds nothing that can be decoded")
    raise MediaError(
        f"holds nothing between {request.start} s and {request.end} s, it ends at {request.start + ends:.3f} s"
    )

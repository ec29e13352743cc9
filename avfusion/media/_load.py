"""Files to pictures and sound on one clock."""

import os
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import av

from avfusion.errors import InvalidValueError, MediaError
from avfusion.media._clip import read_clip, to_collectors, to_media
from avfusion.media._damage import Damage, Policy, reason
from avfusion.media._limits import MediaLimits, is_out_of_memory
from avfusion.media._media import Media
from avfusion.media._opening import MediaFile, open_file, shown
from avfusion.media._request import Request, checked
from avfusion.media._sizes import CorrectedFile
from avfusion.media._stills import is_animated, open_image, read_animation, read_still
from avfusion.media._time import TICK
from avfusion.media._truncation import bytes_are_missing
from avfusion.types import Video


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
    audio_track: int | None = None,
    require: Collection[Literal["video", "audio"]] = (),
    damaged: Literal["error", "skip"] = "error",
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

    What other players read is read: sizes and lengths in headers that say nothing or the wrong thing, an Ogg file
    without an end or with a second stream after it, tags and padding between the frames of an MP3, a recording that
    begins or ends amid a picture. A cut from ``start`` to ``end`` has the pictures and samples of the whole file there;
    pictures before it are skipped where the file tells where to begin, sound is decoded from its beginning.

    Args:
        path: a local file.
        frame_rate: pictures a second, or None for each one in the file.
        sample_rate: of the sound, in Hz.
        start: seconds from the beginning of the file.
        end: seconds from the beginning of the file; to its end without it.
        size: ``(height, width)`` of the pictures, or one number for both; as in the file without it.
        video: whether to read pictures.
        audio: whether to read sound.
        audio_track: which sound to read where there are several, counted from 0. Without it, the one that FFmpeg thinks
            best of those that can be decoded, silent or not: the default, the one of most channels, the first.
        require: ``"video"``, ``"audio"`` or both: what the file must hold. Without it, what is absent is None.
        damaged: ``"error"`` to refuse a file of which pictures or sound are missing, ``"skip"`` to take what there is
            and tell in ``skipped`` what is not.
        timeout: seconds for opening and reading the file.
        limits: on what it may take of memory.

    Returns:
        ``video.pixels`` is ``(1, frame, 3, height, width)`` uint8 RGB, ``waveform.samples`` ``(1, sample)`` float32.

    Raises:
        MediaError: a file that is missing, empty, broken, or holds nothing of what is asked for. One of which pictures
            or sound are missing, unless they are skipped: a packet that is incomplete or cannot be decoded, or an end
            before the one that the format states. Or a file that takes longer than ``timeout``, or more than the
            ``limits``.
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
    request = checked(frame_rate, sample_rate, start, end, size, video, audio, require, limits, audio_track)
    if not timeout > 0:
        raise InvalidValueError(f"timeout: must be a positive number of seconds, found {timeout}")
    if damaged not in get_args(Policy):
        raise InvalidValueError(f'damaged: must be "error" or "skip", found {damaged!r}')
    name, damage = shown(path), Damage(damaged)
    local = Path(os.fsdecode(path))
    try:
        with MediaFile(CorrectedFile(open_file(local)), local.name, timeout=timeout) as file:
            media, complete = _read_image(file, request, damage), False
            if media is None:
                media, complete = read_clip(file, request, damage)
        if complete and bytes_are_missing(local):
            damage.whole(MediaError("is cut short: bytes are missing at its end"))
        media = media._replace(skipped=damage.told)
        for kind, value in (("video", media.video), ("audio", media.waveform)):
            if kind in require and value is None:
                raise MediaError(f"holds no {kind}, which is required")
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error.__cause__
    except av.FFmpegError as error:
        raise MediaError(f"{name}: cannot be read, it is broken or no media file{reason(error)}") from error
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise MediaError(f"{name}: asks for more memory than there is; smaller limits=... tell that at once") from error
    return media


def _read_image(file: MediaFile, request: Request, damage: Damage) -> Media | None:
    """What an image file holds; None for what FFmpeg is to read."""
    image = open_image(file, request.limits)
    if image is None:
        return None
    with image:
        try:
            if not is_animated(image):
                if not request.video:
                    raise MediaError("holds no audio (an image)")
                try:
                    pixels = read_still(image, request.size)
                except MediaError as error:
                    file.check()
                    damage.whole(error)
                    pixels = read_still(image, request.size, partial=True)
                return Media(Video.from_image(pixels[None]), None, 0.0)
            if not request.video:
                raise MediaError("holds no audio (an animation)")
            pictures, _ = to_collectors(request, Fraction(0))
            for frame in read_animation(image):
                pictures.add(frame)
                if pictures.done:
                    break
        finally:
            file.check()
    return to_media(pictures.finish(fallback_duration=TICK), None, pictures.end, request)

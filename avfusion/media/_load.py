"""Loading a media file."""

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
    """Reads a media file: video frames at exact times, and mono audio.

    The path names exactly one file: it is never a pattern or an address, and formats that refer to other files or
    addresses, such as playlists, are refused.

    Audio and video share one clock. Its 0 is ``start`` seconds after the beginning of the file. A stream that begins
    later keeps its offset in ``video.spans`` and ``waveform.start``.

    With a ``frame_rate``, time is divided into spans ``[i, i + 1) / frame_rate``. Each span that the video touches gets
    the frame that is shown at the middle of the span, or the nearest frame if the middle is outside the video: a video
    from 0 to ``d`` gives ``ceil(d * frame_rate)`` frames. With ``frame_rate=None``, all frames are returned with the
    spans for which they are shown.

    Audio is mixed down without clipping; gaps become silence. Rotation and mirroring are applied; non-square pixels are
    not stretched, and transparency is dropped. An image file gives :meth:`avfusion.Video.from_image` for any ``start``
    and ``end``. Cover art is not video.

    Files that common players read are read as well: wrong or missing sizes in headers, an Ogg file without an end or
    with a second stream after it, tags and padding between the frames of an MP3, and recordings that begin or end
    inside a frame. A clip from ``start`` to ``end`` has the same frames and samples as the whole file. Video is decoded
    from the last key frame before ``start`` if the file has an index; audio is decoded from the beginning.

    Args:
        path: a local file.
        frame_rate: frames per second, or None for all frames of the file.
        sample_rate: sample rate of the returned audio in Hz.
        start: start of the clip, in seconds from the beginning of the file.
        end: end of the clip, in seconds from the beginning of the file; by default the end of the file.
        size: ``(height, width)`` of the frames, or one number for both; by default the size in the file.
        video: whether to read video.
        audio: whether to read audio.
        audio_track: index of the audio track, from 0. By default FFmpeg's choice among the tracks that can be decoded:
            the default track, then the one with the most channels, then the first.
        require: ``"video"``, ``"audio"`` or both: streams that the file must have. Other missing streams are None.
        damaged: ``"error"`` to refuse a damaged file, ``"skip"`` to read the intact parts and list the others in
            ``skipped``.
        timeout: seconds for opening and reading the file.
        limits: memory limits.

    Returns:
        ``video.pixels`` is ``(1, frame, 3, height, width)`` uint8 RGB, ``waveform.samples`` ``(1, sample)`` float32.

    Raises:
        MediaError: the file is missing, empty or broken, has none of the requested streams, takes longer than
            ``timeout``, or exceeds ``limits``; with ``damaged="error"`` also if a packet is incomplete or cannot be
            decoded, or the file ends before its stated length.
        InvalidValueError: an argument is out of range.
        InvalidTypeError: ``path`` has another type.

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

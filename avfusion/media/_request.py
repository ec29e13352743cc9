"""The checked arguments of :func:`~avfusion.media.load_media`."""

import math
from collections.abc import Collection
from typing import NamedTuple

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.media._limits import MediaLimits


class Request(NamedTuple):
    start: float
    end: float
    frame_rate: float | None
    sample_rate: int
    size: tuple[int, int] | None
    video: bool
    audio: bool
    limits: MediaLimits
    audio_track: int | None


def checked(
    frame_rate: float | None,
    sample_rate: int,
    start: float,
    end: float | None,
    size: int | tuple[int, int] | None,
    video: bool,
    audio: bool,
    require: Collection[str],
    limits: MediaLimits,
    audio_track: int | None,
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
    if not isinstance(limits, MediaLimits):
        raise InvalidTypeError(f"limits: must be MediaLimits, found {type(limits).__name__}")
    if audio_track is not None and (isinstance(audio_track, bool) or not isinstance(audio_track, int)):
        raise InvalidTypeError(f"audio_track: must be a whole number or None, found {type(audio_track).__name__}")
    if audio_track is not None and audio_track < 0:
        raise InvalidValueError(f"audio_track: must be counted from 0, found {audio_track}")
    end = math.inf if end is None else end
    return Request(start, end, frame_rate, int(sample_rate), sides, video, audio, limits, audio_track)

"""What a file may take of memory, however little of it there is."""

import errno
from dataclasses import dataclass, fields

from av import FFmpegError, VideoStream
from av.container import InputContainer

from avfusion.errors import InvalidTypeError, InvalidValueError, MediaError

_SMALLEST = 1024  # pixels that the smallest picture counts as: a picture costs more than its pixels


class LimitError(MediaError):
    """A limit that is exceeded: unlike damage, nothing to go on after."""


@dataclass(frozen=True)
class MediaLimits:
    """What reading a file may take, checked before memory is; ``math.inf`` is no limit.

    A few bytes can ask for gigabytes: of a picture with huge sides, of one picture that is held for hours and so
    repeated at the frame rate, of silence between two distant sounds. The defaults let through an hour of video at 2
    frames per second and 224 × 224 pixels, a full-HD clip of four minutes at 2 frames per second, and four hours of
    sound at 16 kHz; reading then takes at most about 3 GB for pictures and 2 GB for sound.

    Args:
        picture_pixels: of one picture as it is coded.
        total_pixels: of all pictures that are kept, in the size in which they are; each counts as at least 1024.
        total_samples: of the sound that is kept, at its sample rate there, silence in gaps included.
        gap_seconds: for which sound may be silent, or a picture be on display longer than stated, at one time.
        total_gap_seconds: for which they may be in all.

    Raises:
        InvalidTypeError: a limit that is no number.
        InvalidValueError: one that is not positive.

    Example:
        >>> from avfusion.media import MediaLimits
        >>> MediaLimits(total_pixels=10 * 2**30).gap_seconds
        3600.0
    """

    picture_pixels: float = 2**26
    total_pixels: float = 2**30
    total_samples: float = 2**28
    gap_seconds: float = 3600.0
    total_gap_seconds: float = 4 * 3600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidTypeError(f"{field.name}: must be a number, found {type(value).__name__}")
            if not value > 0:
                raise InvalidValueError(f"{field.name}: must be positive, found {value}")


def decoder_options(limits: MediaLimits) -> dict[str, str]:
    """What makes FFmpeg's decoders refuse a picture that is too large before there is memory for it."""
    return {"max_pixels": str(int(min(limits.picture_pixels, 2**31 - 1)))}


def limit_stream(stream: VideoStream | None, limits: MediaLimits) -> None:
    """Makes the decoder of a stream keep to the limits.

    Raises:
        LimitError: pictures that are stated to be too large.
    """
    if stream is None:
        return
    context = stream.codec_context
    check_picture(context.height, context.width, limits)
    context.options = {**context.options, **decoder_options(limits)}


def check_sizes(container: InputContainer, limits: MediaLimits, error: FFmpegError) -> None:
    """Raises LimitError where decoding failed of pictures whose size is not known, maybe because it is too large."""
    contexts = [stream.codec_context for stream in container.streams.video if stream.codec_context is not None]
    too_large = error.errno in (errno.EINVAL, errno.ERANGE)  # FFmpeg's answer to a size that changes
    if contexts and (too_large or not any(context.width for context in contexts)):
        raise LimitError(
            f"cannot be read, it is broken or no media file ({error.strerror}), or has a picture of more than "
            f"{limits.picture_pixels:.0f} pixels, which limits=MediaLimits(picture_pixels=...) allows"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory for Python, for PyTorch, which raises a RuntimeError, or for a mapping."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return "allocate memory" in str(error) or "enough memory" in str(error)


def check_picture(height: int, width: int, limits: MediaLimits) -> None:
    """Raises LimitError for a picture that is too large."""
    if height * width > limits.picture_pixels:
        raise LimitError(
            f"has pictures of {height} × {width} pixels, more than {limits.picture_pixels:.0f}; "
            "limits=MediaLimits(picture_pixels=...) allows more"
        )


def check_pictures(count: float, height: int, width: int, limits: MediaLimits) -> None:
    """Raises LimitError for so many pictures that they are too large together."""
    if count * max(height * width, _SMALLEST) > limits.total_pixels:
        raise LimitError(
            f"asks for {count:.0f} or more pictures of {height} × {width}, together more than "
            f"{limits.total_pixels:.0f} pixels; a smaller size or frame_rate takes less, and "
            "limits=MediaLimits(total_pixels=...) allows more"
        )


def check_samples(count: float, limits: MediaLimits) -> None:
    """Raises LimitError for too much sound."""
    if count > limits.total_samples:
        raise LimitError(
            f"asks for {count:.0f} or more samples of sound, more than {limits.total_samples:.0f}; a part of it or a "
            "smaller sample_rate takes less, and limits=MediaLimits(total_samples=...) allows more"
        )


class Gaps:
    """Counts the seconds in which nothing comes.

    Args:
        what: comes or does not, for messages.
        limits: on them.
    """

    def __init__(self, what: str, limits: MediaLimits) -> None:
        self._what, self._limits, self._total = what, limits, 0.0

    def add(self, start: float, end: float, *, since: float) -> None:
        """Nothing came from ``start`` to ``end``; the last that came began at ``since``.

        Raises:
            LimitError: a gap that is too long, or that makes all of them too long.
        """
        if end - since > self._limits.gap_seconds:
            raise LimitError(
                f"{self._what} times jump, from {since:.3f} s to {end:.3f} s; "
                "limits=MediaLimits(gap_seconds=...) allows more"
            )
        self._total += max(0.0, end - start)
        if self._total > self._limits.total_gap_seconds:
            raise LimitError(
                f"has no {self._what} for {self._total:.3f} s in all up to {end:.3f} s, more than "
                f"{self._limits.total_gap_seconds:g} s; limits=MediaLimits(total_gap_seconds=...) allows more"
            )

"""Memory limits for reading a file."""

import errno
from dataclasses import dataclass, fields

from av import FFmpegError, VideoStream
from av.container import InputContainer

from avfusion.errors import InvalidTypeError, InvalidValueError, MediaError

_SMALLEST = 1024  # smallest number of pixels that a frame counts as, for its overhead


class LimitError(MediaError):
    """A limit is exceeded. Reading stops, also with ``damaged="skip"``."""


@dataclass(frozen=True)
class MediaLimits:
    """Memory limits for reading a file, checked before memory is allocated; ``math.inf`` disables one.

    A few bytes can describe gigabytes: a frame with a huge size, a frame that is held for hours and repeated at the
    frame rate, or silence between two distant audio packets. The defaults allow an hour of video at 2 frames per second
    and 224 × 224 pixels, a full-HD clip of four minutes at 2 frames per second, and four hours of audio at 16 kHz.
    Reading then takes at most about 3 GB for frames and 2 GB for audio.

    Args:
        frame_pixels: pixels of one coded frame.
        total_pixels: pixels of all returned frames, at their returned size; each frame counts as at least 1024.
        total_samples: samples of the returned audio, at its returned sample rate, including silence in gaps.
        gap_seconds: length of one gap in the audio, or of one frame that is shown longer than stated.
        total_gap_seconds: total length of such gaps.

    Raises:
        InvalidTypeError: a limit is not a number.
        InvalidValueError: a limit is not positive.

    Example:
        >>> from avfusion.media import MediaLimits
        >>> MediaLimits(total_pixels=10 * 2**30).gap_seconds
        3600.0
    """

    frame_pixels: float = 2**26
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
    """FFmpeg options that make decoders refuse large frames before they allocate memory."""
    return {"max_pixels": str(int(min(limits.frame_pixels, 2**31 - 1)))}


def limit_stream(stream: VideoStream | None, limits: MediaLimits) -> None:
    """Applies the limits to a stream's decoder.

    Raises:
        LimitError: the stated frame size is too large.
    """
    if stream is None:
        return
    context = stream.codec_context
    check_picture(context.height, context.width, limits)
    context.options = {**context.options, **decoder_options(limits)}


def check_sizes(container: InputContainer, limits: MediaLimits, error: FFmpegError) -> None:
    """Raises LimitError if decoding failed and the frame size is unknown, because the size may be the reason."""
    contexts = [stream.codec_context for stream in container.streams.video if stream.codec_context is not None]
    too_large = error.errno in (errno.EINVAL, errno.ERANGE)  # FFmpeg's error if the size changes
    if contexts and (too_large or not any(context.width for context in contexts)):
        raise LimitError(
            f"cannot be read, it is broken or no media file ({error.strerror}), or has a frame of more than "
            f"{limits.frame_pixels:.0f} pixels, which limits=MediaLimits(frame_pixels=...) allows"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, PyTorch (a RuntimeError) or a memory mapping means that memory is exhausted."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return "allocate memory" in str(error) or "enough memory" in str(error)


def check_picture(height: int, width: int, limits: MediaLimits) -> None:
    """Raises LimitError if a frame is too large."""
    if height * width > limits.frame_pixels:
        raise LimitError(
            f"has frames of {height} × {width} pixels, more than {limits.frame_pixels:.0f}; "
            "limits=MediaLimits(frame_pixels=...) allows more"
        )


def check_pictures(count: float, height: int, width: int, limits: MediaLimits) -> None:
    """Raises LimitError if the frames together are too large."""
    if count * max(height * width, _SMALLEST) > limits.total_pixels:
        raise LimitError(
            f"asks for {count:.0f} or more frames of {height} × {width}, together more than "
            f"{limits.total_pixels:.0f} pixels; a smaller size or frame_rate takes less, and "
            "limits=MediaLimits(total_pixels=...) allows more"
        )


def check_samples(count: float, limits: MediaLimits) -> None:
    """Raises LimitError if there are too many audio samples."""
    if count > limits.total_samples:
        raise LimitError(
            f"asks for {count:.0f} or more samples of audio, more than {limits.total_samples:.0f}; a part of it or a "
            "smaller sample_rate takes less, and limits=MediaLimits(total_samples=...) allows more"
        )


class Gaps:
    """Sums up gaps in a stream.

    Args:
        what: name of the stream's content, for messages.
        limits: limits on gaps.
    """

    def __init__(self, what: str, limits: MediaLimits) -> None:
        self._what, self._limits, self._total = what, limits, 0.0

    def add(self, start: float, end: float, *, since: float) -> None:
        """Adds a gap from ``start`` to ``end``, after data that began at ``since``.

        Raises:
            LimitError: the gap or the total is too long.
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

"""Sizes of a connector's parts that follow from the encoders' and the language model's."""

import math
import operator
from collections.abc import Mapping

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types.clock import check_rate

MAX_WINDOW_TOKENS = 2**16
_HEAD_DIM, _MOST_HEADS = 64, 12  # the paper's: 12 heads for a width of 768


def check_size(name: str, value: object) -> int:
    """``value`` as an int; raises unless it is a whole number of at least 1."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidTypeError(f"{name}: must be a whole number, found {value!r}") from None
    if isinstance(value, bool) or number < 1:
        raise InvalidValueError(f"{name}: must be a whole number of at least 1, found {value}")
    return number


def stream_sizes(audio: int | Mapping[str, int] | None) -> dict[str, int]:
    """Width of each audio stream by name; a plain number is the width of ``"audio"``."""
    if audio is None:
        return {}
    if isinstance(audio, Mapping):
        return {name: check_size(f"audio[{name!r}]", value) for name, value in audio.items()}
    return {"audio": check_size("audio", audio)}


def stream_rates(rate: float | Mapping[str, float], names: Mapping[str, int]) -> dict[str, float]:
    """Tokens a second of each stream; 50 (Whisper's) for those that a mapping leaves out."""
    if not isinstance(rate, Mapping):
        rate = dict.fromkeys(names, rate)
    check_names("audio_rate", rate, names)
    rates = {name: rate.get(name, 50.0) for name in names}
    for name, value in rates.items():
        check_rate(value, f"audio_rate[{name!r}]" if len(rates) > 1 else "audio_rate")
    return rates


def check_names(argument: str, found: Mapping[str, object], names: Mapping[str, object]) -> None:
    """Raises :class:`~avfusion.InvalidValueError` for streams that are not there."""
    if not set(found) <= set(names):
        raise InvalidValueError(f"{argument}: must be among the streams {sorted(names)}, found {sorted(found)}")


def most_tokens_in_frame(rate: float, frame_rate: float, tokens_per_step: int = 1) -> int:
    """The most tokens that are centred in one frame, wherever the stream begins.

    Example:
        >>> most_tokens_in_frame(50.0, 2.0), most_tokens_in_frame(0.1, 2.0)
        (26, 1)
    """
    steps = rate / frame_rate
    if steps > MAX_WINDOW_TOKENS:
        raise InvalidValueError(
            f"frame_rate: {rate:g} tokens a second must be at most {MAX_WINDOW_TOKENS} a frame, "
            f"found {frame_rate:g} frames a second"
        )
    # One more than a frame is long: rounding may move a token that is centred on the edge between two frames.
    return (math.floor(steps + 1e-9) + 1) * tokens_per_step


def frames_in(seconds: float, frame_rate: float, name: str) -> int:
    """The whole number of frames nearest to ``seconds``."""
    if not 0 <= seconds < math.inf:
        raise InvalidValueError(f"{name}: must be a finite number of seconds, at least 0, found {seconds}")
    frames = seconds * frame_rate
    if frames > MAX_WINDOW_TOKENS:
        raise InvalidValueError(
            f"{name}: must be at most {MAX_WINDOW_TOKENS} frames of {1 / frame_rate:g} s, found {seconds}"
        )
    return math.floor(frames + 0.5)


def window_sizes(window_seconds: float, overlap_seconds: float, frame_rate: float) -> tuple[int, int]:
    """Frames of a window, and from one window to the next."""
    window = frames_in(window_seconds, frame_rate, "window_seconds")
    if window_seconds * frame_rate < 1 - 1e-9:
        raise InvalidValueError(
            f"window_seconds: must be at least a frame, which is {1 / frame_rate:g} s, found {window_seconds}"
        )
    overlap = frames_in(overlap_seconds, frame_rate, "overlap_seconds")
    if overlap >= window:
        raise InvalidValueError(
            f"overlap_seconds: must be shorter than the window of {window_seconds} s by a frame of "
            f"{1 / frame_rate:g} s, found {overlap_seconds}"
        )
    return window, window - overlap


def num_heads(*widths: int) -> int:
    """The most heads, of 64 features or more and at most 12, that divide every width.

    Example:
        >>> num_heads(1536, 768), num_heads(256, 768), num_heads(257, 768)
        (12, 4, 1)
    """
    most = min(_MOST_HEADS, max(min(widths) // _HEAD_DIM, 1))
    shared = math.gcd(*widths)
    return next(heads for heads in range(most, 0, -1) if shared % heads == 0)

"""The values that the parts of avfusion hand each other, and what a part has to offer to fit.

Every value is a ``NamedTuple`` of tensors: it unpacks, compares by field, and passes through pytree, ``torch.compile``
and ``torch.export``. Shapes and dtypes are checked when it is made, without waiting for the device. Masks are boolean
and ``True`` means real; whatever stands in a masked place is never looked at. Times are seconds on the clip's
own clock, held as float64 whatever the dtype of the tokens, because one frame of an hour-long clip is below float32's
resolution.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidTypeError, InvalidValueError

T = TypeVar("T")


def _check(value: Any, name: str, ndim: int, axes: str, *, dtype: str = "floating") -> None:
    if not isinstance(value, Tensor):
        return  # pytree and tracing tools put their own leaves into the same tuples
    if value.ndim != ndim:
        raise InvalidValueError(f"{name}: must be {axes}, found shape {tuple(value.shape)}")
    if dtype == "bool" and value.dtype != torch.bool:
        raise InvalidTypeError(f"{name}: must be boolean (True = real), found {value.dtype}")
    if dtype == "floating" and not value.is_floating_point():
        raise InvalidTypeError(f"{name}: must be floating point, found {value.dtype}")


def _check_same(value: Any, name: str, axes: str, shape: Sequence[int]) -> None:
    if isinstance(value, Tensor) and tuple(value.shape) != tuple(shape):
        raise InvalidValueError(f"{name}: must be {axes} = {tuple(shape)}, found shape {tuple(value.shape)}")


def _check_rate(rate: float, name: str) -> None:
    if not (0 < rate < float("inf")):
        raise InvalidValueError(f"{name}: must be a positive, finite number per second, found {rate}")


def _time_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64


def _grid(count: int, rate: float, device: torch.device, *, first: float = 0.0) -> Tensor:
    # Divided, not multiplied by 1/rate: k/rate is then the same number in every grid, so that ties are exact.
    return (torch.arange(count, device=device, dtype=_time_dtype(device)) + first) / rate


def _offset(start: "float | Tensor | Sequence[float]", batch: int, name: str, device: torch.device) -> Tensor:
    value = torch.as_tensor(start, dtype=_time_dtype(device), device=device)
    if value.ndim > 1 or (value.ndim == 1 and value.shape[0] != batch):
        raise InvalidValueError(
            f"{name}: must be one number or (batch,) = ({batch},), found shape {tuple(value.shape)}"
        )
    return value.expand(batch)


def _mask(
    mask: Tensor | None, lengths: "Tensor | Sequence[int] | None", batch: int, count: int, like: Tensor
) -> Tensor:
    if mask is not None and lengths is not None:
        raise InvalidValueError("mask, lengths: give one of them, found both")
    if mask is not None:
        return mask
    places = torch.arange(count, device=like.device)
    if lengths is None:
        return (places >= 0).expand(batch, count)
    lengths = torch.as_tensor(lengths, device=like.device)
    if lengths.is_floating_point():
        raise InvalidTypeError(f"lengths: must be whole numbers, found {lengths.dtype}")
    if lengths.shape != (batch,):
        raise InvalidValueError(f"lengths: must be (batch,) = ({batch},), found shape {tuple(lengths.shape)}")
    if bool(((lengths < 0) | (lengths > count)).any()):
        raise InvalidValueError(f"lengths: must be between 0 and {count}, found {lengths.tolist()}")
    return places < lengths[:, None]


def _check_replaced(cls: type[T]) -> type[T]:
    """Lets ``_replace``, which goes past ``__new__``, check what it makes too."""
    setattr(cls, "_make", classmethod(lambda cls, values: cls(*values)))  # noqa: B010
    return cls


class _TokenStream(NamedTuple):
    tokens: Float[Tensor, "batch time dim"]
    mask: Bool[Tensor, "batch time"]
    timestamps: Float[Tensor, "batch time"]


@_check_replaced
class TokenStream(_TokenStream):
    """Tokens in time: what an audio encoder gives.

    Attributes:
        tokens: ``(batch, time, dim)``, any floating dtype.
        mask: ``(batch, time)`` bool, ``True`` for a real token.
        timestamps: ``(batch, time)`` seconds, float64: the *centre* of the stretch of signal each token stands for.
            Those of real tokens must not decrease.

    Raises:
        InvalidValueError: shapes that do not fit each other.
        InvalidTypeError: a mask that is not boolean, tokens or times that are not floating point.

    Example:
        >>> import torch
        >>> from avfusion import TokenStream
        >>> stream = TokenStream.from_rate(torch.randn(2, 150, 768), rate=50.0, lengths=[150, 120])
        >>> stream.mask.sum(1).tolist(), stream.timestamps[0, :2].tolist()
        ([150, 120], [0.01, 0.03])
    """

    __slots__ = ()

    def __new__(cls, tokens: Tensor, mask: Tensor, timestamps: Tensor) -> Self:
        _check(tokens, "tokens", 3, "(batch, time, dim)")
        _check(mask, "mask", 2, "(batch, time)", dtype="bool")
        _check(timestamps, "timestamps", 2, "(batch, time)")
        if isinstance(tokens, Tensor):
            _check_same(mask, "mask", "(batch, time)", tokens.shape[:2])
            _check_same(timestamps, "timestamps", "(batch, time)", tokens.shape[:2])
        return super().__new__(cls, tokens, mask, timestamps)

    @classmethod
    def from_rate(
        cls,
        tokens: Float[Tensor, "batch time dim"],
        rate: float,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        start: float | Tensor = 0.0,
    ) -> Self:
        """A stream of evenly spaced tokens: token ``i`` is centred at ``start + (i + 0.5) / rate``.

        Args:
            tokens: ``(batch, time, dim)``.
            rate: tokens a second.
            mask: ``(batch, time)`` bool; everything is real without it.
            lengths: real tokens of each clip, instead of ``mask``.
            start: seconds at which the stream begins, one number or ``(batch,)``: the audio/video offset.
        """
        _check(tokens, "tokens", 3, "(batch, time, dim)")
        _check_rate(rate, "rate")
        batch, time = tokens.shape[:2]
        times = _grid(time, rate, tokens.device, first=0.5)
        timestamps = _offset(start, batch, "start", tokens.device)[:, None] + times
        return cls(tokens, _mask(mask, lengths, batch, time, tokens), timestamps)

    @classmethod
    def empty(cls, batch: int, dim: int, *, dtype: torch.dtype | None = None, device: Any = None) -> Self:
        """A stream of no tokens: what an absent modality is, so that its parameters stay in the graph."""
        return cls.from_rate(torch.empty(batch, 0, dim, dtype=dtype, device=device), 1.0)


class _Frames(NamedTuple):
    tokens: Float[Tensor, "batch frame token dim"]
    mask: Bool[Tensor, "batch frame token"]
    spans: Float[Tensor, "batch frame 2"]


@_check_replaced
class Frames(_Frames):
    """Tokens grouped by video frame: what a visual encoder gives and what the synchroniser makes.

    Attributes:
        tokens: ``(batch, frame, token, dim)``, any floating dtype.
        mask: ``(batch, frame, token)`` bool, ``True`` for a real token. A frame without real tokens is padding.
        spans: ``(batch, frame, 2)`` seconds, float64: the half-open stretch ``[start, end)`` each frame stands for. An
            end of ``inf`` means: held for as long as other streams last (a still image).

    Raises:
        InvalidValueError: shapes that do not fit each other.
        InvalidTypeError: a mask that is not boolean, tokens or spans that are not floating point.

    Example:
        >>> import torch
        >>> from avfusion import Frames
        >>> frames = Frames.from_rate(torch.randn(2, 8, 32, 768), frame_rate=2.0)
        >>> frames.spans[0, 3].tolist()
        [1.5, 2.0]
    """

    __slots__ = ()

    def __new__(cls, tokens: Tensor, mask: Tensor, spans: Tensor) -> Self:
        _check(tokens, "tokens", 4, "(batch, frame, token, dim)")
        _check(mask, "mask", 3, "(batch, frame, token)", dtype="bool")
        _check(spans, "spans", 3, "(batch, frame, 2)")
        if isinstance(tokens, Tensor):
            _check_same(mask, "mask", "(batch, frame, token)", tokens.shape[:3])
            _check_same(spans, "spans", "(batch, frame, 2)", (*tokens.shape[:2], 2))
        return super().__new__(cls, tokens, mask, spans)

    @classmethod
    def from_rate(
        cls,
        tokens: Float[Tensor, "batch frame token dim"],
        frame_rate: float,
        *,
        mask: Bool[Tensor, "batch frame token"] | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        start: float | Tensor = 0.0,
    ) -> Self:
        """Evenly spaced frames: frame ``i`` spans ``start + [i, i + 1) / frame_rate``.

        Args:
            tokens: ``(batch, frame, token, dim)``.
            frame_rate: frames a second.
            mask: ``(batch, frame, token)`` bool; everything is real without it.
            lengths: real frames of each clip, instead of ``mask``.
            start: seconds at which the first frame begins, one number or ``(batch,)``.
        """
        _check(tokens, "tokens", 4, "(batch, frame, token, dim)")
        _check_rate(frame_rate, "frame_rate")
        batch, count = tokens.shape[:2]
        edges = _offset(start, batch, "start", tokens.device)[:, None] + _grid(count + 1, frame_rate, tokens.device)
        return cls._of_lengths(tokens, mask, lengths, torch.stack([edges[:, :-1], edges[:, 1:]], -1))

    @classmethod
    def from_timestamps(
        cls,
        tokens: Float[Tensor, "batch frame token dim"],
        timestamps: Float[Tensor, "batch frame"],
        *,
        end: float | Tensor,
        mask: Bool[Tensor, "batch frame token"] | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> Self:
        """Frames of a variable frame rate: each is on screen from its timestamp until the next real frame's.

        Args:
            tokens: ``(batch, frame, token, dim)``.
            timestamps: ``(batch, frame)`` seconds, increasing over each clip's real frames.
            end: seconds at which the last real frame ends, one number or ``(batch,)``; ``inf`` holds it.
            mask: ``(batch, frame, token)`` bool; everything is real without it.
            lengths: real frames of each clip, instead of ``mask``.
        """
        _check(tokens, "tokens", 4, "(batch, frame, token, dim)")
        _check_same(timestamps, "timestamps", "(batch, frame)", tokens.shape[:2])
        starts = timestamps.to(_time_dtype(tokens.device))
        last = _offset(end, tokens.shape[0], "end", tokens.device)[:, None]
        frames = cls._of_lengths(tokens, mask, lengths, torch.stack([starts, starts], -1))
        real = frames.frame_mask
        # The end of a frame is the start of the next real one: the smallest start to its right.
        later = torch.where(real, starts, torch.inf).flip(1).cummin(1).values.flip(1)
        ends = torch.cat([later[:, 1:], torch.full_like(last, torch.inf)], 1)
        return frames._replace(spans=torch.stack([starts, torch.where(ends == torch.inf, last, ends)], -1))

    @classmethod
    def from_image(cls, tokens: Float[Tensor, "batch token dim"], *, mask: Tensor | None = None) -> Self:
        """A still image: one frame that is on screen at every time, so that it is held over any audio.

        Args:
            tokens: ``(batch, token, dim)``.
            mask: ``(batch, token)`` bool; everything is real without it.
        """
        _check(tokens, "tokens", 3, "(batch, token, dim)")
        spans = torch.tensor([-torch.inf, torch.inf], dtype=_time_dtype(tokens.device), device=tokens.device)
        mask = mask if mask is None else mask[:, None]
        return cls._of_lengths(tokens[:, None], mask, None, spans.expand(tokens.shape[0], 1, 2))

    @classmethod
    def empty(cls, batch: int, token: int, dim: int, *, dtype: torch.dtype | None = None, device: Any = None) -> Self:
        """No frames: what an absent video is, so that its parameters stay in the graph."""
        return cls.from_rate(torch.empty(batch, 0, token, dim, dtype=dtype, device=device), 1.0)

    @classmethod
    def _of_lengths(cls, tokens: Tensor, mask: Tensor | None, lengths: Any, spans: Tensor) -> Self:
        batch, count, width = tokens.shape[:3]
        if mask is None:
            mask = _mask(None, lengths, batch, count, tokens)[..., None].expand(batch, count, width)
        elif lengths is not None:
            raise InvalidValueError("mask, lengths: give one of them, found both")
        return cls(tokens, mask, spans)

    @property
    def frame_mask(self) -> Bool[Tensor, "batch frame"]:
        """``(batch, frame)``: frames that hold at least one real token."""
        return self.mask.any(-1)


class Windows(NamedTuple):
    """Frames cut into sliding windows.

    Attributes:
        tokens: ``(window, frame, token, dim)``: all windows of the batch, clip after clip; masked places are zero.
        mask: ``(window, frame, token)`` bool.
        spans: ``(batch, windows of a clip, 2)`` seconds from the first to the last real frame of each window.
        window_mask: ``(batch, windows of a clip)`` bool: windows that hold something new and real.
    """

    tokens: Float[Tensor, "window frame token dim"]
    mask: Bool[Tensor, "window frame token"]
    spans: Float[Tensor, "batch windows 2"]
    window_mask: Bool[Tensor, "batch windows"]


class LLMEmbeddings(NamedTuple):
    """What a projector hands to a language model.

    Attributes:
        embeddings: ``(batch, position, llm_dim)`` in time order; zero where masked.
        mask: ``(batch, position)`` bool.
        spans: ``(batch, position, 2)`` seconds: the stretch of the clip each position stands for; zero where masked.
        query_states: ``(window, query, hidden)``: the window encoder's output before the projection, clip after
            clip; zero where the window is masked. :class:`~avfusion.DiversityLoss` takes it with :attr:`window_mask`.
    """

    embeddings: Float[Tensor, "batch position llm_dim"]
    mask: Bool[Tensor, "batch position"]
    spans: Float[Tensor, "batch position 2"]
    query_states: Float[Tensor, "window query hidden"]

    @property
    def window_mask(self) -> Bool[Tensor, " window"]:
        """``(window,)``: the windows of :attr:`query_states` that are real."""
        return self.mask.reshape(self.query_states.shape[:2])[:, 0]


class _Waveform(NamedTuple):
    samples: Float[Tensor, "batch sample"]
    mask: Bool[Tensor, "batch sample"]
    sample_rate: int
    start: Float[Tensor, " batch"]


@_check_replaced
class Waveform(_Waveform):
    """Mono sound: what media loading gives and an audio encoder takes.

    Attributes:
        samples: ``(batch, sample)``, floating point, full scale = 1.
        mask: ``(batch, sample)`` bool: a clip's real samples come first, padding after them.
        sample_rate: samples a second.
        start: ``(batch,)`` seconds at which each clip's sound begins, on the clock of its video.

    Example:
        >>> import torch
        >>> from avfusion import Waveform
        >>> wave = Waveform.from_samples([torch.zeros(16000), torch.zeros(8000)], sample_rate=16000)
        >>> wave.samples.shape, wave.durations.tolist()
        (torch.Size([2, 16000]), [1.0, 0.5])
    """

    __slots__ = ()

    def __new__(cls, samples: Tensor, mask: Tensor, sample_rate: int, start: Tensor) -> Self:
        _check(samples, "samples", 2, "(batch, sample)")
        _check(mask, "mask", 2, "(batch, sample)", dtype="bool")
        _check(start, "start", 1, "(batch,)")
        if isinstance(samples, Tensor):
            _check_same(mask, "mask", "(batch, sample)", samples.shape)
            _check_same(start, "start", "(batch,)", samples.shape[:1])
        return super().__new__(cls, samples, mask, sample_rate, start)

    @classmethod
    def from_samples(
        cls, samples: Sequence[Tensor] | Tensor, sample_rate: int, *, start: float | Tensor | Sequence[float] = 0.0
    ) -> Self:
        """Pads one-dimensional clips of different lengths into one batch.

        Args:
            samples: ``(batch, sample)``, or one ``(sample,)`` tensor a clip; an empty one is a clip without sound.
            sample_rate: samples a second.
            start: seconds at which the sound begins, one number or one a clip.
        """
        _check_rate(sample_rate, "sample_rate")
        clips = list(samples)
        if not clips:
            raise InvalidValueError("samples: must hold at least one clip, found none")
        for clip in clips:
            _check(clip, "samples", 1, "one (sample,) tensor a clip")
        lengths = torch.tensor([clip.shape[0] for clip in clips], device=clips[0].device)
        padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        starts = _offset(start, len(clips), "start", padded.device)
        return cls(padded, _mask(None, lengths, len(clips), padded.shape[1], padded), sample_rate, starts)

    @property
    def lengths(self) -> Tensor:
        """``(batch,)`` real samples of each clip."""
        return self.mask.sum(1)

    @property
    def durations(self) -> Tensor:
        """``(batch,)`` float64 seconds of each clip."""
        return self.lengths.to(_time_dtype(self.samples.device)) / self.sample_rate


class _Video(NamedTuple):
    pixels: Tensor
    mask: Bool[Tensor, "batch frame"]
    spans: Float[Tensor, "batch frame 2"]


@_check_replaced
class Video(_Video):
    """Pictures in time: what media loading gives and a visual encoder takes.

    Attributes:
        pixels: ``(batch, frame, 3, height, width)`` uint8 RGB, or floating point in 0 … 1.
        mask: ``(batch, frame)`` bool, ``True`` for a real frame.
        spans: ``(batch, frame, 2)`` seconds, as in :class:`Frames`.

    Example:
        >>> import torch
        >>> from avfusion import Video
        >>> video = Video.from_rate(torch.zeros(1, 8, 3, 32, 32, dtype=torch.uint8), frame_rate=2.0)
        >>> video.spans[0, -1].tolist()
        [3.5, 4.0]
    """

    __slots__ = ()

    def __new__(cls, pixels: Tensor, mask: Tensor, spans: Tensor) -> Self:
        _check(pixels, "pixels", 5, "(batch, frame, 3, height, width)", dtype="any")
        _check(mask, "mask", 2, "(batch, frame)", dtype="bool")
        _check(spans, "spans", 3, "(batch, frame, 2)")
        if isinstance(pixels, Tensor):
            if pixels.shape[2] != 3:
                raise InvalidValueError(f"pixels: must have 3 channels (RGB), found shape {tuple(pixels.shape)}")
            if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
                raise InvalidTypeError(f"pixels: must be uint8 or floating point, found {pixels.dtype}")
            _check_same(mask, "mask", "(batch, frame)", pixels.shape[:2])
            _check_same(spans, "spans", "(batch, frame, 2)", (*pixels.shape[:2], 2))
        return super().__new__(cls, pixels, mask, spans)

    @classmethod
    def from_rate(cls, pixels: Tensor, frame_rate: float, *, lengths: Any = None, start: float | Tensor = 0.0) -> Self:
        """Evenly spaced pictures: picture ``i`` spans ``start + [i, i + 1) / frame_rate``.

        Args:
            pixels: ``(batch, frame, 3, height, width)``.
            frame_rate: frames a second.
            lengths: real frames of each clip, ``(batch,)``; all without it.
            start: seconds at which the first frame begins, one number or ``(batch,)``.
        """
        _check(pixels, "pixels", 5, "(batch, frame, 3, height, width)", dtype="any")
        places = torch.empty(*pixels.shape[:2], 1, 0, device=pixels.device)
        frames = Frames.from_rate(places, frame_rate, lengths=lengths, start=start)
        return cls(pixels, frames.mask[..., 0], frames.spans)

    @classmethod
    def from_image(cls, pixels: Tensor) -> Self:
        """Still images ``(batch, 3, height, width)``, each held over any audio it comes with."""
        _check(pixels, "pixels", 4, "(batch, 3, height, width)", dtype="any")
        frames = Frames.from_image(torch.empty(pixels.shape[0], 1, 0, device=pixels.device))
        return cls(pixels[:, None], frames.mask[..., 0], frames.spans)


@runtime_checkable
class AudioEncoder(Protocol):
    """Anything that turns sound into a token stream; usually an ``nn.Module``."""

    output_dim: int
    """Width of the tokens."""

    def __call__(self, waveform: Waveform, /) -> TokenStream:
        """Tokens of every clip, centred on the clip's clock; padding never becomes a real token."""
        ...


@runtime_checkable
class VisualEncoder(Protocol):
    """Anything that turns pictures into frames of tokens; usually an ``nn.Module``."""

    output_dim: int
    """Width of the tokens."""
    tokens_per_frame: int
    """Tokens of one frame."""

    def __call__(self, video: Video, /) -> Frames:
        """Tokens of every frame, with the spans of the video."""
        ...


@runtime_checkable
class WindowEncoder(Protocol):
    """Anything that turns a window of frames into a fixed number of states; usually an ``nn.Module``."""

    num_queries: int
    """States a window."""
    output_dim: int
    """Width of the states."""

    def __call__(
        self, tokens: Float[Tensor, "window frame token dim"], mask: Bool[Tensor, "window frame token"], /
    ) -> Float[Tensor, "window query hidden"]:
        """States of each window. Masked tokens are zero and must not matter; windows are independent of each other."""
        ...


__all__ = [
    "AudioEncoder",
    "Frames",
    "LLMEmbeddings",
    "TokenStream",
    "Video",
    "VisualEncoder",
    "Waveform",
    "WindowEncoder",
    "Windows",
]

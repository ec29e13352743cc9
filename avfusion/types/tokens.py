"""Token streams, frames, windows of frames, and embeddings for a language model."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidValueError
from avfusion.types._checks import as_mask, check, check_same, checks_replaced
from avfusion.types.clock import as_offset, check_rate, regular_grid, time_dtype


class _TokenStream(NamedTuple):
    tokens: Float[Tensor, "batch time dim"]
    mask: Bool[Tensor, "batch time"]
    timestamps: Float[Tensor, "batch time"]


@checks_replaced
class TokenStream(_TokenStream):
    """Tokens in time: what an audio encoder returns.

    Attributes:
        tokens: ``(batch, time, dim)``, any floating dtype.
        mask: ``(batch, time)`` bool, ``True`` for a real token.
        timestamps: ``(batch, time)`` seconds, float64: the *centre* of the interval that each token covers.
            Timestamps of real tokens must not decrease.

    Raises:
        InvalidValueError: inconsistent shapes.
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
        check(tokens, "tokens", 3, "(batch, time, dim)")
        check(mask, "mask", 2, "(batch, time)", dtype="bool")
        check(timestamps, "timestamps", 2, "(batch, time)")
        if isinstance(tokens, Tensor):
            check_same(mask, "mask", "(batch, time)", tokens.shape[:2])
            check_same(timestamps, "timestamps", "(batch, time)", tokens.shape[:2])
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
            rate: tokens per second.
            mask: ``(batch, time)`` bool; everything is real without it.
            lengths: real tokens of each clip, instead of ``mask``.
            start: seconds at which the stream begins, one number or ``(batch,)``: the audio/video offset.
        """
        check(tokens, "tokens", 3, "(batch, time, dim)")
        check_rate(rate, "rate")
        batch, time = tokens.shape[:2]
        times = regular_grid(time, rate, tokens.device, first=0.5)
        timestamps = as_offset(start, batch, "start", tokens.device)[:, None] + times
        return cls(tokens, as_mask(mask, lengths, batch, time, tokens), timestamps)

    @classmethod
    def empty(cls, batch: int, dim: int, *, dtype: torch.dtype | None = None, device: Any = None) -> Self:
        """A stream without tokens: represents a missing modality, so that its parameters stay in the graph."""
        return cls.from_rate(torch.empty(batch, 0, dim, dtype=dtype, device=device), 1.0)


class _Frames(NamedTuple):
    tokens: Float[Tensor, "batch frame token dim"]
    mask: Bool[Tensor, "batch frame token"]
    spans: Float[Tensor, "batch frame 2"]


@checks_replaced
class Frames(_Frames):
    """Tokens grouped by video frame: the output of a visual encoder and of the synchroniser.

    Attributes:
        tokens: ``(batch, frame, token, dim)``, any floating dtype.
        mask: ``(batch, frame, token)`` bool, ``True`` for a real token. A frame without real tokens is padding.
        spans: ``(batch, frame, 2)`` seconds, float64: the half-open interval ``[start, end)`` that each frame covers. A
            frame that ends at ``inf``, such as a still image, is held for as long as other streams last.

    Raises:
        InvalidValueError: inconsistent shapes.
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
        check(tokens, "tokens", 4, "(batch, frame, token, dim)")
        check(mask, "mask", 3, "(batch, frame, token)", dtype="bool")
        check(spans, "spans", 3, "(batch, frame, 2)")
        if isinstance(tokens, Tensor):
            check_same(mask, "mask", "(batch, frame, token)", tokens.shape[:3])
            check_same(spans, "spans", "(batch, frame, 2)", (*tokens.shape[:2], 2))
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
            frame_rate: frames per second.
            mask: ``(batch, frame, token)`` bool; everything is real without it.
            lengths: real frames of each clip, instead of ``mask``.
            start: seconds at which the first frame begins, one number or ``(batch,)``.
        """
        check(tokens, "tokens", 4, "(batch, frame, token, dim)")
        check_rate(frame_rate, "frame_rate")
        batch, count = tokens.shape[:2]
        edges = as_offset(start, batch, "start", tokens.device)[:, None] + regular_grid(
            count + 1, frame_rate, tokens.device
        )
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
        """Frames of a variable frame rate: each is shown from its timestamp until the next real frame's.

        Args:
            tokens: ``(batch, frame, token, dim)``.
            timestamps: ``(batch, frame)`` seconds, increasing over each clip's real frames.
            end: seconds at which the last real frame ends, one number or ``(batch,)``; ``inf`` holds it.
            mask: ``(batch, frame, token)`` bool; everything is real without it.
            lengths: real frames of each clip, instead of ``mask``.
        """
        check(tokens, "tokens", 4, "(batch, frame, token, dim)")
        check_same(timestamps, "timestamps", "(batch, frame)", tokens.shape[:2])
        starts = timestamps.to(time_dtype(tokens.device))
        last = as_offset(end, tokens.shape[0], "end", tokens.device)[:, None]
        frames = cls._of_lengths(tokens, mask, lengths, torch.stack([starts, starts], -1))
        real = frames.frame_mask
        # The end of a frame is the start of the next real one: the smallest start to its right.
        later = torch.where(real, starts, torch.inf).flip(1).cummin(1).values.flip(1)
        ends = torch.cat([later[:, 1:], torch.full_like(last, torch.inf)], 1)
        return frames._replace(spans=torch.stack([starts, torch.where(ends == torch.inf, last, ends)], -1))

    @classmethod
    def from_image(cls, tokens: Float[Tensor, "batch token dim"], *, mask: Tensor | None = None) -> Self:
        """A still image: one frame that is held for as long as there is audio (zero-order hold).

        Args:
            tokens: ``(batch, token, dim)``.
            mask: ``(batch, token)`` bool; everything is real without it.
        """
        check(tokens, "tokens", 3, "(batch, token, dim)")
        spans = torch.tensor([-torch.inf, torch.inf], dtype=time_dtype(tokens.device), device=tokens.device)
        mask = mask if mask is None else mask[:, None]
        return cls._of_lengths(tokens[:, None], mask, None, spans.expand(tokens.shape[0], 1, 2))

    @classmethod
    def empty(cls, batch: int, token: int, dim: int, *, dtype: torch.dtype | None = None, device: Any = None) -> Self:
        """No frames: represents a missing video, so that its parameters stay in the graph."""
        return cls.from_rate(torch.empty(batch, 0, token, dim, dtype=dtype, device=device), 1.0)

    @classmethod
    def _of_lengths(cls, tokens: Tensor, mask: Tensor | None, lengths: Any, spans: Tensor) -> Self:
        batch, count, width = tokens.shape[:3]
        if mask is None:
            mask = as_mask(None, lengths, batch, count, tokens)[..., None].expand(batch, count, width)
        elif lengths is not None:
            raise InvalidValueError("mask, lengths: give one of them, found both")
        return cls(tokens, mask, spans)

    @property
    def frame_mask(self) -> Bool[Tensor, "batch frame"]:
        """``(batch, frame)``: frames with at least one real token."""
        return self.mask.any(-1)


class Windows(NamedTuple):
    """Frames cut into sliding windows.

    Attributes:
        tokens: ``(window, frame, token, dim)``: all windows of the batch, clip after clip; zero where masked.
        mask: ``(window, frame, token)`` bool.
        spans: ``(batch, windows of a clip, 2)`` seconds from the first to the last real frame of each window.
        window_mask: ``(batch, windows of a clip)`` bool: real windows, which have at least one new real frame.

    Example:
        >>> import torch
        >>> from avfusion import Frames
        >>> from avfusion.functional import cut_windows
        >>> windows = cut_windows(Frames.from_rate(torch.randn(1, 5, 4, 8), frame_rate=2.0), window_frames=3)
        >>> windows.tokens.shape, windows.spans[0].tolist()
        (torch.Size([2, 3, 4, 8]), [[0.0, 1.5], [1.5, 2.5]])
    """

    tokens: Float[Tensor, "window frame token dim"]
    mask: Bool[Tensor, "window frame token"]
    spans: Float[Tensor, "batch windows 2"]
    window_mask: Bool[Tensor, "batch windows"]


class LLMEmbeddings(NamedTuple):
    """A projector's output: embeddings for a language model.

    Attributes:
        embeddings: ``(batch, position, llm_dim)`` in time order; zero where masked.
        mask: ``(batch, position)`` bool.
        spans: ``(batch, position, 2)`` seconds: the interval that each position covers; zero where masked.
        query_states: ``(window, query, hidden)``: the window encoder's output before the projection, clip after
            clip; zero where the window is masked. :class:`~avfusion.DiversityLoss` takes it with :attr:`window_mask`.

    Example:
        >>> import torch
        >>> from avfusion import LLMEmbeddings
        >>> out = LLMEmbeddings(
        ...     embeddings=torch.zeros(1, 4, 8),
        ...     mask=torch.tensor([[True, True, False, False]]),
        ...     spans=torch.zeros(1, 4, 2, dtype=torch.float64),
        ...     query_states=torch.zeros(2, 2, 6),
        ... )
        >>> out.window_mask.tolist()  # two windows of two queries each
        [True, False]
    """

    embeddings: Float[Tensor, "batch position llm_dim"]
    mask: Bool[Tensor, "batch position"]
    spans: Float[Tensor, "batch position 2"]
    query_states: Float[Tensor, "window query hidden"]

    @property
    def window_mask(self) -> Bool[Tensor, " window"]:
        """``(window,)``: real windows of ``query_states``."""
        return self.mask.reshape(self.query_states.shape[:2])[:, 0]

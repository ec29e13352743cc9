"""The frame synchroniser: token streams onto the time grid of the video."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool
from avfusion.errors import InvalidValueError
from avfusion.functional.clip_placement import clip_grid, place_clips
from avfusion.functional.frame_layout import FrameGrid
from avfusion.functional.fusion import Fusion, fuse_streams
from avfusion.functional.masks import Padding, check_padding
from avfusion.functional.stream_table import VISUAL, StreamTable
from avfusion.modules.component import Component
from avfusion.modules.synchroniser.finalising import finalise
from avfusion.modules.synchroniser.state import FrameSynchroniserState, initial_state
from avfusion.modules.synchroniser.stream_buffers import add_chunk
from avfusion.types import FinalisedFrames, Frames, TokenStream
from avfusion.types.clock import time_dtype
from avfusion.types.state import chosen_rows, ended_rows, put_rows


class FrameSynchroniser(Component):
    """Assigns each token of each stream to the video frame of its time (FAVOR, section 3.1).

    A token belongs to the frame whose half-open span holds its centre. A centre on an edge belongs to the frame that
    begins there; times that are equal but for the rounding of their dtype count as equal. Inside the frame tokens keep
    their order and fill its slots from the first. Frames are added where a stream begins before the video or outlasts
    it; without video the frames are the regular grid of ``frame_rate``; a still image is held for as long as there is
    audio (zero-order hold). Every real token is placed, or the call raises an error.

    The streams of a frame are fused in one of two ways:

    * ``"features"`` (FAVOR's): slot by slot, side by side on the feature axis; a stream that has no token for a slot is
      zero there. A slot is real if any stream has a token in it.
    * ``"tokens"``: one after the other on the token axis; all must have the same width.

    The only parameters are the optional learned tokens for missing modalities.

    Args:
        visual_dim: width of the visual tokens; ``None`` for a synchroniser without video.
        stream_dims: width of each further stream by name, in the order of fusion.
        frame_rate: frames per second of the grid without video, and of plain tensors of visual tokens.
        stream_rates: tokens per second of streams that are given as plain tensors; 50 (Whisper's) for those not named.
        slots: slots of a frame for each stream: one number, or one for each name, ``"visual"`` included (``"tokens"``
            fusion only).
        fusion: ``"features"`` or ``"tokens"``.
        padding: ``"masked"``: empty slots of a frame are masked; ``"released"``: they count as tokens of zeros, as the
            released weights were trained.
        learn_absent_tokens: a learned vector per modality replaces the tokens of clips without that modality.

    Raises:
        InvalidValueError: no stream at all, unequal widths for ``"tokens"``, rates or slots that are not positive.

    Example:
        >>> import torch
        >>> from avfusion import Frames, FrameSynchroniser, TokenStream
        >>> synchronise = FrameSynchroniser(visual_dim=16, stream_dims={"audio": 8})
        >>> video = Frames.from_rate(torch.randn(1, 6, 32, 16), frame_rate=2.0)  # 3 s
        >>> audio = TokenStream.from_rate(torch.randn(1, 175, 8), rate=50.0)  # 3.5 s
        >>> frames = synchronise(visual=video, audio=audio)
        >>> frames.tokens.shape, frames.mask.sum(-1).tolist()
        (torch.Size([1, 7, 32, 24]), [[32, 32, 32, 32, 32, 32, 25]])
    """

    def __init__(
        self,
        *,
        visual_dim: int | None = 768,
        stream_dims: Mapping[str, int] | None = None,
        frame_rate: float = 2.0,
        stream_rates: Mapping[str, float] | None = None,
        slots: int | Mapping[str, int] = 32,
        fusion: Fusion = "features",
        padding: Padding = "masked",
        learn_absent_tokens: bool = False,
    ) -> None:
        super().__init__()
        streams = {"audio": 768} if stream_dims is None else dict(stream_dims)
        if "num_frames" in streams:
            raise InvalidValueError("stream_dims: 'num_frames' is an argument of forward; name the stream otherwise")
        if VISUAL in streams:
            raise InvalidValueError(f"stream_dims: {VISUAL!r} is the video's own name; use visual_dim")
        if fusion not in ("features", "tokens"):
            raise InvalidValueError(f'fusion: must be "features" or "tokens", found {fusion!r}')
        check_padding(padding)
        dims = streams if visual_dim is None else {VISUAL: visual_dim, **streams}
        self.table = StreamTable(
            dims=dims,
            slots=dict.fromkeys(dims, slots) if isinstance(slots, int) else dict(slots),
            rates=dict.fromkeys(streams, 50.0) | dict(stream_rates or {}),
            frame_rate=frame_rate,
        )
        if fusion == "features" and len(set(self.slots.values())) > 1:
            raise InvalidValueError(f'slots: must be one number for fusion="features", found {self.slots}')
        if fusion == "tokens" and len(set(dims.values())) > 1:
            raise InvalidValueError(f'dims: must be equal for fusion="tokens", found {dims}')
        self.fusion: Fusion = fusion
        self.padding: Padding = padding
        self.absent_tokens = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(dim)) for name, dim in dims.items()} if learn_absent_tokens else {}
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises the learned tokens for missing modalities, if there are any."""
        for token in self.absent_tokens.values():
            nn.init.normal_(token, std=0.02)

    @property
    def dims(self) -> Mapping[str, int]:
        """Width of each stream by name, in the order of fusion, ``"visual"`` first."""
        return self.table.dims

    @property
    def slots(self) -> Mapping[str, int]:
        """Slots of a frame for each stream by name."""
        return self.table.slots

    @property
    def stream_rates(self) -> Mapping[str, float]:
        """Tokens per second of plain tensors of each stream but the video, by name."""
        return self.table.rates

    @property
    def frame_rate(self) -> float:
        """Frames per second of added frames, and of plain tensors of video."""
        return self.table.frame_rate

    @property
    def output_dim(self) -> int:
        """Width of the fused tokens."""
        return sum(self.dims.values()) if self.fusion == "features" else next(iter(self.dims.values()))

    @property
    def tokens_per_frame(self) -> int:
        """Slots of a fused frame."""
        return max(self.slots.values()) if self.fusion == "features" else sum(self.slots.values())

    def forward(
        self,
        visual: Frames | Tensor | None = None,
        *,
        num_frames: int | None = None,
        **streams: TokenStream | Tensor | None,
    ) -> Frames:
        """Synchronises a batch.

        Args:
            visual: frames of the video, or a plain ``(batch, frame, token, visual_dim)`` at ``frame_rate``, or
                ``None``.
            num_frames: number of frames of the result, for shapes that do not depend on values
                (``torch.compile(fullgraph=True)``, ``torch.export``). By default as many as the longest clip needs.
            **streams: each named stream, or a plain ``(batch, time, dim)`` at its rate in ``stream_rates``, or
                ``None``. A clip of the batch lacks a modality if all its tokens are masked.

        Returns:
            ``(batch, frame, tokens_per_frame, output_dim)`` frames, each clip's first frame at index 0.

        Raises:
            AlignmentError: real tokens that fit no frame or no slot, or that are not in time order.
            InvalidValueError: unknown streams, widths or batches that do not fit, no stream at all, or ``num_frames``
                that are too few.
        """
        frames, given = self.table.as_batch(visual, streams)
        grid, placed = place_clips(self.table, frames, given, num_frames)
        return self._fuse(placed, grid)

    def _fuse(
        self,
        placed: Mapping[str, tuple[Tensor, Tensor]],
        grid: FrameGrid,
        absent: Mapping[str, Tensor] | None = None,
    ) -> Frames:
        tokens = {name: self.absent_tokens[name] for name in self.absent_tokens}
        return fuse_streams(placed, grid, fusion=self.fusion, padding=self.padding, absent_tokens=tokens, absent=absent)

    def initial_state(
        self,
        batch_size: int = 1,
        *,
        streams: Collection[str] | None = None,
        max_wait: float | None = None,
        device: torch.device | str | None = None,
    ) -> FrameSynchroniserState:
        """The state before any input.

        Args:
            batch_size: clips.
            streams: names of the expected streams, ``"visual"`` for video; all by default. Frames wait for no other.
            max_wait: seconds, on the clip's clock, that a frame waits for a stream that is behind the others; unlimited
                by default.
            device: of the state.

        Raises:
            InvalidValueError: unknown streams, or none; a ``max_wait`` that is negative.
        """
        names = self.table.check_expected(streams)
        if max_wait is not None and not 0 <= max_wait < float("inf"):
            raise InvalidValueError(f"max_wait: must be at least 0 seconds and finite, or None, found {max_wait}")
        place = torch.device("cpu" if device is None else device)
        seconds = float("inf") if max_wait is None else max_wait
        wait = torch.full((batch_size,), seconds, dtype=time_dtype(place), device=place)
        expected = torch.tensor([name in names for name in self.dims], device=place).repeat(batch_size, 1)
        return initial_state(self.dims, self.slots.get(VISUAL, 1), expected, wait)

    def step(
        self,
        chunk: Mapping[str, Frames | TokenStream | Tensor | None],
        state: FrameSynchroniserState,
        *,
        watermark: Mapping[str, float | Tensor] | None = None,
        end: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[FinalisedFrames, FrameSynchroniserState]:
        """Appends a chunk of each stream, and returns the frames that are now final.

        A frame is final when the watermarks of all expected streams have passed its end, or when the newest input is
        ``max_wait`` seconds past it. A token advances its stream's watermark to its centre, a video frame to its end,
        and the argument ``watermark`` to any time. Frames that a later video frame can change wait for it regardless of
        watermarks: all frames before the first video frame, a video frame without a known end, and, without
        ``max_wait``, the frames after the last one. With learned absent tokens, frames also wait until every stream has
        begun. Input for a finalised frame is late: it is dropped and counted.

        Args:
            chunk: new tokens or frames by stream, possibly none. Plain tensors continue their stream at its rate; other
                values carry times on the clip's clock. Clips without new input are masked.
            state: of the clips so far; not changed.
            watermark: seconds up to which streams are complete, by name, one number or ``(batch,)``; ``inf`` where a
                stream has ended.
            end: ``(batch,)`` bool: clips that end. All their pending frames are finalised, and new clips begin.

        Returns:
            The finalised frames, and the new state.

        Raises:
            AlignmentError: times that decrease; tokens that fit no frame or no slot.
            InvalidValueError: unknown streams, widths or batches that do not fit.

        Example:
            >>> import torch
            >>> from avfusion import FrameSynchroniser
            >>> synchronise = FrameSynchroniser(visual_dim=16, stream_dims={"audio": 8})
            >>> state = synchronise.initial_state()
            >>> out, state = synchronise.step({"audio": torch.randn(1, 60, 8)}, state)  # 1.2 s
            >>> out.lengths.tolist()  # pending: video may still come
            [0]
            >>> out, state = synchronise.step({"visual": torch.randn(1, 4, 32, 16)}, state)  # 2 s
            >>> out.lengths.tolist(), out.frames.spans[0].tolist()
            ([2], [[0.0, 0.5], [0.5, 1.0]])
            >>> synchronise.flush(state).lengths.tolist()
            [2]
        """
        over = ended_rows(end, state.max_wait)
        pending = add_chunk(self.table, chunk, state, watermark)
        done, after = finalise(self.table, pending, end=over, knows_absent=len(self.absent_tokens) > 0)
        frames = self._fuse(done.placed, done.grid, done.absent)
        late = after.late - state.late
        return FinalisedFrames(frames, done.lengths, late), after if end is None else self.reset(after, over)

    def flush(self, state: FrameSynchroniserState) -> FinalisedFrames:
        """Finalises the pending frames of all clips."""
        return self.step({}, state, end=torch.ones_like(state.max_wait, dtype=torch.bool))[0]

    def reset(self, state: FrameSynchroniserState, rows: Bool[Tensor, " batch"]) -> FrameSynchroniserState:
        """The state with new clips in some rows; their pending input is dropped.

        Args:
            state: of the clips so far; not changed.
            rows: ``(batch,)`` bool.
        """
        chosen = chosen_rows(rows, state.max_wait)
        slots, expected, wait = self.slots.get(VISUAL, 1), state.expected[chosen], state.max_wait[chosen]
        return put_rows(state, chosen, initial_state(self.dims, slots, expected, wait))

    def grid(self, frames: Frames, streams: Mapping[str, TokenStream], num_frames: int | None = None) -> FrameGrid:
        """The frames that hold the video and every real token of the streams; ``num_frames`` of them, if given."""
        return clip_grid(self.table, frames, streams, num_frames)

    def as_stream(self, name: str, value: TokenStream | Tensor) -> TokenStream:
        """A stream as given, or a plain tensor as a stream at the rate of that name."""
        return self.table.as_stream(name, value)

    def as_frames(self, value: Frames | Tensor) -> Frames:
        """Frames as given, or a plain tensor as frames at ``frame_rate``."""
        return self.table.as_frames(value)

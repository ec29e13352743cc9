"""The frame synchroniser: token streams onto the time grid of the video."""

from collections.abc import Collection, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.functional.alignment import (
    FrameGrid,
    check_placement,
    gather_frames,
    latest_centres,
    lay_frames,
    place_latest,
    rounding_of_spans,
    scatter_tokens,
)
from avfusion.functional.masks import Padding, check_padding
from avfusion.modules.component import Component
from avfusion.modules.streaming.synchroniser import VISUAL, FrameSynchroniserState, add_chunk, close, nothing_waits
from avfusion.types import ClosedFrames, Frames, TokenStream
from avfusion.types.clock import time_dtype
from avfusion.types.state import as_rows, put_rows


class FrameSynchroniser(Component):
    """Puts each token of each stream into the video frame during which it sounds (FAVOR, section 3.1).

    A token belongs to the frame whose half-open span holds its centre. A centre on an edge belongs to the frame that
    begins there; times that are equal but for the rounding of their dtype count as equal. Inside the frame tokens keep
    their order and fill its slots from the first. Frames are added where a stream begins before the video or outlasts
    it; without video the frames are the regular grid of ``frame_rate``; a still image is held for as long as there is
    sound. Every real token is placed, or the call fails.

    The streams of a frame are fused in one of two ways:

    * ``"features"`` (FAVOR's): slot by slot, side by side on the feature axis; a stream that has no token for a slot is
      zero there. A slot is real if any stream has a token in it.
    * ``"tokens"``: one after the other on the token axis; all must have the same width.

    There are no parameters, unless a learned token shall stand for a modality that a clip lacks.

    Args:
        visual_dim: width of the visual tokens; ``None`` for a synchroniser that never sees video.
        stream_dims: width of each further stream by name, in the order of fusion.
        frame_rate: frames a second of the grid where there is no video, and of plain tensors of visual tokens.
        stream_rates: tokens a second of streams that are given as plain tensors; 50 (Whisper's) for those not named.
        slots: slots of a frame for each stream: one number, or one for each name, ``"visual"`` included (``"tokens"``
            fusion only).
        fusion: ``"features"`` or ``"tokens"``.
        padding: ``"masked"``: nobody attends to the empty slots of a frame; ``"released"``: they count as tokens of
            zeros, as the released weights were trained.
        learn_absent_tokens: a learned vector for each modality stands where a clip that lacks it would have its tokens.

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
        fusion: Literal["features", "tokens"] = "features",
        padding: Padding = "masked",
        learn_absent_tokens: bool = False,
    ) -> None:
        super().__init__()
        streams = {"audio": 768} if stream_dims is None else dict(stream_dims)
        if "num_frames" in streams:
            raise InvalidValueError("stream_dims: 'num_frames' is an argument of forward; name the stream otherwise")
        if VISUAL in streams:
            raise InvalidValueError(f"stream_dims: {VISUAL!r} is the video's own name; use visual_dim")
        self.dims = streams if visual_dim is None else {VISUAL: visual_dim, **streams}
        self.frame_rate = frame_rate
        self.stream_rates = dict.fromkeys(streams, 50.0) | dict(stream_rates or {})
        self.slots = dict.fromkeys(self.dims, slots) if isinstance(slots, int) else dict(slots)
        self.fusion = fusion
        self.padding = padding
        self._check_arguments()
        self.absent_tokens = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(dim)) for name, dim in self.dims.items()} if learn_absent_tokens else {}
        )
        self.reset_parameters()

    def _check_arguments(self) -> None:
        if not self.dims:
            raise InvalidValueError("visual_dim, stream_dims: there must be at least one stream, found none")
        if self.fusion not in ("features", "tokens"):
            raise InvalidValueError(f'fusion: must be "features" or "tokens", found {self.fusion!r}')
        check_padding(self.padding)
        for name, rate in {"frame_rate": self.frame_rate, **self.stream_rates}.items():
            if not 0 < rate < float("inf"):
                raise InvalidValueError(f"{name}: must be a positive number a second, found {rate}")
        for what, found, names in (
            ("stream_rates", set(self.stream_rates), set(self.dims) - {VISUAL}),
            ("slots", set(self.slots), set(self.dims)),
        ):
            if found != names:
                raise InvalidValueError(f"{what}: must name the streams {sorted(names)}, found {sorted(found)}")
        if min(self.slots.values()) < 1:
            raise InvalidValueError(f"slots: must be at least 1, found {self.slots}")
        if self.fusion == "features" and len(set(self.slots.values())) > 1:
            raise InvalidValueError(f'slots: must be one number for fusion="features", found {self.slots}')
        if self.fusion == "tokens" and len(set(self.dims.values())) > 1:
            raise InvalidValueError(f'dims: must be equal for fusion="tokens", found {self.dims}')

    def reset_parameters(self) -> None:
        """Draws the absent tokens, if there are any."""
        for token in self.absent_tokens.values():
            nn.init.normal_(token, std=0.02)

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
            num_frames: frames of the result, if its shape shall not depend on what the tensors hold: for
                ``torch.compile(fullgraph=True)`` and ``torch.export``. As many as the longest clip needs without it.
            **streams: each named stream, or a plain ``(batch, time, dim)`` at its rate in ``stream_rates``, or
                ``None``. A clip of the batch lacks a modality if all its tokens are masked.

        Returns:
            ``(batch, frame, tokens_per_frame, output_dim)`` frames, each clip's first frame at index 0.

        Raises:
            AlignmentError: real tokens that fit no frame or no slot, or that are not in time order.
            InvalidValueError: unknown streams, widths or batches that do not fit, no stream at all, or ``num_frames``
                that are too few.
        """
        self._check_names(visual, streams)
        given = {name: self.as_stream(name, value) for name, value in streams.items() if value is not None}
        frames = None if visual is None else self.as_frames(visual)
        batch, like = self._check_batches(frames, given)
        if frames is None:
            frames = Frames.empty(batch, 1, self.dims.get(VISUAL, 0), dtype=like.dtype, device=like.device)
        for name in self.stream_rates:
            if name not in given:
                given[name] = TokenStream.empty(batch, self.dims[name], dtype=like.dtype, device=like.device)
        share = rounding_of_spans(frames.spans)
        times = {name: latest_centres(each.timestamps, each.mask, share) for name, each in given.items()}
        grid = self._lay_frames(frames, given, times, num_frames)

        placed: dict[str, tuple[Tensor, Tensor]] = {}
        if VISUAL in self.dims:
            placed[VISUAL] = gather_frames(frames.tokens, frames.mask, grid.source, self.slots[VISUAL])
        for name in self.stream_rates:
            stream, slots = given[name], self.slots[name]
            placement = place_latest(times[name], stream.mask, grid)
            check_placement(name, stream.mask, stream.timestamps, placement, slots)
            placed[name] = scatter_tokens(stream.tokens, placement, grid.mask.shape[1], slots)
        return self._fuse(placed, grid, {name: ~own.any((1, 2)) for name, (_, own) in placed.items()})

    def initial_state(
        self,
        batch_size: int = 1,
        *,
        streams: Collection[str] | None = None,
        max_wait: float | None = None,
        device: torch.device | str | None = None,
    ) -> FrameSynchroniserState:
        """Clips of which nothing has come yet.

        Args:
            batch_size: clips.
            streams: names of the streams that will come, ``"visual"`` among them; all without it. No frame waits for
                another.
            max_wait: seconds, on the clip's clock, that a frame waits for a stream that is behind the others; as long
                as it takes without it.
            device: of the times and of what waits.

        Raises:
            InvalidValueError: unknown streams, or none; a ``max_wait`` that is negative.
        """
        names = list(self.dims) if streams is None else sorted(streams)
        if not names or not set(names) <= set(self.dims):
            raise InvalidValueError(f"streams: must be some of {sorted(self.dims)}, found {names}")
        if max_wait is not None and not 0 <= max_wait < float("inf"):
            raise InvalidValueError(f"max_wait: must be at least 0 seconds and finite, or None, found {max_wait}")
        place = torch.device("cpu" if device is None else device)
        seconds = float("inf") if max_wait is None else max_wait
        awaited = torch.tensor([name in names for name in self.dims], device=place).repeat(batch_size, 1)
        return nothing_waits(self, awaited, torch.full((batch_size,), seconds, dtype=time_dtype(place), device=place))

    def step(
        self,
        chunk: Mapping[str, Frames | TokenStream | Tensor | None],
        state: FrameSynchroniserState,
        *,
        until: Mapping[str, float | Tensor] | None = None,
        end: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[ClosedFrames, FrameSynchroniserState]:
        """Takes what has come, and gives the frames that are now closed.

        A frame is closed when every awaited stream has passed its end: a token that is centred there or later has come,
        a picture that ends there, or ``until`` says so; or when the stream that is ahead is ``max_wait`` seconds past
        it. What a later picture can still change waits for it, whatever ``until`` says: all frames before the first
        picture, a picture whose end is not known, and without ``max_wait`` the frames behind the last picture; so do,
        with learned absent tokens, all frames before a stream has begun. What comes for a closed frame is late: left
        out, and counted.

        Args:
            chunk: what has come of each stream, by name, or nothing. Plain tensors go on where that stream stopped, at
                its rate; other values have their times on the clip's clock. A clip of which nothing has come is masked.
            state: of the clips so far; not changed.
            until: seconds up to which streams have now been given in full, by name, one number or ``(batch,)``; ``inf``
                where a stream has ended.
            end: ``(batch,)`` bool: clips that are over. All that waits for them is closed, and a new clip begins.

        Returns:
            The closed frames, and the new state.

        Raises:
            AlignmentError: times that go back; tokens that fit no frame or no slot.
            InvalidValueError: unknown streams, widths or batches that do not fit.

        Example:
            >>> import torch
            >>> from avfusion import FrameSynchroniser
            >>> synchronise = FrameSynchroniser(visual_dim=16, stream_dims={"audio": 8})
            >>> state = synchronise.initial_state()
            >>> out, state = synchronise.step({"audio": torch.randn(1, 60, 8)}, state)  # 1.2 s
            >>> out.lengths.tolist()  # waits for the pictures
            [0]
            >>> out, state = synchronise.step({"visual": torch.randn(1, 4, 32, 16)}, state)  # 2 s
            >>> out.lengths.tolist(), out.frames.spans[0].tolist()
            ([2], [[0.0, 0.5], [0.5, 1.0]])
            >>> synchronise.flush(state).lengths.tolist()
            [2]
        """
        batch = state.max_wait.shape[0]
        over = None if end is None else as_rows(end, batch, "end", state.max_wait.device)
        frames, lengths, after = close(self, add_chunk(self, chunk, state, until), over)
        late = after.late - state.late
        if over is not None:
            after = self.reset(after, over)
        return ClosedFrames(frames, lengths, late), after

    def flush(self, state: FrameSynchroniserState) -> ClosedFrames:
        """What still waits, as if all clips were over."""
        return self.step({}, state, end=torch.ones_like(state.max_wait, dtype=torch.bool))[0]

    def reset(self, state: FrameSynchroniserState, rows: Bool[Tensor, " batch"]) -> FrameSynchroniserState:
        """The state with new clips in some rows; what waits there is dropped.

        Args:
            state: of the clips so far; not changed.
            rows: ``(batch,)`` bool.
        """
        batch, device = state.max_wait.shape[0], state.max_wait.device
        chosen = as_rows(rows, batch, "rows", device).nonzero().flatten()
        return put_rows(state, chosen, nothing_waits(self, state.awaited[chosen], state.max_wait[chosen]))

    def grid(self, frames: Frames, streams: Mapping[str, TokenStream], num_frames: int | None = None) -> FrameGrid:
        """The frames that hold the video and every real token of the streams; ``num_frames`` of them, if given."""
        share = rounding_of_spans(frames.spans)
        times = {name: latest_centres(each.timestamps, each.mask, share) for name, each in streams.items()}
        return self._lay_frames(frames, streams, times, num_frames)

    def _lay_frames(
        self, frames: Frames, streams: Mapping[str, TokenStream], times: Mapping[str, Tensor], num_frames: int | None
    ) -> FrameGrid:
        batch, device = frames.spans.shape[0], frames.spans.device
        first = torch.full((batch,), torch.inf, dtype=time_dtype(device), device=device)
        last = -first
        for name, stream in streams.items():
            if stream.tokens.shape[1]:
                real = stream.mask & stream.timestamps.isfinite()
                first = torch.minimum(first, torch.where(real, times[name], torch.inf).amin(1))
                last = torch.maximum(last, torch.where(real, times[name], -torch.inf).amax(1))
        return lay_frames(frames.spans, frames.frame_mask, first, last, self.frame_rate, num_frames)

    def as_stream(self, name: str, value: TokenStream | Tensor) -> TokenStream:
        """A stream as given, or a plain tensor as a stream at the rate of that name."""
        if isinstance(value, TokenStream):
            return value
        if isinstance(value, Tensor):
            return TokenStream.from_rate(value, self.stream_rates[name])
        raise InvalidTypeError(f"{name}: must be a TokenStream, a tensor or None, found {type(value).__name__}")

    def as_frames(self, value: Frames | Tensor) -> Frames:
        """Frames as given, or a plain tensor as frames at ``frame_rate``."""
        if isinstance(value, Frames):
            return value
        if isinstance(value, Tensor):
            return Frames.from_rate(value, self.frame_rate)
        raise InvalidTypeError(f"{VISUAL}: must be Frames, a tensor or None, found {type(value).__name__}")

    def _fuse(
        self, placed: Mapping[str, tuple[Tensor, Tensor]], grid: FrameGrid, lacking: Mapping[str, Tensor]
    ) -> Frames:
        """Joins the streams of each frame.

        Args:
            placed: each stream's ``(batch, frame, slot, dim)`` tokens and ``(batch, frame, slot)`` mask, by name.
            grid: the frames.
            lacking: ``(batch,)`` bool by name: clips without that stream.
        """
        masks = [mask for _, mask in placed.values()]
        tokens = []
        if self.fusion == "features":
            mask = torch.stack(masks).any(0)
            tokens = [self._fill(name, values, lacking[name], mask) for name, (values, _) in placed.items()]
            fused = Frames(torch.cat(tokens, -1), mask, grid.spans)
        else:
            for place, (name, (values, own)) in enumerate(placed.items()):
                stand_in = own
                if self.absent_tokens:
                    first = torch.arange(own.shape[-1], device=own.device) == 0
                    stand_in = own | ((grid.mask & lacking[name][:, None])[..., None] & first)
                tokens.append(self._fill(name, values, lacking[name], stand_in))
                masks[place] = stand_in
            fused = Frames(torch.cat(tokens, 2), torch.cat(masks, 2), grid.spans)
        if self.padding == "masked":
            return fused
        return fused._replace(mask=grid.mask[..., None].expand_as(fused.mask))

    def _fill(self, name: str, values: Tensor, lacking: Tensor, wanted: Tensor) -> Tensor:
        """Puts the learned token where a clip that lacks the modality altogether wants one."""
        if not self.absent_tokens:
            return values
        lacks = (lacking[:, None, None] & wanted)[..., None]
        return torch.where(lacks, self.absent_tokens[name].to(values.dtype), values)

    def _check_names(self, visual: object, streams: Mapping[str, object]) -> None:
        if visual is not None and VISUAL not in self.dims:
            raise InvalidValueError("visual: this FrameSynchroniser was built with visual_dim=None")
        unknown = sorted(set(streams) - set(self.stream_rates))
        if unknown:
            raise InvalidValueError(f"streams: must be among {sorted(self.stream_rates)}, found {unknown}")

    def _check_batches(self, frames: Frames | None, streams: Mapping[str, TokenStream]) -> tuple[int, Tensor]:
        tokens = {name: stream.tokens for name, stream in streams.items()}
        if frames is not None:
            tokens = {VISUAL: frames.tokens, **tokens}
            self._check_slots(frames.tokens)
        if not tokens:
            raise InvalidValueError(f"streams: one of {sorted(self.dims)} must be given, found none")
        for name, value in tokens.items():
            self._check_width(name, value)
        sizes = {name: value.shape[0] for name, value in tokens.items()}
        first = next(iter(tokens.values()))
        if any(size != first.shape[0] for size in sizes.values()):
            raise InvalidValueError(f"streams: must have the same batch size, found {sizes}")
        return first.shape[0], first

    def _check_chunk(self, name: str, tokens: Tensor, batch: int) -> None:
        """Raises :class:`~avfusion.InvalidValueError` unless a part of a stream fits the stream and its batch."""
        self._check_width(name, tokens)
        if tokens.ndim == 4:
            self._check_slots(tokens)
        if tokens.shape[0] != batch:
            raise InvalidValueError(f"{name}: must be of {batch} clips, found {tokens.shape[0]}")

    def _check_width(self, name: str, tokens: Tensor) -> None:
        if tokens.shape[-1] != self.dims[name]:
            raise InvalidValueError(f"{name}: must have width {self.dims[name]}, found {tokens.shape[-1]}")

    def _check_slots(self, tokens: Tensor) -> None:
        if tokens.shape[2] > self.slots[VISUAL]:
            raise InvalidValueError(
                f"{VISUAL}: a frame has {self.slots[VISUAL]} slots, found {tokens.shape[2]} tokens a frame"
            )

"""The frame synchroniser: token streams onto the time grid of the video."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.functional.alignment import (
    FrameGrid,
    check_placement,
    frame_grid,
    gather_frames,
    place_tokens,
    scatter_tokens,
)
from avfusion.functional.masks import Padding, check_padding
from avfusion.modules.component import Component
from avfusion.types import Frames, TokenStream
from avfusion.types.clock import time_dtype

VISUAL = "visual"


class FrameSynchroniser(Component):
    """Puts each token of each stream into the video frame during which it sounds (FAVOR, section 3.1).

    A token belongs to the frame whose span holds its centre; inside the frame tokens keep their order and fill its
    slots from the first. Frames are added where a stream begins before the video or outlasts it; without video the
    frames are the regular grid of ``frame_rate``; a still image is held for as long as there is sound. Every real token
    is placed, or the call fails.

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
        grid = self.grid(frames, given, num_frames)

        placed: dict[str, tuple[Tensor, Tensor]] = {}
        if VISUAL in self.dims:
            placed[VISUAL] = gather_frames(frames.tokens, frames.mask, grid.source, self.slots[VISUAL])
        for name in self.stream_rates:
            stream, slots = given[name], self.slots[name]
            placement = place_tokens(stream.timestamps, stream.mask, grid)
            check_placement(name, stream.mask, stream.timestamps, placement, slots)
            placed[name] = scatter_tokens(stream.tokens, placement, grid.mask.shape[1], slots)
        fused = self._fuse(placed, grid)
        if self.padding == "masked":
            return fused
        return fused._replace(mask=grid.mask[..., None].expand_as(fused.mask))

    def grid(self, frames: Frames, streams: Mapping[str, TokenStream], num_frames: int | None = None) -> FrameGrid:
        """The frames that hold the video and every real token of the streams; ``num_frames`` of them, if given."""
        batch, device = frames.spans.shape[0], frames.spans.device
        first = torch.full((batch,), torch.inf, dtype=time_dtype(device), device=device)
        last = -first
        for stream in streams.values():
            if stream.tokens.shape[1]:
                real, times = stream.mask & stream.timestamps.isfinite(), stream.timestamps.to(first.dtype)
                first = torch.minimum(first, torch.where(real, times, torch.inf).amin(1))
                last = torch.maximum(last, torch.where(real, times, -torch.inf).amax(1))
        return frame_grid(frames.spans, frames.frame_mask, first, last, self.frame_rate, num_frames)

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

    def _fuse(self, placed: dict[str, tuple[Tensor, Tensor]], grid: FrameGrid) -> Frames:
        masks = [mask for _, mask in placed.values()]
        if self.fusion == "features":
            mask = torch.stack(masks).any(0)
            tokens = [self._fill(name, values, own, mask) for name, (values, own) in placed.items()]
            return Frames(torch.cat(tokens, -1), mask, grid.spans)
        tokens = []
        for place, (name, (values, own)) in enumerate(placed.items()):
            stand_in = own
            if self.absent_tokens:
                lacking = grid.mask & ~own.any((1, 2))[:, None]
                stand_in = own | (lacking[..., None] & (torch.arange(own.shape[-1], device=own.device) == 0))
            tokens.append(self._fill(name, values, own, stand_in))
            masks[place] = stand_in
        return Frames(torch.cat(tokens, 2), torch.cat(masks, 2), grid.spans)

    def _fill(self, name: str, values: Tensor, own: Tensor, wanted: Tensor) -> Tensor:
        """Puts the learned token where a clip that lacks the modality altogether wants one."""
        if not self.absent_tokens:
            return values
        lacking = ~own.any((1, 2))[:, None, None] & wanted
        return torch.where(lacking[..., None], self.absent_tokens[name].to(values.dtype), values)

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
            if frames.tokens.shape[2] > self.slots[VISUAL]:
                raise InvalidValueError(
                    f"{VISUAL}: a frame has {self.slots[VISUAL]} slots, found {frames.tokens.shape[2]} tokens a frame"
                )
        if not tokens:
            raise InvalidValueError(f"streams: one of {sorted(self.dims)} must be given, found none")
        for name, value in tokens.items():
            if value.shape[-1] != self.dims[name]:
                raise InvalidValueError(f"{name}: must have width {self.dims[name]}, found {value.shape[-1]}")
        sizes = {name: value.shape[0] for name, value in tokens.items()}
        first = next(iter(tokens.values()))
        if any(size != first.shape[0] for size in sizes.values()):
            raise InvalidValueError(f"streams: must have the same batch size, found {sizes}")
        return first.shape[0], first

"""The streams that a synchroniser takes: their widths, rates and slots."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types import Frames, TokenStream

VISUAL = "visual"  # the name of the video's stream


@dataclass(frozen=True)
class StreamTable:
    """The streams by name, in the order of fusion.

    Attributes:
        dims: width of each stream; the video's is ``"visual"``.
        slots: slots of a frame for each stream.
        rates: tokens a second of each stream but the video, where it is given as a plain tensor.
        frame_rate: frames a second of the video, where it is given as a plain tensor, and of frames that are added.

    Raises:
        InvalidValueError: no stream at all, names that differ, rates or slots that are not positive.
    """

    dims: Mapping[str, int]
    slots: Mapping[str, int]
    rates: Mapping[str, float]
    frame_rate: float

    def __post_init__(self) -> None:
        if not self.dims:
            raise InvalidValueError("visual_dim, stream_dims: there must be at least one stream, found none")
        for name, rate in {"frame_rate": self.frame_rate, **self.rates}.items():
            if not 0 < rate < float("inf"):
                raise InvalidValueError(f"{name}: must be a positive number a second, found {rate}")
        for what, found, names in (
            ("stream_rates", set(self.rates), set(self.dims) - {VISUAL}),
            ("slots", set(self.slots), set(self.dims)),
        ):
            if found != names:
                raise InvalidValueError(f"{what}: must name the streams {sorted(names)}, found {sorted(found)}")
        if min(self.slots.values()) < 1:
            raise InvalidValueError(f"slots: must be at least 1, found {dict(self.slots)}")

    def as_frames(self, value: object) -> Frames:
        """Frames as given, or a plain tensor as frames at ``frame_rate``."""
        if isinstance(value, Frames):
            return value
        if isinstance(value, Tensor):
            return Frames.from_rate(value, self.frame_rate)
        raise InvalidTypeError(f"{VISUAL}: must be Frames, a tensor or None, found {type(value).__name__}")

    def as_stream(self, name: str, value: object) -> TokenStream:
        """A stream as given, or a plain tensor as a stream at the rate of that name."""
        if isinstance(value, TokenStream):
            return value
        if isinstance(value, Tensor):
            return TokenStream.from_rate(value, self.rates[name])
        raise InvalidTypeError(f"{name}: must be a TokenStream, a tensor or None, found {type(value).__name__}")

    def as_chunk(self, name: str, value: object, received: Tensor) -> Frames | TokenStream:
        """A part of a stream as given, or a plain tensor as what goes on behind ``received`` ``(batch,)`` of it."""
        batch = len(received)
        if isinstance(value, Tensor):  # before it is given the times of its clips
            self.check(name, value, batch)
        part = self.as_frames(value) if name == VISUAL else self.as_stream(name, value)
        self.check(name, part.tokens, batch)
        if not isinstance(value, Tensor):
            return part
        if isinstance(part, Frames):
            edges = received[:, None] + torch.arange(value.shape[1] + 1, device=value.device)
            times = edges.to(part.spans.dtype) / self.frame_rate
            return part._replace(spans=torch.stack([times[:, :-1], times[:, 1:]], -1))
        places = received[:, None] + torch.arange(value.shape[1], device=value.device)
        return part._replace(timestamps=(places.to(part.timestamps.dtype) + 0.5) / self.rates[name])

    def as_batch(self, visual: object, streams: Mapping[str, object]) -> tuple[Frames, dict[str, TokenStream]]:
        """The video and all other streams of a batch; streams that are not given are empty.

        Raises:
            InvalidValueError: unknown streams, widths or batches that do not fit, no stream at all.
        """
        if visual is not None and VISUAL not in self.dims:
            raise InvalidValueError("visual: this FrameSynchroniser was built with visual_dim=None")
        unknown = sorted(set(streams) - set(self.rates))
        if unknown:
            raise InvalidValueError(f"streams: must be among {sorted(self.rates)}, found {unknown}")
        given = {name: self.as_stream(name, value) for name, value in streams.items() if value is not None}
        frames = None if visual is None else self.as_frames(visual)
        tokens = {} if frames is None else {VISUAL: frames.tokens}
        tokens |= {name: stream.tokens for name, stream in given.items()}
        if not tokens:
            raise InvalidValueError(f"streams: one of {sorted(self.dims)} must be given, found none")
        for name, value in tokens.items():
            self.check(name, value)
        sizes = {name: value.shape[0] for name, value in tokens.items()}
        like = next(iter(tokens.values()))
        batch, dtype, device = like.shape[0], like.dtype, like.device
        if any(size != batch for size in sizes.values()):
            raise InvalidValueError(f"streams: must have the same batch size, found {sizes}")
        if frames is None:
            frames = Frames.empty(batch, 1, self.dims.get(VISUAL, 0), dtype=dtype, device=device)
        for name in self.rates:
            if name not in given:
                given[name] = TokenStream.empty(batch, self.dims[name], dtype=dtype, device=device)
        return frames, given

    def check_expected(self, streams: Collection[str] | None) -> list[str]:
        """The names of the streams that will come; raises :class:`~avfusion.InvalidValueError` for unknown ones."""
        names = list(self.dims) if streams is None else sorted(streams)
        if not names or not set(names) <= set(self.dims):
            raise InvalidValueError(f"streams: must be some of {sorted(self.dims)}, found {names}")
        return names

    def check(self, name: str, tokens: Tensor, batch: int | None = None) -> None:
        """Raises :class:`~avfusion.InvalidValueError` unless tokens have the stream's width, slots, and batch."""
        if tokens.shape[-1] != self.dims[name]:
            raise InvalidValueError(f"{name}: must have width {self.dims[name]}, found {tokens.shape[-1]}")
        if tokens.ndim == 4 and tokens.shape[2] > self.slots[name]:
            raise InvalidValueError(
                f"{name}: a frame has {self.slots[name]} slots, found {tokens.shape[2]} tokens a frame"
            )
        if batch is not None and tokens.shape[0] != batch:
            raise InvalidValueError(f"{name}: must be of {batch} clips, found {tokens.shape[0]}")

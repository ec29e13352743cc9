"""Audio samples and video frames."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types._checks import as_mask, check, check_same, checks_replaced
from avfusion.types.clock import as_offset, check_rate, time_dtype
from avfusion.types.tokens import Frames


class _Waveform(NamedTuple):
    samples: Float[Tensor, "batch sample"]
    mask: Bool[Tensor, "batch sample"]
    sample_rate: int
    start: Float[Tensor, " batch"]


@checks_replaced
class Waveform(_Waveform):
    """Mono audio: what media loading returns and an audio encoder takes.

    Attributes:
        samples: ``(batch, sample)``, floating point, full scale = 1.
        mask: ``(batch, sample)`` bool: real samples first, then padding.
        sample_rate: samples per second.
        start: ``(batch,)`` seconds at which each clip's audio begins, on the clock of its video.

    Example:
        >>> import torch
        >>> from avfusion import Waveform
        >>> wave = Waveform.from_samples([torch.zeros(16000), torch.zeros(8000)], sample_rate=16000)
        >>> wave.samples.shape, wave.durations.tolist()
        (torch.Size([2, 16000]), [1.0, 0.5])
    """

    __slots__ = ()

    def __new__(cls, samples: Tensor, mask: Tensor, sample_rate: int, start: Tensor) -> Self:
        check(samples, "samples", 2, "(batch, sample)")
        check(mask, "mask", 2, "(batch, sample)", dtype="bool")
        check(start, "start", 1, "(batch,)")
        if isinstance(samples, Tensor):
            check_same(mask, "mask", "(batch, sample)", samples.shape)
            check_same(start, "start", "(batch,)", samples.shape[:1])
        return super().__new__(cls, samples, mask, sample_rate, start)

    @classmethod
    def from_samples(
        cls, samples: Sequence[Tensor] | Tensor, sample_rate: int, *, start: float | Tensor | Sequence[float] = 0.0
    ) -> Self:
        """Pads one-dimensional clips of different lengths into one batch.

        Args:
            samples: ``(batch, sample)``, or one ``(sample,)`` tensor per clip; an empty one is a clip without audio.
            sample_rate: samples per second.
            start: seconds at which the audio begins, one number or one per clip.
        """
        check_rate(sample_rate, "sample_rate")
        clips = list(samples)
        if not clips:
            raise InvalidValueError("samples: must hold at least one clip, found none")
        for clip in clips:
            check(clip, "samples", 1, "one (sample,) tensor a clip")
        lengths = torch.tensor([clip.shape[0] for clip in clips], device=clips[0].device)
        padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        starts = as_offset(start, len(clips), "start", padded.device)
        return cls(padded, as_mask(None, lengths, len(clips), padded.shape[1], padded), sample_rate, starts)

    @property
    def lengths(self) -> Tensor:
        """``(batch,)`` real samples of each clip."""
        return self.mask.sum(1)

    @property
    def durations(self) -> Tensor:
        """``(batch,)`` float64 seconds of each clip."""
        return self.lengths.to(time_dtype(self.samples.device)) / self.sample_rate


class _Video(NamedTuple):
    pixels: Tensor
    mask: Bool[Tensor, "batch frame"]
    spans: Float[Tensor, "batch frame 2"]


@checks_replaced
class Video(_Video):
    """Video frames: what media loading returns and a visual encoder takes.

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
        check(pixels, "pixels", 5, "(batch, frame, 3, height, width)", dtype="any")
        check(mask, "mask", 2, "(batch, frame)", dtype="bool")
        check(spans, "spans", 3, "(batch, frame, 2)")
        if isinstance(pixels, Tensor):
            if pixels.shape[2] != 3:
                raise InvalidValueError(f"pixels: must have 3 channels (RGB), found shape {tuple(pixels.shape)}")
            if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
                raise InvalidTypeError(f"pixels: must be uint8 or floating point, found {pixels.dtype}")
            check_same(mask, "mask", "(batch, frame)", pixels.shape[:2])
            check_same(spans, "spans", "(batch, frame, 2)", (*pixels.shape[:2], 2))
        return super().__new__(cls, pixels, mask, spans)

    @classmethod
    def from_rate(cls, pixels: Tensor, frame_rate: float, *, lengths: Any = None, start: float | Tensor = 0.0) -> Self:
        """Evenly spaced frames: frame ``i`` spans ``start + [i, i + 1) / frame_rate``.

        Args:
            pixels: ``(batch, frame, 3, height, width)``.
            frame_rate: frames per second.
            lengths: real frames of each clip, ``(batch,)``; all by default.
            start: seconds at which the first frame begins, one number or ``(batch,)``.
        """
        check(pixels, "pixels", 5, "(batch, frame, 3, height, width)", dtype="any")
        places = torch.empty(*pixels.shape[:2], 1, 0, device=pixels.device)
        frames = Frames.from_rate(places, frame_rate, lengths=lengths, start=start)
        return cls(pixels, frames.mask[..., 0], frames.spans)

    @classmethod
    def from_image(cls, pixels: Tensor) -> Self:
        """Still images ``(batch, 3, height, width)``, each held for as long as there is audio (zero-order hold)."""
        check(pixels, "pixels", 4, "(batch, 3, height, width)", dtype="any")
        frames = Frames.from_image(torch.empty(pixels.shape[0], 1, 0, device=pixels.device))
        return cls(pixels[:, None], frames.mask[..., 0], frames.spans)

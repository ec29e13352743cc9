"""Clips as one argument of a model."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types import Frames, TokenStream, Video, Waveform


@dataclass(frozen=True)
class MediaBatch:
    """The clips of a batch: ``media`` of :class:`AudioVisualLanguageModel`.

    Unlike its values, it is not a tuple. Trainer takes tuples apart; it passes this object on unchanged, and so do data
    loaders and ``BatchFeature.to``, which would cast timestamps to half precision.

    Args:
        video: the video of each clip.
        waveform: the audio of each clip.
        features: the encoders' output, instead of both.

    Raises:
        InvalidValueError: both features and media.

    Example:
        >>> import torch
        >>> from avfusion import Waveform
        >>> from avfusion.models import MediaBatch
        >>> media = MediaBatch(waveform=Waveform.from_samples([torch.zeros(8000)], 16000))
        >>> media.to("cpu").waveform.durations.tolist()
        [0.5]
    """

    video: Video | None = None
    waveform: Waveform | None = None
    features: Mapping[str, Frames | TokenStream | None] | None = None

    def __post_init__(self) -> None:
        if self.features is not None and (self.video is not None or self.waveform is not None):
            raise InvalidValueError("features: must not come with video or waveform, found both")

    def to(self, device: Any, *, non_blocking: bool = False) -> Self:
        """Copies to a device; dtypes are unchanged."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Copies to pinned memory."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Any) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: _changed(value, change) for name, value in values.items()})


def as_media(media: MediaBatch | None, video: Video | None, waveform: Waveform | None, features: Any) -> MediaBatch:
    """Clips that came one way or the other.

    Raises:
        InvalidValueError: both ways at once, or features beside media.
    """
    apart = MediaBatch(video, waveform, features)
    if media is None:
        return apart
    if not isinstance(media, MediaBatch):
        raise InvalidTypeError(f"media: must be a MediaBatch, found {type(media).__name__}")
    if any(value is not None for value in (video, waveform, features)):
        raise InvalidValueError("media: must not come with video, waveform or features, found both")
    return media


def _changed(value: Any, change: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _changed(one, change) for name, one in value.items()}
    return type(value)(*(_changed(part, change) for part in value)) if isinstance(value, tuple) else value

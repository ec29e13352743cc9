"""Collating clips into a batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from avfusion.errors import InvalidValueError
from avfusion.media._media import Media
from avfusion.types import Video, Waveform


def collate_media(clips: Sequence[Media]) -> tuple[Video | None, Waveform | None]:
    """Pads clips into one batch for the encoders; a ``collate_fn`` for a ``DataLoader``.

    A clip without video or audio becomes a row whose mask is all ``False``.

    Args:
        clips: clips from :func:`load_media`.

    Returns:
        The video ``(clip, longest, 3, height, width)`` and the waveform ``(clip, longest)``; None for a modality that
        no clip has.

    Raises:
        InvalidValueError: no clips, a clip with neither video nor audio, or different frame sizes or sample rates.

    Example:
        >>> import torch
        >>> from avfusion import Video, Waveform
        >>> from avfusion.media import Media, collate_media
        >>> film = Media(Video.from_rate(torch.zeros(1, 4, 3, 8, 8), 2.0), None, 2.0)
        >>> speech = Media(None, Waveform.from_samples([torch.zeros(16000)], 16000), 1.0)
        >>> video, waveform = collate_media([film, speech])
        >>> video.mask.sum(1).tolist(), waveform.durations.tolist()
        ([4, 0], [0.0, 1.0])
    """
    if not clips:
        raise InvalidValueError("clips: must hold at least one, found none")
    for index, clip in enumerate(clips):
        if clip.video is None and clip.waveform is None:
            raise InvalidValueError(f"clips: each must have video or audio, found neither in clip {index}")
    return _videos(clips), _waveforms(clips)


def _videos(clips: Sequence[Media]) -> Video | None:
    videos = [clip.video for clip in clips]
    present = [video for video in videos if video is not None]
    if not present:
        return None
    sizes = sorted({tuple(video.pixels.shape[2:]) for video in present})
    if len(sizes) > 1:
        found = ", ".join(f"{height} × {width}" for _, height, width in sizes)
        raise InvalidValueError(f"clips: frames must be of one size, found {found}; load_media(size=...) makes them so")
    if len({video.pixels.dtype for video in present}) > 1:
        raise InvalidValueError(
            f"clips: pixels must be of one dtype, found {sorted({str(video.pixels.dtype) for video in present})}"
        )
    count = max(video.mask.shape[1] for video in present)

    def rows(of: Callable[[Video], Tensor]) -> Tensor:
        like = of(present[0])
        return torch.cat([_padded(None if video is None else of(video), like, count) for video in videos])

    return Video(rows(lambda video: video.pixels), rows(lambda video: video.mask), rows(lambda video: video.spans))


def _waveforms(clips: Sequence[Media]) -> Waveform | None:
    waveforms = [clip.waveform for clip in clips]
    present = [waveform for waveform in waveforms if waveform is not None]
    if not present:
        return None
    rates = sorted({waveform.sample_rate for waveform in present})
    if len(rates) > 1:
        raise InvalidValueError(f"clips: sample rates must be one, found {rates}; load_media(sample_rate=...) sets it")
    count = max(waveform.mask.shape[1] for waveform in present)

    def rows(of: Callable[[Waveform], Tensor]) -> Tensor:
        like = of(present[0])
        return torch.cat([_padded(None if wave is None else of(wave), like, count) for wave in waveforms])

    starts = torch.cat([present[0].start.new_zeros(1) if wave is None else wave.start for wave in waveforms])
    return Waveform(rows(lambda wave: wave.samples), rows(lambda wave: wave.mask), rates[0], starts)


def _padded(value: Tensor | None, like: Tensor, count: int) -> Tensor:
    if value is None:
        return like.new_zeros(1, count, *like.shape[2:])
    padding = value.new_zeros(value.shape[0], count - value.shape[1], *value.shape[2:])
    return torch.cat([value, padding], 1)

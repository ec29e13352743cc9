"""What a file holds."""

from typing import NamedTuple

from avfusion.types import Video, Waveform


class Media(NamedTuple):
    """What a file holds: a batch of one.

    Attributes:
        video: its pictures, or None.
        waveform: its sound, mono, or None.
        duration: seconds from the start of the clip to the end of its last picture or sound; 0 for a still image.
        skipped: what of the file is missing here because it is damaged, in words; empty where nothing is.

    Example:
        >>> import torch
        >>> from avfusion import Waveform
        >>> from avfusion.media import Media
        >>> media = Media(video=None, waveform=Waveform.from_samples([torch.zeros(8000)], 16000), duration=0.5)
        >>> media.video is None, media.waveform.durations.tolist()
        (True, [0.5])
    """

    video: Video | None
    waveform: Waveform | None
    duration: float
    skipped: tuple[str, ...] = ()

"""The content of a file."""

from typing import NamedTuple

from avfusion.types import Video, Waveform


class Media(NamedTuple):
    """The decoded content of a file, as a batch of one clip.

    Attributes:
        video: the frames, or None.
        waveform: the mono audio, or None.
        duration: seconds from the start of the clip to the end of its last frame or audio sample; 0 for a still image.
        skipped: descriptions of damaged parts of the file that are missing here; empty if there are none.

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

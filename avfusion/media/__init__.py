"""Reads audio and video files onto one clock, and writes video files.

PyAV decodes audio and video; it carries its own FFmpeg. Pillow decodes still images.

Example:
    >>> import tempfile, torch
    >>> from avfusion.media import collate_media, load_media, write_video
    >>> clip = tempfile.mkdtemp() + "/clip.mp4"
    >>> write_video(clip, torch.zeros(20, 3, 32, 32), frame_rate=10.0, samples=torch.zeros(32000))
    >>> media = load_media(clip, frame_rate=2.0, size=24)
    >>> media.video.pixels.shape, media.waveform.samples.shape  # uint8, and mono at 16 kHz
    (torch.Size([1, 4, 3, 24, 24]), torch.Size([1, 32000]))
    >>> video, waveform = collate_media([media, load_media(clip, end=1.0, size=24)])
    >>> from avfusion.media import open_live
    >>> with open_live(clip, realtime=False) as live:  # or NetworkStream("rtsp://..."), "/dev/video0", a pipe
    ...     for chunk in live:
    ...         stretch = chunk.video, chunk.waveform, chunk.watermark  # of half a second

PyAV decodes audio and video; it carries its own FFmpeg. Pillow decodes still images.
"""

try:
    import av as _av  # noqa: F401
except ImportError as error:
    raise ImportError("avfusion.media needs PyAV: pip install avfusion[media]") from error
try:
    import PIL as _PIL  # noqa: F401
except ImportError as error:
    raise ImportError("avfusion.media needs Pillow: pip install avfusion[media]") from error

from avfusion.media._collate import collate_media
from avfusion.media._limits import MediaLimits
from avfusion.media._load import load_media
from avfusion.media._media import Media
from avfusion.media._write import write_video
from avfusion.media.live import LiveChunk, LiveFault, LiveReport, LiveSource, NetworkStream, open_live

__all__ = [
    "LiveChunk",
    "LiveFault",
    "LiveReport",
    "LiveSource",
    "Media",
    "MediaLimits",
    "NetworkStream",
    "collate_media",
    "load_media",
    "open_live",
    "write_video",
]

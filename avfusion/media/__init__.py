"""Files to pictures and sound on one clock, and back.

    media = load_media("clip.mp4", frame_rate=2.0, size=224)
    media.video.pixels     # (1, frame, 3, 224, 224) uint8
    media.waveform.samples # (1, sample) at 16 kHz, mono
    video, waveform = collate_media([media, load_media("speech.flac")])

    with open_live("rtsp://camera.local/stream") as live:
        for chunk in live:
            chunk.video, chunk.waveform, chunk.until  # of half a second

PyAV does the decoding; it carries its own FFmpeg.
"""

try:
    import av as _av  # noqa: F401
except ImportError as error:
    raise ImportError("avfusion.media needs PyAV: pip install avfusion[media]") from error

from avfusion.media._collate import collate_media
from avfusion.media._load import Media, load_media
from avfusion.media._write import write_video
from avfusion.media.live import LiveChunk, LiveFault, LiveReport, LiveSource, open_live

__all__ = [
    "LiveChunk",
    "LiveFault",
    "LiveReport",
    "LiveSource",
    "Media",
    "collate_media",
    "load_media",
    "open_live",
    "write_video",
]

"""Live sources: files played in real time, cameras, microphones and network streams, in chunks."""

from avfusion.media.live.chunk import LiveChunk, LiveFault, LiveReport
from avfusion.media.live.network import NetworkStream
from avfusion.media.live.open_live import open_live
from avfusion.media.live.source import LiveSource

__all__ = ["LiveChunk", "LiveFault", "LiveReport", "LiveSource", "NetworkStream", "open_live"]

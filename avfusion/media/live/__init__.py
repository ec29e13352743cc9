"""Files played, cameras, microphones and streams, in chunks as they come."""

from avfusion.media.live.chunk import LiveChunk, LiveFault, LiveReport
from avfusion.media.live.network import NetworkStream
from avfusion.media.live.source import LiveSource, open_live

__all__ = ["LiveChunk", "LiveFault", "LiveReport", "LiveSource", "NetworkStream", "open_live"]

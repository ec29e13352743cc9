"""Addresses, which are opened only where one is asked for."""

import re
from dataclasses import dataclass

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.media._formats import READ

_SCHEMES = (
    "ftp http https mmsh mmst rist rtmp rtmpe rtmps rtmpt rtmpte rtmpts rtp rtsp rtsps sap srt srtp tcp tls udp udplite"
)
_ADDRESS = re.compile(rf"(?:{_SCHEMES.replace(' ', '|')})://[!-~]+", re.IGNORECASE)
# What an address leads to may lead on to other addresses, as playlists do, but never to a file of this computer.
OPTIONS = {
    "protocol_whitelist": ",".join([*_SCHEMES.split(), "httpproxy", "crypto"]),
    "format_whitelist": f"{READ},hls,applehttp,dash,sdp,rtsp,rtp,sap",
    "enable_drefs": "0",
    "use_absolute_path": "0",
}


@dataclass(frozen=True)
class NetworkStream:
    """An address, for :func:`~avfusion.media.open_live`, which takes a plain string for the name of a file.

    What it gives may lead on to other addresses, as a playlist does, and to no local file.

    Args:
        address: such as ``"rtsp://camera.local/stream"``. Of http, https, rtsp, rtmp, rtp, tcp, tls, udp, srt and
            others that FFmpeg reads.

    Raises:
        InvalidValueError: no address of a network.

    Example:
        >>> from avfusion.media import NetworkStream, open_live
        >>> camera = NetworkStream("rtsp://camera.local/stream")
        >>> # with open_live(camera, options={"rtsp_transport": "tcp"}) as live: ...
    """

    address: str

    def __post_init__(self) -> None:
        if not isinstance(self.address, str):
            raise InvalidTypeError(f"address: must be text, found {type(self.address).__name__}")
        if not _ADDRESS.fullmatch(self.address):
            raise InvalidValueError(
                f"address: must be of a network, like http://... or rtsp://..., without spaces, found {self.address!r}"
            )

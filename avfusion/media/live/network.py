"""Network addresses, which are opened only if they are given as such."""

import re
from dataclasses import dataclass

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.media._formats import READ

_SCHEMES = (
    "ftp http https mmsh mmst rist rtmp rtmpe rtmps rtmpt rtmpte rtmpts rtp rtsp rtsps sap srt srtp tcp tls udp udplite"
)
_ADDRESS = re.compile(rf"(?:{_SCHEMES.replace(' ', '|')})://[!-~]+", re.IGNORECASE)
# A playlist may refer to other network addresses, but never to a local file.
OPTIONS = {
    "protocol_whitelist": ",".join([*_SCHEMES.split(), "httpproxy", "crypto"]),
    "format_whitelist": f"{READ},hls,applehttp,dash,sdp,rtsp,rtp,sap",
    "enable_drefs": "0",
    "use_absolute_path": "0",
}


@dataclass(frozen=True)
class NetworkStream:
    """A network address for :func:`~avfusion.media.open_live`, which treats a plain string as a file name.

    A playlist at the address may lead to other network addresses, but never to a local file.

    Args:
        address: a URL such as ``"rtsp://camera.local/stream"``; http, https, rtsp, rtmp, rtp, tcp, tls, udp, srt and
            other network protocols of FFmpeg.

    Raises:
        InvalidValueError: ``address`` is not a network address.

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

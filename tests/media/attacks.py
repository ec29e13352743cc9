"""Files that refer to other files or addresses, and watches that tell whether these were opened."""

import ctypes
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_OPEN = 0x20
_HEADER = struct.calcsize("iIII")


class OpenWatch:
    """Tells which files of a folder have been opened (Linux)."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._number = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._number >= 0
        assert self._libc.inotify_add_watch(self._number, os.fsencode(folder), _IN_OPEN) >= 0

    def opened(self) -> set[str]:
        """Names since the last time."""
        names: set[str] = set()
        while select.select([self._number], [], [], 0)[0]:
            data = os.read(self._number, 65536)
            while data:
                length = struct.unpack_from("iIII", data)[3]
                names.add(data[_HEADER : _HEADER + length].rstrip(b"\0").decode())
                data = data[_HEADER + length :]
        return names - {""}

    def close(self) -> None:
        os.close(self._number)


@contextmanager
def listener() -> Iterator[socket.socket]:
    """A server on which nobody should call."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        server.setblocking(False)
        yield server


def calls(server: socket.socket) -> int:
    """How many have called since the last time."""
    count = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def playlists(target: str) -> dict[str, str]:
    """Files of many kinds that refer to a target."""
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n",
        "hls_master": f'#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS="avc1.4d401e"\n{target}\n',
        "hls_map": f'#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MAP:URI="{target}"\n#EXTINF:5,\nx.m4s\n#EXT-X-ENDLIST\n',
        "hls_key": f'#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:5,\nx.ts\n'
        "#EXT-X-ENDLIST\n",
        "hls_live": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n",
        "concat": f"ffconcat version 1.0\nfile '{target}'\n",
        "concat_options": f"ffconcat version 1.0\nfile '{target}'\nduration 3600\nfile '{target}'\n",
        "sdp": f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns={target}\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=control:{target}\r\n"
        "m=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        f'bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "asx": f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
        "pls": f"[playlist]\nFile1={target}\nNumberOfEntries=1\n",
        "rtsp_text": f"RTSPtext\n{target}\n",
        "vobsub": f"# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n{target}\n",
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="{target}"/></svg>',
        "smooth": f'<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="{target}"/></SmoothStreamingMedia>',
        "imf": f'<AssetMap xmlns="http://www.smpte-ra.org/schemas/429-9/2007/AM"><Path>{target}</Path></AssetMap>',
    }


def with_outside_media(mp4: bytes, target: str, *, beside: bool) -> bytes:
    """An MP4 whose media lies in another file, beside it or at an absolute path, as a QuickTime alias tells."""
    at = mp4.index(b"dref") - 4
    size = int.from_bytes(mp4[at : at + 4], "big")
    name = Path(target).name.encode()
    path = target.encode()
    record = bytes(10) + bytes([0]) + bytes(27) + bytes(12) + bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16)
    record += struct.pack(">HH", beside, beside) + bytes(16)
    record += struct.pack(">HH", 2, len(path)) + path + bytes(len(path) % 2) + struct.pack(">HH", 0xFFFF, 0)
    record += bytes(max(0, 151 - len(record)))
    entry = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    box = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    changed = bytearray(mp4[:at] + box + mp4[at + size :])
    for holder in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = mp4.index(holder) - 4
        changed[place : place + 4] = (int.from_bytes(mp4[place : place + 4], "big") + len(box) - size).to_bytes(
            4, "big"
        )
    return bytes(changed)

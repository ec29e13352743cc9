"""What is no media file is refused, whatever is inside of it; and nothing packed in an image is unpacked."""

import contextlib
import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from avfusion import MediaError
from avfusion.media import MediaLimits, load_media, open_live
from avfusion.media._formats import document
from tests.media.files import tone, write

drawn = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
WRAPS = {
    "a PDF": (b"%PDF-1.7\n1 0 obj <</Filter /DCTDecode>> stream\n", b"\nendstream endobj\n%%EOF"),
    "a PostScript file": (b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\nshowpage\n"),
    "a RAR archive": (b"Rar!\x1a\x07\x01\x00", b""),
    "a 7z archive": (b"7z\xbc\xaf\x27\x1c", b""),
    "a gzip archive": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", b""),
    "a web page": (b"\n<!DOCTYPE html><html><body>404</body>", b"</html>"),
}


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("contents")
    for name in ("a.jpg", "a.png", "a.gif"):
        Image.linear_gradient("L").resize((32, 24)).save(folder / name)
    for name, codec in (("a.mp3", "libmp3lame"), ("a.aac", "aac"), ("a.flac", "flac")):
        write(folder / name, samples=tone(300, 0.5, 44100)[None], rate=44100, audio_codec=codec)
    return [file.read_bytes() for file in sorted(folder.iterdir())]


@drawn
@given(
    kind=st.sampled_from([*WRAPS, "a ZIP archive"]),
    which=st.integers(0, 5),
    suffix=st.sampled_from(["", ".mp4", ".jpg", ".mp3", ".pdf", ".mjpeg"]),
    live=st.booleans(),
)
def test_a_document_is_refused_whatever_it_holds(
    tmp_path: Path, contents: list[bytes], kind: str, which: int, suffix: str, live: bool
) -> None:
    if kind == "a ZIP archive":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a", contents[which])
        data = packed.getvalue()
    else:
        data = contents[which].join(WRAPS[kind])
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    read: Any = open_live if live else load_media
    with pytest.raises(MediaError, match=f"a{suffix}: is {kind}, no media file"):
        read(path)


def test_no_media_file_begins_as_a_document(contents: list[bytes]) -> None:
    assert [document(data[:16]) for data in contents] == [None] * 6


def png_with(kind: bytes, content: bytes) -> bytes:
    held = io.BytesIO()
    Image.linear_gradient("L").resize((8, 8)).save(held, "PNG")
    data = held.getvalue()
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data[:33] + chunk + data[33:]


@drawn
@given(
    kind=st.sampled_from([b"zTXt", b"iCCP", b"iTXt"]),
    megabytes=st.integers(2, 8),
    level=st.sampled_from([1, 9]),
    live=st.booleans(),
)
def test_what_is_packed_in_an_image_is_not_unpacked(
    tmp_path: Path, kind: bytes, megabytes: int, level: int, live: bool
) -> None:
    packed = _packed(megabytes, level)
    head = {b"zTXt": b"a\0\0", b"iCCP": b"a\0\0", b"iTXt": b"a\0\1\0\0\0"}[kind]
    path = tmp_path / "a.png"
    path.write_bytes(png_with(kind, head + packed))
    bare = tmp_path / "bare.png"
    bare.write_bytes(png_with(b"tEXt", b"a\0b"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("av.open", None)  # FFmpeg would unpack them
        if live:
            with open_live(path, realtime=False) as chunks:
                video = next(chunks).video
        else:
            video = load_media(path).video
        assert video is not None
        assert torch.equal(video.pixels, load_media(bare).video.pixels)


_PACKED: dict[tuple[int, int], bytes] = {}


def _packed(megabytes: int, level: int) -> bytes:
    if (megabytes, level) not in _PACKED:
        _PACKED[megabytes, level] = zlib.compress(bytes(megabytes << 20), level)
    return _PACKED[megabytes, level]


def test_a_png_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_with(b"tEXt", b"a\0b")[:20])
    for read in (load_media, open_live):
        with pytest.raises(MediaError, match=r"a.png: is broken"):
            read(tmp_path / "a.png")


@drawn
@given(late=st.floats(0.0, 200.0), limit=st.floats(1.0, 100.0))
def test_a_stream_that_begins_too_late_is_refused(tmp_path: Path, late: float, limit: float) -> None:
    late = round(late, 1)
    path = tmp_path / f"{late}.mkv"
    if not path.exists():
        sound = {"samples": tone(300, 0.2, 8000)[None], "rate": 8000, "audio_codec": "pcm_s16le"}
        write(path, **sound, pixels=torch.zeros(2, 3, 16, 16, dtype=torch.uint8), times=[late, late + 0.1])
    limits = MediaLimits(gap_seconds=limit)
    if late > limit:
        with pytest.raises(MediaError, match=r"frame times jump, from 0\.000 s"):
            load_media(path, limits=limits)
    elif late < limit - 0.1:
        load_media(path, limits=limits)
    chunks = 0
    with open_live(path, realtime=False, limits=limits) as live, contextlib.suppress(MediaError):
        for _ in live:  # it takes it for a clock that jumps
            chunks += 1
    assert chunks <= 2 * min(late, limit) + 3

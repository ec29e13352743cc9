"""A file, a pipe or an open file is read alone; an address is opened where one is asked for, and leads to no file."""

import functools
import http.server
import io
import itertools
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from avfusion import InvalidTypeError, InvalidValueError, MediaError
from avfusion.media import NetworkStream, load_media, open_live, write_video
from avfusion.media._formats import DEVICES, READ
from tests.media.attacks import OpenWatch, calls, listener, playlists
from tests.media.files import grey, levels_of, tone
from tests.media.live.helpers import clip, pipe_of

KINDS = [*playlists("")]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *given: object) -> None:
        pass


@contextmanager
def pages(folder: Path) -> Iterator[str]:
    """The address of a server that gives the files of a folder."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "private" / "secret.mp4"
    path.parent.mkdir()
    write_video(path, grey([200] * 4), 2.0, tone(440, 2.0, 16000))
    return path


def targets(private: Path, server: socket.socket) -> list[str]:
    port = server.getsockname()[1]
    return [str(private), f"file://{private}", f"http://127.0.0.1:{port}/a.mp4", f"tcp://127.0.0.1:{port}"]


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), target=st.integers(0, 3), way=st.sampled_from(["path", "open", "memory", "pipe"]))
def test_no_source_makes_another_be_opened(private: Path, tmp_path: Path, kind: str, target: int, way: str) -> None:
    watch = OpenWatch(private.parent)
    with listener() as server, ExitStack() as stack:
        data = playlists(targets(private, server)[target])[kind].encode()
        path = tmp_path / "up.m3u8"
        path.write_bytes(data)
        source: Any = path
        if way == "open":
            source = stack.enter_context(path.open("rb"))
        elif way == "memory":
            source = io.BytesIO(data)
        elif way == "pipe":
            source = stack.enter_context(pipe_of(data))
        with pytest.raises(MediaError):
            open_live(source, realtime=False)
        assert not calls(server)
        assert not watch.opened()
    watch.close()


def test_a_format_that_refers_to_files_is_refused_also_when_it_is_asked_for(private: Path, tmp_path: Path) -> None:
    watch = OpenWatch(private.parent)
    for kind, format in (("concat", "concat"), ("hls", "hls"), ("sdp", "sdp"), ("vobsub", "vobsub")):
        (tmp_path / "up").write_text(playlists(str(private))[kind])
        with pytest.raises(MediaError, match=r"up: is not read as .*: that refers to other files"):
            open_live(tmp_path / "up", format=format)
    for format in ("image2", "webm_dash_manifest", "rtsp", "tty", "rawvideo"):
        with pytest.raises(MediaError):
            open_live(private, format=format)
        watch.opened()
    (tmp_path / "up").write_text(str(private))
    with pytest.raises(MediaError):
        open_live(tmp_path / "up", format="image2")
    assert not watch.opened()
    watch.close()


def test_no_format_that_is_asked_for_makes_another_file_be_opened(private: Path, tmp_path: Path) -> None:
    """Of all formats of this FFmpeg but devices, with contents that name files in the ways that any of them knows."""
    watch, formats = OpenWatch(private.parent), set()
    for names in av.formats_available:
        with suppress(ValueError):
            formats |= {names} if av.ContainerFormat(names, "r").is_input else set()
    formats = {name for name in formats if not {*name.split(",")} & DEVICES}
    assert len(formats) > 300
    with listener() as server:
        texts = [playlists(str(private))["hls"], playlists(targets(private, server)[2])["concat"], str(private)]
        for number, format in itertools.product(range(3), sorted(formats)):
            if number and {*format.split(",")} & {*READ.split(",")}:
                continue
            text = texts[(number + len(format)) % 3]
            (tmp_path / "up").write_text(text)
            with suppress(MediaError):
                open_live(tmp_path / "up", format=format.split(",")[0], realtime=False, timeout=5.0).close()
        assert not calls(server)
    assert not watch.opened()
    watch.close()


def test_a_playlist_of_the_network_leads_to_addresses_and_to_no_file(private: Path, tmp_path: Path) -> None:
    public, watch = tmp_path / "public", OpenWatch(private.parent)
    public.mkdir()
    clip(public / "clip.ts", pixels=grey([50] * 20), pixel_format="yuv420p")
    with pages(public) as address:
        (public / "good.m3u8").write_text(playlists("clip.ts")["hls"])
        with open_live(NetworkStream(f"{address}/good.m3u8"), realtime=False, audio=False) as live:
            chunks = [*live]
        assert chunks[0].video is not None
        assert levels_of(chunks[0].video.pixels[0]) == pytest.approx([50], abs=2)
        for kind in ("hls", "hls_master", "hls_map", "hls_key", "concat", "dash", "smooth"):
            for target in (str(private), f"file://{private}", f"file:{private}", f"subfile,,start,0,end,0,,:{private}"):
                (public / "bad.m3u8").write_text(playlists(target)[kind])
                with suppress(MediaError), open_live(NetworkStream(f"{address}/bad.m3u8"), timeout=1.0) as live:
                    next(live)
        assert not watch.opened()
    watch.close()


def test_plain_text_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with listener() as server:
        port = server.getsockname()[1]
        for text in (f"tcp://127.0.0.1:{port}", f"http://127.0.0.1:{port}/a.mp4", f"rtsp://127.0.0.1:{port}/a"):
            for format in (None, "mpegts"):
                with pytest.raises(InvalidValueError, match=r"^source: an address must be given as NetworkStream\("):
                    open_live(text, format=format)
        assert not calls(server)
    write_video(tmp_path / "http:clip.mp4", grey([9, 9]), 2.0)
    with open_live("http:clip.mp4", realtime=False) as live:
        assert live.streams == ("visual",)


@pytest.mark.parametrize(
    "address",
    ["clip.mp4", "/dev/video0", "file:///a.mp4", "concat:a|b", "pipe:0", "subfile,,:a", "http:/a", "http://a b/c", "http://",
     "http://a/\r\nX: y", "unix:///a", "data:;base64,AA", "cache:http://a/b", "async:http://a/b", ""],
)  # fmt: skip
def test_what_is_no_address_of_a_network_is_refused(address: str) -> None:
    with pytest.raises(InvalidValueError, match=r"^address: must be of a network"):
        NetworkStream(address)
    with pytest.raises(InvalidTypeError, match=r"^address: must be text, found int"):
        NetworkStream(3)  # type: ignore[arg-type]


def test_names_are_no_patterns_here_either(tmp_path: Path) -> None:
    for name, level in (("shot0.png", 10), ("shot1.png", 20), ("shot%d.png", 200)):
        Image.new("RGB", (32, 24), (level,) * 3).save(tmp_path / name)
    path = tmp_path / "shot%d.png"
    with path.open("rb") as file:
        for source in (path, os.fsencode(path), file):
            with open_live(source, realtime=False) as live:
                levels = [levels_of(chunk.video.pixels[0]) for chunk in live if chunk.video is not None]
            assert levels == [[200]]


def test_errors_of_an_open_file_reach_the_caller(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", grey([9] * 8), 2.0)
    data = (tmp_path / "clip.mp4").read_bytes()

    class Bad(io.BytesIO):
        def __init__(self, error: Exception | None, more: int = 0) -> None:
            super().__init__(data)
            self.error, self.more = error, more

        def read(self, size: int | None = -1, /) -> bytes:
            if self.error is not None:
                raise self.error
            return super().read(size) + bytes(self.more)

    with pytest.raises(ZeroDivisionError):
        open_live(Bad(ZeroDivisionError()))
    with pytest.raises(MediaError, match=r"cannot be read \(Input/output error\)"):
        open_live(Bad(OSError(5, "Input/output error")))
    with pytest.raises(InvalidValueError, match="source: must give at most the"):
        open_live(Bad(None, 100000))
    assert load_media(tmp_path / "clip.mp4").duration == 4.0  # nothing of it stays behind


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "sock"))
        for source in (tmp_path / "sock", str(tmp_path / ("a" * 256)), f"{tmp_path}/nul\0.mp4", 999):
            with pytest.raises(MediaError):
                open_live(source)

"""A path stands for one file: neither its name nor its content makes another be opened."""

import contextlib
import itertools
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from avfusion import InvalidTypeError, InvalidValueError, MediaError
from avfusion.media import load_media, write_video
from tests.media.attacks import OpenWatch, calls, listener, playlists, with_outside_media
from tests.media.files import grey, levels_of, sound_frame, tone

SUFFIXES = [".m3u8", ".mp4", ".ffconcat", ".sdp", ".mpd", ".idx", ".mkv", ".wav", ".jpg", ".svg", ".ts", ".txt", ""]


class Place:
    """A folder with a private video, another one, and a server, all watched."""

    def __init__(self, folder: Path, server: socket.socket) -> None:
        self.folder, self.server = folder, server
        self.private = folder / "private" / "secret.mp4"
        self.private.parent.mkdir()
        write_video(self.private, grey([200] * 4), 2.0, tone(440, 2.0, 16000))
        self.watch = OpenWatch(self.private.parent)

    def touched(self) -> bool:
        return bool(self.watch.opened()) | bool(calls(self.server))

    def targets(self) -> list[str]:
        path, port = self.private, self.server.getsockname()[1]
        return [
            str(path),
            "private/secret.mp4",
            f"file://{path}",
            f"file:{path}",
            f"subfile,,start,0,end,0,,:{path}",
            f"concat:{path}|{path}",
            f"async:{path}",
            f"cache:{path}",
            f"crypto:{path}",
            f"http://127.0.0.1:{port}/secret.mp4",
            f"http://127.0.0.1:{port}/secret.ts",
            f"tcp://127.0.0.1:{port}",
            f"ftp://127.0.0.1:{port}/secret.mp4",
            f"rtsp://127.0.0.1:{port}/secret",
            f"gopher://127.0.0.1:{port}/",
        ]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with listener() as server:
        made = Place(tmp_path, server)
        made.touched()
        yield made
        made.watch.close()


@pytest.mark.parametrize("kind", ["hls", "hls_master", "hls_map", "concat"])
def test_a_playlist_would_reveal_a_private_video_if_ffmpeg_opened_it(place: Place, kind: str) -> None:
    path = place.folder / "up.m3u8"
    path.write_text(playlists(str(place.private))[kind])
    options = {"safe": "0"} if kind == "concat" else {"extension_picky": "0", "allowed_extensions": "ALL"}
    with contextlib.suppress(av.FFmpegError), av.open(str(path), options=options) as container:
        next(container.demux())
    assert place.touched()
    with pytest.raises(MediaError, match=r"up\.m3u8: is a .*: what refers to other files or addresses is not read"):
        load_media(path)
    assert not place.touched()


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([*playlists("")]),
    suffix=st.sampled_from(SUFFIXES),
    target=st.integers(0, 14),
    lead=st.booleans(),
)
def test_no_file_makes_another_be_opened(place: Place, kind: str, suffix: str, target: int, lead: bool) -> None:
    path = place.folder / f"up{suffix}"
    path.write_text("\ufeff" * lead + playlists(place.targets()[target])[kind])
    with pytest.raises(MediaError, match=r"(?s)^[^\n]*up[^\n]*$"):
        load_media(path, timeout=20.0)
    assert not place.touched()


@pytest.mark.parametrize("beside", [False, True])
def test_media_outside_of_an_mp4_is_not_opened(place: Place, tmp_path: Path, beside: bool) -> None:
    write_video(tmp_path / "clip.mov", grey([9, 9, 9, 9]), 2.0)
    path = place.private.parent / "up.mov" if beside else tmp_path / "up.mov"
    path.write_bytes(with_outside_media((tmp_path / "clip.mov").read_bytes(), str(place.private), beside=beside))
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        next(container.demux())
    assert "secret.mp4" in place.watch.opened()
    with contextlib.suppress(MediaError):
        load_media(path)
    assert "secret.mp4" not in place.watch.opened()


@pytest.mark.parametrize(
    "name",
    ["shot%d.png", "my%20dog.png", "%03d.png", "a*b?.png", "{1,2}.png", "[0-9].png", "file:x.png", "concat:a|b.png"],
)
def test_a_name_is_no_pattern(tmp_path: Path, name: str) -> None:
    for other, level in (("shot0.png", 10), ("shot1.png", 20), ("my00000000000000000000dog.png", 30), ("001.png", 40)):
        Image.new("RGB", (32, 24), (level,) * 3).save(tmp_path / other)
    Image.new("RGB", (32, 24), (200, 200, 200)).save(tmp_path / name, "PNG")
    media = load_media(tmp_path / name)
    assert media.duration == 0
    assert media.video is not None
    assert levels_of(media.video.pixels[0]) == [200]
    with pytest.raises(MediaError, match="does not exist"):
        load_media(tmp_path / "shot%02d.png")


NAME = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stem=NAME, part=st.sampled_from(["", "%d", "%03d", "%20", "%", "*", "{a,b}", "http://a.b:1/", "pipe:", "-", ":"])
)
def test_any_name_is_the_name_of_its_file(tmp_path_factory: pytest.TempPathFactory, stem: str, part: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "names"
    folder.mkdir(exist_ok=True)
    path = folder / f"{(stem + part).replace('/', ';')}.png"
    if len(os.fsencode(path.name)) > 255:
        return
    Image.new("RGB", (8, 6), (200, 200, 200)).save(path, "PNG")
    for form in (path, str(path), os.fsencode(path)):
        media = load_media(form)
        assert media.video is not None
        assert media.video.pixels.shape == (1, 1, 3, 6, 8)
    path.unlink()
    with pytest.raises(MediaError, match=r"^[^\n]*: does not exist$"):
        load_media(path)


@pytest.mark.parametrize(
    "name",
    ["a" * 256 + ".mp4", "a" * 5000, "é" * 128 + ".mp4", "a/" * 3000, "nul\0.mp4", "\ud800.mp4", ""],
)
def test_a_name_that_no_file_has_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match=r"cannot be opened|does not exist|is a directory"):
        load_media(f"{tmp_path}/{name}")
    with pytest.raises(MediaError):
        load_media(name)


@pytest.mark.parametrize("path", [None, 3, 2.0, True, ["a.mp4"], object()])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(InvalidTypeError, match=r"^path: must be the path of a file, found "):
        load_media(path)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "sock"))
        for path, kind in ((tmp_path, "directory"), (tmp_path / "fifo.mp4", "pipe"), (tmp_path / "sock", "socket")):
            with pytest.raises(MediaError, match=f"is a {kind}, not a file"):
                load_media(path)
        for device in ("/dev/zero", "/dev/null", "/dev/urandom"):
            with pytest.raises(MediaError, match="is a device, not a file"):
                load_media(device)
    with pytest.raises(MediaError, match="does not exist"):
        load_media(tmp_path / "fifo.mp4" / "clip.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    with pytest.raises(MediaError, match="cannot be opened"):
        load_media(tmp_path / "loop.mp4")


def test_a_closed_folder_or_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "closed" / "clip.mp4"
    path.parent.mkdir()
    write_video(path, grey([9, 9]), 2.0)
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser may read everything
        real = os.open

        def refuse(name: Any, *options: Any, **named: Any) -> int:
            if os.fspath(name) == os.fspath(path):
                raise PermissionError(13, "Permission denied", str(path))
            return real(name, *options, **named)

        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(MediaError, match=r"clip\.mp4: cannot be opened \(Permission denied\)"):
        load_media(path)
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)


def test_reading_ends_at_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mkv"
    write_video(path, grey([9] * 40), 2.0, tone(440, 20.0, 16000))
    assert load_media(path, timeout=600.0).duration == pytest.approx(20.0, abs=0.1)
    with pytest.raises(MediaError, match=r"clip\.mkv: takes longer than 1e-09 s to read; timeout=\.\.\. allows more"):
        load_media(path, timeout=1e-9)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidValueError, match=r"^timeout: must be a positive number of seconds"):
            load_media(path, timeout=wrong)


def test_a_deadline_at_any_moment_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mkv"
    write_video(path, grey([9] * 40), 2.0, tone(440, 20.0, 16000))
    now = itertools.count()  # a clock on which every look takes a second
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    outcomes = set()
    for looks, start in itertools.product([*range(1, 40), *range(40, 800, 80)], (0.0, 5.0)):
        outcome = "read"
        try:
            load_media(path, timeout=float(looks), start=start)
        except MediaError as error:
            outcome = re.sub(r"takes longer than \d+ s", "late", str(error).removeprefix(f"{path}: "))
        outcomes.add(outcome)
    assert outcomes == {"read", "late to read; timeout=... allows more"}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=st.binary(min_size=8, max_size=8))
def test_metadata_need_not_be_text(tmp_path: Path, title: bytes) -> None:
    place = b"QQQQQQQQ"
    path = tmp_path / "titled.mkv"
    if not path.exists():
        with av.open(str(path), "w") as container:
            container.metadata["title"] = place.decode()
            sound: Any = container.add_stream("pcm_f32le", rate=16000, layout="mono")
            container.mux(sound.encode(sound_frame(tone(440, 0.1, 16000)[None], 0, 16000, "mono")))
            container.mux(sound.encode(None))
    content = path.read_bytes()
    assert content.count(place) == 1
    other = tmp_path / "other.mkv"
    other.write_bytes(content.replace(place, title))
    media = load_media(other)
    assert media.waveform is not None
    assert media.waveform.samples.shape[1] == 1600

"""Chunks of a file, of a pipe, and of a connection, put together, are what load_media gives."""

import functools
import http.server
import io
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion.media import NetworkStream, load_media, open_live, write_video
from avfusion.media.live.shared import Start
from tests.media.files import grey, tone, write
from tests.media.live.helpers import Clock, assert_same, clip, kinds_of, pipe_of, settle

drawn = settings(deadline=None, max_examples=40, derandomize=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    silent, sound = folder / "silent.mp4", folder / "sound.wav"
    write_video(silent, grey([20 * index for index in range(11)]), 5.0)
    write(sound, samples=tone(300, 1.7, 22050)[None], rate=22050, audio_codec="pcm_s16le")
    return [
        clip(folder / "clip.mp4"),
        clip(folder / "opus.mkv", audio_codec="libopus"),
        clip(folder / "clip.ts", start=7.0),
        silent,
        sound,
        clip(folder / "gap.mkv", audio_codec="pcm_s16le", sound_at=((0.0, 0), (0.9, 24000), (3.0, 60000))),
        clip(folder / "late.mkv", audio_codec="pcm_s16le", sound_at=((1.2, 0),)),
        clip(folder / "late.mp4", times=[0.8 + index / 10 for index in range(20)]),
        clip(folder / "short.mkv", audio_codec="pcm_s16le", samples=tone(300, 0.4, 48000)[None]),
        clip(folder / "held.mkv", pixels=grey([10, 200, 90]), times=[0.0, 0.3, 3.9]),
    ]


@drawn
@given(
    which=st.integers(0, 9),
    chunk_seconds=st.floats(0.02, 3.0) | st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    frame_rate=st.sampled_from([0.7, 2.0, 4.0, 25.0]),
    sample_rate=st.sampled_from([8000, 16000, 44100]),
    paced=st.booleans(),
)
def test_the_chunks_of_a_file_are_the_file(
    clips: list[Path], which: int, chunk_seconds: float, frame_rate: float, sample_rate: int, paced: bool
) -> None:
    clock = Clock()
    options = {"frame_rate": frame_rate, "sample_rate": sample_rate}
    with open_live(
        clips[which], **options, chunk_seconds=chunk_seconds, realtime=paced, clock=clock, sleep=clock.sleep
    ) as live:
        chunks = []
        for chunk in live:
            chunks.append(chunk)
            if paced:
                assert clock.now == pytest.approx(chunk.report.end)
    media = load_media(clips[which], **options)
    assert_same(chunks, media)
    assert kinds_of(chunks) <= {"gap"}
    for chunk in chunks:  # what is given is given up to ``watermark``, in full
        if chunk.video is not None and not chunk.ended:
            assert chunk.video.spans.max() <= chunk.watermark["visual"] + 1e-5
            assert chunk.watermark["visual"] in (math.inf, pytest.approx(float(chunk.video.spans.max())))
        if chunk.waveform is not None and chunk.watermark["audio"] < math.inf:
            assert float(chunk.waveform.start + chunk.waveform.durations) >= chunk.watermark["audio"] - 1e-4
    assert [chunk.report.start for chunk in chunks] == [0.0, *(chunk.report.end for chunk in chunks[:-1])]


def test_what_a_source_does_not_have_has_ended(clips: list[Path]) -> None:
    for path, absent in ((clips[3], "audio"), (clips[4], "visual")):
        with open_live(path, realtime=False) as live:
            assert absent not in live.streams
            assert {chunk.watermark[absent] for chunk in live} == {torch.inf}


def test_size_and_streams_are_chosen(clips: list[Path]) -> None:
    with open_live(clips[0], realtime=False, size=(8, 12), audio=False) as live:
        assert_same([*live], load_media(clips[0], size=(8, 12), audio=False))
    with open_live(clips[0], realtime=False, video=False) as live:
        assert_same([*live], load_media(clips[0], video=False))


def test_pictures_and_sound_may_come_from_two_files(clips: list[Path]) -> None:
    with open_live(clips[3], audio_source=clips[4], realtime=False) as live:
        chunks = [*live]
    assert_same(chunks, load_media(clips[3])._replace(waveform=load_media(clips[4]).waveform))


@pytest.mark.parametrize("which", [1, 2])
def test_a_pipe_that_can_wait_loses_nothing(clips: list[Path], which: int) -> None:
    with pipe_of(clips[which].read_bytes()) as number, open_live(number, realtime=False, chunk_seconds=0.3) as live:
        assert_same([*live], load_media(clips[which]))


@pytest.mark.parametrize("open_as", ["memory", "file", "path of a fifo"])
def test_what_is_open_already_is_read(clips: list[Path], tmp_path: Path, open_as: str) -> None:
    data = clips[1].read_bytes()
    if open_as == "path of a fifo":
        import os

        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        threading.Thread(target=fifo.write_bytes, args=(data,)).start()
        with open_live(fifo, realtime=False) as live:
            assert_same([*live], load_media(clips[1]))
        return
    with io.BytesIO(data) if open_as == "memory" else clips[1].open("rb") as file:
        with open_live(file, realtime=False) as live:
            assert_same([*live], load_media(clips[1]))
        assert not file.closed


@contextmanager
def served(data: bytes) -> Iterator[int]:
    """The port of a server that gives this to the one who comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_a_connection_is_read(clips: list[Path]) -> None:
    options = {"format": "mpegts", "realtime": False}
    with served(clips[2].read_bytes()) as port, open_live(NetworkStream(f"tcp://127.0.0.1:{port}"), **options) as live:
        assert_same([*live], load_media(clips[2]))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *given: object) -> None:
        pass


def test_a_page_is_read(clips: list[Path]) -> None:
    handler = functools.partial(_Quiet, directory=str(clips[0].parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with open_live(NetworkStream(f"http://127.0.0.1:{server.server_port}/{clips[1].name}"), realtime=False) as live:
            chunks = [*live]
        server.shutdown()
        thread.join()
    assert_same(chunks, load_media(clips[1]))


def test_a_device_is_read() -> None:
    graph = "testsrc=rate=10:size=64x48:duration=2[out0];sine=sample_rate=16000:duration=2[out1]"
    with open_live(graph, format="lavfi", realtime=False, chunk_seconds=0.7) as live:
        chunks = [*live]
    assert [chunk.video.pixels.shape[1] for chunk in chunks] == [1, 1, 2]
    assert sum(chunk.waveform.samples.shape[1] for chunk in chunks) == 32000


def test_a_camera_and_a_microphone_share_a_clock(clips: list[Path]) -> None:
    start = Start()
    assert [start.since(now) for now in (5.0, 6.5, 4.9)] == [0.0, 1.5, 0.0]
    with (
        pipe_of(clips[2].read_bytes()) as camera,
        pipe_of(clips[1].read_bytes()) as microphone,
        open_live(camera, audio_source=microphone, max_lag=60.0, max_wait=60.0, clock=lambda: 3.0) as live,
    ):
        settle(live)
        chunks = [*live]
    assert live.streams == ("visual", "audio")
    assert_same(chunks, load_media(clips[2], audio=False)._replace(waveform=load_media(clips[1]).waveform))

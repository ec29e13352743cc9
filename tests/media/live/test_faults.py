"""Whatever goes wrong with a source has a defined result: nothing that came is lost, and what did not come is told."""

import contextlib
import math
import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfusion import InvalidTypeError, InvalidValueError, MediaError
from avfusion.media import LiveChunk, LiveFault, MediaLimits, NetworkStream, load_media, open_live, write_video
from avfusion.media.live import reader
from avfusion.media.live.pipe import Pipe
from tests.media.bombs import gif
from tests.media.files import grey, levels_of, tone, write
from tests.media.live.helpers import (
    assert_same,
    clip,
    kinds_of,
    pipe_of,
    pixels_of,
    samples_of,
    settle,
    spans_of,
)


def faults_of(chunks: Sequence[LiveChunk], kind: str) -> list[LiveFault]:
    return [fault for chunk in chunks for fault in chunk.report.faults if fault.kind == kind]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Four seconds, in which video and audio alternate, as they do when they are sent."""
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    write_video(path, grey([20 + 5 * index for index in range(40)]), 10.0, tone(300, 4.0, 16000))
    return path.read_bytes()


def whole(data: bytes, folder: Path) -> Any:
    (folder / "whole.mkv").write_bytes(data)
    return load_media(folder / "whole.mkv")


def test_a_file_that_is_cut_short_gives_what_it_holds(stream: bytes, tmp_path: Path) -> None:
    path = tmp_path / "short.mkv"
    path.write_bytes(stream[: len(stream) // 2])
    media = whole(stream, tmp_path)
    with open_live(path, realtime=False) as live:
        chunks = [*live]
    assert chunks[-1].ended
    (fault,) = [fault for fault in chunks[-1].report.faults if fault.kind == "died"]
    assert fault.stream is None
    assert "is cut short" in fault.message
    assert fault.time == pytest.approx(2.0, abs=0.2)
    samples = samples_of(chunks)
    assert 16000 < len(samples) < 48000
    assert torch.allclose(samples[:-500], media.waveform.samples[0, : len(samples) - 500], atol=1e-3)
    pixels = pixels_of(chunks)[:-1]  # the last frame is incomplete
    assert torch.equal(pixels, media.video.pixels[0, : len(pixels)])


def test_a_connection_that_breaks_off_gives_what_came(stream: bytes, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = threading.Event()

        def serve() -> None:
            connection = server.accept()[0]
            connection.sendall(stream[: len(stream) // 2])
            given.wait()
            # It is reset rather than closed.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with open_live(NetworkStream(f"tcp://127.0.0.1:{server.getsockname()[1]}"), realtime=False) as live:
            chunks = [next(live)]
            given.set()
            chunks += live
        thread.join()
    assert chunks[-1].ended
    assert "died" in kinds_of(chunks)
    assert 16000 < len(samples_of(chunks)) < 48000


def test_a_pipe_that_stalls_gives_what_came(stream: bytes, tmp_path: Path) -> None:
    media = whole(stream, tmp_path)
    half = stream[: len(stream) // 2]
    with pipe_of(half, hold=threading.Event()) as number, open_live(number, timeout=0.2, max_lag=60.0) as live:
        chunks = [*live]
    assert chunks[-1].ended
    (fault,) = faults_of(chunks, "stalled")
    assert "nothing came any more" in fault.message
    samples = samples_of(chunks)
    assert 16000 < len(samples) < 48000
    assert torch.equal(samples[:16000], media.waveform.samples[0, :16000])


def test_what_never_opens_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"none\.mp4: does not exist"):
        open_live(tmp_path / "none.mp4")
    with pytest.raises(MediaError, match="is a directory"):
        open_live(tmp_path)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(MediaError, match="is empty"):
        open_live(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    with pytest.raises(MediaError, match=r"text\.mp4: is a text file"):
        open_live(tmp_path / "text.mp4")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(MediaError, match=rf"tcp://127.0.0.1:{port}: cannot be opened \(Connection refused"):
        open_live(NetworkStream(f"tcp://127.0.0.1:{port}"))
    nothing = r"cannot be opened \(nothing came for 0\.1 s"
    with pipe_of(hold=threading.Event()) as number, pytest.raises(MediaError, match=nothing):
        open_live(number, timeout=0.1)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(MediaError, match=nothing):
        open_live(NetworkStream(f"tcp://127.0.0.1:{server.getsockname()[1]}"), timeout=0.1)


def test_a_second_source_that_is_refused_closes_the_first(stream: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.mkv").write_bytes(stream)
    with pytest.raises(MediaError, match=r"none\.wav: does not exist"):
        open_live(tmp_path / "clip.mkv", audio_source=tmp_path / "none.wav")
    with (
        pipe_of(stream) as number,
        pytest.raises(InvalidValueError, match="audio_source: must be a file if the source is"),
    ):
        open_live(tmp_path / "clip.mkv", audio_source=number)


def part(folder: Path, start: float, seconds: float = 2.0, **options: Any) -> bytes:
    """MPEG-TS, which can be put behind another, as when a sender starts anew."""
    return clip(folder / "part.ts", start=start, seconds=seconds, **options).read_bytes()


@pytest.mark.parametrize("again", [0.0, 30.0, 5000.0])
@pytest.mark.parametrize("live", [False, True])
def test_time_goes_on_where_the_clock_jumps(tmp_path: Path, again: float, live: bool) -> None:
    first, second = part(tmp_path, 10.0), part(tmp_path, again)
    options = {"realtime": live, "max_lag": 60.0, "frame_rate": 10.0, "clock": lambda: 0.0}
    with pipe_of(first + second) as number, open_live(number, **options) as source:
        if live:
            settle(source)
        chunks = [*source]
    jumps = faults_of(chunks, "clock")
    assert jumps
    assert jumps[0].amount == pytest.approx(again - 12.0, abs=0.3)
    assert "time goes on" in jumps[0].message
    starts = spans_of(chunks)[:, 0]
    assert (starts.diff() > 0).all()
    assert starts[-1] == pytest.approx(3.9, abs=0.35)
    levels = levels_of(pixels_of(chunks))
    assert len(levels) >= 38
    assert levels[:20] == pytest.approx([10 + 230 * index // 20 for index in range(20)], abs=4)
    assert levels[20:40] == pytest.approx(levels[:20], abs=4)  # none is lost, not even at the seam
    samples = samples_of(chunks)
    assert len(samples) / 16000 == pytest.approx(4.0, abs=0.35)


def test_pictures_and_sound_stay_together_over_a_jump(tmp_path: Path) -> None:
    # In both halves a bright frame comes with a loud beep, half a second after the beginning.
    levels = [10] * 5 + [240] * 5 + [10] * 10
    beep = torch.zeros(1, 96000)
    beep[0, 24000:48000] = tone(1000, 0.5, 48000)
    halves = [part(tmp_path, start, pixels=grey(levels), samples=beep) for start in (10.0, 3.0)]
    with pipe_of(b"".join(halves)) as number, open_live(number, realtime=False, frame_rate=10.0) as live:
        chunks = [*live]
    bright = torch.tensor(levels_of(pixels_of(chunks))) > 120
    seen = spans_of(chunks)[bright]
    loud = samples_of(chunks).nan_to_num().unfold(0, 160, 160).abs().amax(1) > 0.2
    heard = loud.nonzero()[:, 0] / 100
    assert [float(seen[0, 0]), float(seen[-1, 1])] == pytest.approx([float(heard[0]), float(heard[-1])], abs=0.15)
    assert float(seen[seen[:, 0] > 2][0, 0]) == pytest.approx(float(heard[heard > 2][0]), abs=0.15)


def test_other_sound_and_other_pictures_go_on(tmp_path: Path) -> None:
    first = part(tmp_path, 10.0)
    second = part(
        tmp_path, 12.0, pixels=grey([200] * 20, 48, 64), samples=tone(400, 2.0, 32000)[None].expand(2, -1), rate=32000,
        layout="stereo",
    )  # fmt: skip
    with pipe_of(first + second) as number, open_live(number, realtime=False) as live:
        chunks = [*live]
    assert pixels_of(chunks).shape[1:] == (3, 24, 32)
    assert levels_of(pixels_of(chunks))[-2:] == pytest.approx([200, 200], abs=4)
    found = {(fault.stream, fault.message.split(": ")[-1]) for fault in faults_of(chunks, "format")}
    assert found == {
        ("visual", "frames of 64 × 48 from here on"),
        ("audio", "audio of 32000 Hz, stereo from here on"),
    }
    samples = samples_of(chunks)
    assert not samples[samples.isnan().long().argmin() :].isnan().any()
    spectrum = torch.fft.rfft(samples[-16000:-4000]).abs()
    assert spectrum.argmax() * 16000 / 12000 == pytest.approx(400, abs=2)


def interleaved(path: Path, beeps: Sequence[tuple[float, float]], seconds: float = 6.0) -> bytes:
    """Frames all the time, audio between some times only."""
    samples = torch.cat([tone(300, stop - start, 48000) for start, stop in beeps])
    places, first = [], 0
    for start, stop in beeps:
        for index in range(round((stop - start) * 50)):
            places.append((start + index / 50, first))
            first += 960
    count = round(10 * seconds)
    return write(
        path,
        pixels=grey([20] * count),
        times=[index / 10 for index in range(count)],
        samples=samples[None],
        audio_codec="mp2",
        sound_at=places,
    ).read_bytes()


@pytest.mark.parametrize(("beeps", "silent"), [(((0.0, 1.5), (4.0, 6.0)), (1.5, 4.0)), (((3.5, 6.0),), (0.0, 3.5))])
def test_live_sound_that_is_away_is_missing_and_comes_back(
    tmp_path: Path, beeps: Sequence[tuple[float, float]], silent: tuple[float, float]
) -> None:
    path = tmp_path / "clip.mkv"
    interleaved(path, beeps)
    data = remuxed(path, tmp_path / "sent.mkv")
    with pipe_of(data) as number, open_live(number, max_lag=60.0, max_wait=0.5) as live:
        settle(live)
        chunks = [*live]
    assert pixels_of(chunks).shape[0] == 12
    for chunk in chunks[:-1]:
        start, end = chunk.report.start, chunk.report.end
        if chunk.waveform is not None:  # no silence is put in the place of what was missing
            assert float(chunk.waveform.start) >= start - 1e-3
        assert chunk.watermark["audio"] in (math.inf, pytest.approx(end))  # nothing more will come of that time
        if silent[0] + 0.1 < start and end < silent[1] - 0.6:
            assert chunk.waveform is None
            (fault,) = chunk.report.faults
            assert (fault.kind, fault.stream, fault.amount) == ("missing", "audio", pytest.approx(0.5, abs=1e-6))
        if start > silent[1] + 0.1:
            assert chunk.waveform.durations.item() == pytest.approx(0.5, abs=0.05)
    # The file, which is all there, has silence instead.
    with open_live(path, realtime=False) as live:
        chunks = [*live]
    assert_same(chunks, load_media(path))
    gaps = [fault.amount for fault in faults_of(chunks, "gap")]
    assert gaps == ([] if silent[0] == 0 else [pytest.approx(silent[1] - silent[0], abs=0.01)])


def remuxed(path: Path, target: Path) -> bytes:
    """The same packets in the order of their times, as they are sent."""
    import av

    with av.open(str(path)) as source, av.open(str(target), "w") as sink:
        streams = {stream.index: sink.add_stream_from_template(stream) for stream in source.streams}
        packets = [packet for packet in source.demux() if packet.dts is not None]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            packet.stream = streams[packet.stream_index]
            sink.mux(packet)
    return target.read_bytes()


def test_sound_that_comes_too_late_is_left_out_of_a_live_source_only(tmp_path: Path) -> None:
    """All frames come first, then all audio."""
    path = clip(tmp_path / "clip.ts", seconds=4.0, start=10.0, options={"max_interleave_delta": "1"})
    data = path.read_bytes()
    with pipe_of(data) as number, open_live(number, max_lag=60.0, max_wait=1.0) as live:
        settle(live)
        chunks = [*live]
    (late,) = faults_of(chunks, "late")
    assert late.stream == "audio"
    missing = sum(fault.amount for fault in faults_of(chunks, "missing"))
    assert missing == pytest.approx(2.0, abs=0.1)
    assert late.amount == pytest.approx(missing, abs=0.1)
    with open_live(path, realtime=False, max_wait=1.0) as live:
        assert_same([*live], load_media(path))


def test_damaged_packets_are_counted_and_passed_over(tmp_path: Path) -> None:
    data = bytearray(clip(tmp_path / "clip.ts", seconds=4.0).read_bytes())
    packets = len(data) // 188
    for index in range(packets // 3, packets // 3 + 40, 3):  # some are lost
        data[index * 188 : (index + 1) * 188] = b"\xff" * 188
    (tmp_path / "damaged.ts").write_bytes(data)
    with open_live(tmp_path / "damaged.ts", realtime=False) as live:
        chunks = [*live]
    assert sum(fault.amount for fault in faults_of(chunks, "corrupt")) >= 1
    assert chunks[-1].report.end == pytest.approx(4.0, abs=0.5)
    assert levels_of(pixels_of(chunks)[-1:]) == pytest.approx([232], abs=15)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    changes=st.lists(st.tuples(st.floats(0.05, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=60),
    share=st.floats(0.1, 1.0),
    suffix=st.sampled_from(["mkv", "ts"]),
)
def test_damage_anywhere_ends_with_what_was_readable(
    stream: bytes, tmp_path: Path, changes: list[tuple[float, int]], share: float, suffix: str
) -> None:
    data = bytearray(stream if suffix == "mkv" else part(tmp_path, 10.0))
    for place, value in changes:
        data[int(place * len(data))] = value
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(data[: int(share * len(data))])
    with contextlib.suppress(MediaError), open_live(path, realtime=False) as live:
        chunks = [*live]
        assert [chunk.ended for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        starts = [chunk.report.start for chunk in chunks]
        assert starts == sorted(starts)


def test_sound_that_comes_twice_is_taken_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "clip.mkv",
        samples=tone(300, 2.0, 48000)[None],
        audio_codec="pcm_s16le",
        sound_at=((0.0, 0), (0.8, 48000)),
    )
    with open_live(path, realtime=False) as live:
        chunks = [*live]
    assert_same(chunks, load_media(path))
    (fault,) = faults_of(chunks, "overlap")
    assert fault.amount == pytest.approx(0.2)
    first = load_media(path).waveform.samples[0, 10:15900]
    assert torch.allclose(first, tone(300, 1.0, 16000)[10:15900], atol=0.01)


def test_an_error_in_the_thread_is_raised_where_chunks_are_taken(
    stream: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = reader.FrameCollector.add

    def fails(self: Any, frame: Any) -> None:
        if frame.time > 2.0:
            raise ZeroDivisionError("planted")
        add(self, frame)

    monkeypatch.setattr(reader.FrameCollector, "add", fails)
    with pipe_of(stream) as number, open_live(number, realtime=False) as live:
        chunks = []
        with pytest.raises(ZeroDivisionError, match="planted") as caught:
            chunks.extend(live)
        assert next(live, None) is None
    assert any(entry.name == "fails" for entry in caught.traceback)
    assert len(samples_of(chunks)) > 1.8 * 16000
    assert not any(chunk.ended for chunk in chunks)


def test_closing_ends_a_source_on_which_nothing_comes(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    half, given, read = stream[: len(stream) // 2], [], Pipe.read
    stalled = threading.Event()

    def counted(self: Pipe, size: int) -> bytes:
        if sum(given) == len(half):
            stalled.set()
        data = read(self, size)
        given.append(len(data))
        return data

    monkeypatch.setattr(Pipe, "read", counted)
    with pipe_of(half, hold=threading.Event()) as number:
        taken: list[LiveChunk] = []
        with open_live(number, timeout=3600.0, max_lag=60.0) as live:
            stalled.wait()
            waiting = threading.Thread(target=lambda: taken.extend(live))
            waiting.start()
        waiting.join()
        assert not any(thread.is_alive() for thread in live._threads)
        assert next(live, None) is None
        assert not any(chunk.ended for chunk in taken)


def test_closing_ends_a_wait_for_the_clock(stream: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.mkv").write_bytes(stream)
    with open_live(tmp_path / "clip.mkv", chunk_seconds=3600.0) as live:
        waiting = threading.Thread(target=lambda: [*live])
        waiting.start()
    waiting.join()


def test_a_source_that_is_forgotten_is_closed(stream: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.mkv").write_bytes(stream)
    live = open_live(tmp_path / "clip.mkv", realtime=False)
    next(live)
    threads = live._threads
    del live
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"frame_rate": 0.0}, "frame_rate"),
        ({"frame_rate": None}, "frame_rate"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"size": (1, 2, 3)}, "size"),
        ({"video": False, "audio": False}, "video, audio"),
        ({"chunk_seconds": 0.0}, "chunk_seconds"),
        ({"chunk_seconds": math.inf}, "chunk_seconds"),
        ({"max_lag": math.nan}, "max_lag"),
        ({"timeout": -1.0}, "timeout"),
        ({"max_wait": -1.0}, "max_wait"),
        ({"on_lag": "hurry"}, "on_lag"),
        ({"lowest_frame_rate": 3.0}, "lowest_frame_rate"),
        ({"format": "nonesuch"}, "format"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{name}: .*found"):
        open_live(tmp_path / "none.mp4", **options)


def test_only_files_wait_without_end(stream: bytes) -> None:
    with pipe_of(stream) as number, pytest.raises(InvalidValueError, match=r'^on_lag: must be "skip" or "slow" for'):
        open_live(number, on_lag="wait")


@pytest.mark.parametrize("source", [None, 1.5, True, ["clip.mp4"]])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(InvalidTypeError, match=r"^source: must be a path"):
        open_live(source)


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), MediaError("damage")])
def test_what_goes_wrong_at_the_very_end_ends_the_source_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = clip(tmp_path / "clip.mkv")

    def close(sound: object) -> None:
        raise error

    monkeypatch.setattr("avfusion.media._audio.AudioCollector.close", close)
    with open_live(path, realtime=False) as live:
        if isinstance(error, MediaError):
            assert "corrupt" in [fault.kind for chunk in live for fault in chunk.report.faults]
        else:
            with pytest.raises(ZeroDivisionError, match="ours"):
                list(live)


def test_a_last_picture_that_is_held_for_too_long_ends_the_source(tmp_path: Path) -> None:
    (tmp_path / "held.gif").write_bytes(gif(10, 10, 100, 65535))  # the second for 655 s
    with (
        open_live(tmp_path / "held.gif", realtime=False, limits=MediaLimits(total_pixels=2**20)) as live,
        pytest.raises(MediaError, match=r"held\.gif: asks for .*limits=MediaLimits\(total_pixels="),
    ):
        list(live)

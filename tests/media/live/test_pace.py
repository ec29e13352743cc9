"""A file is played by the clock, and whoever is too slow is behind by a bounded time, as the policy says."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion.media import LiveChunk, load_media, open_live, write_video
from tests.media.files import grey, tone
from tests.media.live.helpers import (
    Clock,
    assert_same,
    clip,
    kinds_of,
    pipe_of,
    pixels_of,
    samples_of,
    settle,
    spans_of,
)

LENGTH = 8.0


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    pixels = grey([20 + index for index in range(round(10 * LENGTH))])
    write_video(path, pixels, 10.0, tone(300, LENGTH, 16000) * torch.linspace(0.1, 1, round(16000 * LENGTH)))
    return path


def play(path: Path, clock: Clock, costs: list[float], **options: Any) -> list[LiveChunk]:
    """Takes the file's chunks, of which each costs some seconds, the last ones nothing."""
    chunks = []
    with open_live(path, clock=clock, sleep=clock.sleep, **options) as live:
        for chunk in live:
            chunks.append(chunk)
            clock.now += costs[len(chunks) - 1] if len(chunks) <= len(costs) else 0.0
    return chunks


def assert_true(chunks: list[LiveChunk], path: Path) -> None:
    """Asserts that what was given is what was there at its time, and that the rest is told."""
    media = load_media(path)
    places = (spans_of(chunks)[:, 0] * 2).round().long()
    assert (places.diff() > 0).all()
    assert torch.equal(pixels_of(chunks), media.video.pixels[0, places])
    assert len(places) + sum(chunk.report.skipped_frames for chunk in chunks) == media.video.pixels.shape[1]
    samples = samples_of(chunks)
    there = ~samples.isnan()
    assert torch.equal(samples[there], media.waveform.samples[0, : len(samples)][there])
    skipped = sum(chunk.report.skipped_audio for chunk in chunks)
    assert skipped == pytest.approx((media.waveform.samples.shape[1] - int(there.sum())) / 16000, abs=1e-6)


def test_a_consumer_in_time_is_never_behind(path: Path) -> None:
    chunks = play(path, Clock(), [0.5] * 16)
    assert_same(chunks, load_media(path))
    assert {chunk.report.lag for chunk in chunks} == {0.0}


def test_the_present_is_waited_for(path: Path) -> None:
    clock = Clock()
    with open_live(path, clock=clock, sleep=clock.sleep) as live:
        clock.now = 50.0  # it is played from the moment that the first chunk is asked for
        times = [(next(live).report.end, clock.now) for _ in range(5)]
    assert times == [(0.5, 50.5), (1.0, 51.0), (1.5, 51.5), (2.0, 52.0), (2.5, 52.5)]


def test_skipping_jumps_to_now_and_says_so(path: Path) -> None:
    chunks = play(path, Clock(), [0.1, 0.1, 3.2])
    before, after = chunks[2], chunks[3]
    assert (before.report.end, before.report.lag) == (1.5, 0.0)
    # At 4.7 s the last chunk that was over is that from 4.0 to 4.5.
    assert (after.report.start, after.report.end, after.watermark["audio"]) == (4.0, 4.5, 4.5)
    assert after.report.lag == pytest.approx(0.2)
    assert (after.report.skipped_frames, after.report.skipped_audio) == (5, 2.5)
    assert float(after.waveform.start) == 4.0  # missing, not silence, nor squeezed
    assert_true(chunks, path)


@settings(deadline=None, max_examples=8, derandomize=True)
@given(
    costs=st.lists(st.floats(0.0, 3.0), max_size=20),
    chunk_seconds=st.sampled_from([0.25, 0.5, 0.7, 1.0]),
    max_lag=st.sampled_from([0.5, 2.0]),
)
def test_lag_is_bounded_whatever_the_consumer_costs(
    path: Path, costs: list[float], chunk_seconds: float, max_lag: float
) -> None:
    for policy in ("skip", "slow"):
        chunks = play(path, Clock(), costs, on_lag=policy, max_lag=max_lag, chunk_seconds=chunk_seconds)
        assert all(chunk.report.lag <= max(max_lag, chunk_seconds) + 1e-4 for chunk in chunks)
        assert_true(chunks, path)


def test_waiting_loses_nothing_and_tells_the_lag(path: Path) -> None:
    chunks = play(path, Clock(), [1.0] * 16, on_lag="wait")
    assert_same(chunks, load_media(path))
    lags = [chunk.report.lag for chunk in chunks]
    assert lags[:4] == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert lags == sorted(lags[:-1]) + lags[-1:]
    assert max(lags) > 5


def test_slowing_halves_the_rate_and_recovers(path: Path) -> None:
    clock, chunks = Clock(), []
    with open_live(path, clock=clock, sleep=clock.sleep, on_lag="slow", max_lag=1.0, frame_rate=4.0) as live:
        for chunk in live:
            chunks.append(chunk)
            busy = 1.0 <= chunk.report.end <= 4.0
            pictures = 0 if chunk.video is None else chunk.video.pixels.shape[1]
            clock.now += 0.1 + pictures * (0.25 if busy else 0.05)  # each frame costs as long as it lasts
    rates = [chunk.report.frame_rate for chunk in chunks]
    assert rates[0] == rates[-1] == 4.0
    assert min(rates) == 2.0  # which is enough
    assert sum(chunk.report.skipped_audio for chunk in chunks) == 0
    assert sum(chunk.report.skipped_frames for chunk in chunks) > 0
    slow = [chunk for chunk in chunks if chunk.report.frame_rate == 2.0 and chunk.video is not None]
    for chunk in slow:
        spans = chunk.video.spans[0]
        assert (spans[:, 1] - spans[:, 0] == 0.25).all()  # a frame stands for its own span
        assert (spans[:, 0] * 4 % 2 == 0).all()


def test_the_rate_stops_at_its_floor_and_then_it_skips(path: Path) -> None:
    options = {"on_lag": "slow", "frame_rate": 8.0}
    for lowest, floor in ((None, 2.0), (0.9, 1.0), (8.0, 8.0)):
        chunks = play(path, Clock(), [1.5] * 9, **options, lowest_frame_rate=lowest)
        assert min(chunk.report.frame_rate for chunk in chunks) == floor
        assert sum(chunk.report.skipped_audio for chunk in chunks) > 0


def test_far_ahead_is_looked_for_rather_than_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avfusion.media.live import reader

    path = clip(tmp_path / "clip.mp4", seconds=15.0)  # a frame in ten needs none before it
    seen = []
    add = reader.FrameCollector.add
    monkeypatch.setattr(
        reader.FrameCollector, "add", lambda self, frame: (seen.append(frame.time), add(self, frame))[1]
    )
    chunks = play(path, Clock(), [13.0])
    assert not [time for time in seen if 6.0 < time < 11.0]
    assert chunks[1].report.start == 13.0
    media = load_media(path)
    assert torch.equal(pixels_of(chunks[1:]), media.video.pixels[0, 26:])
    # The audio is resampled from another place on, half a sample away at most.
    samples = samples_of(chunks[1:])[13 * 16000 :]
    assert torch.allclose(samples, media.waveform.samples[0, 13 * 16000 :][: len(samples)], atol=0.03)
    assert abs(13 * 16000 + len(samples) - media.waveform.samples.shape[1]) <= 1


def test_without_real_time_nothing_is_behind(path: Path) -> None:
    chunks = play(path, Clock(), [9.0] * 40, realtime=False)
    assert_same(chunks, load_media(path))
    assert {chunk.report.lag for chunk in chunks} == {0.0}


@pytest.mark.parametrize("policy", ["skip", "slow"])
def test_what_comes_while_nobody_takes_it_is_bounded(path: Path, policy: Any) -> None:
    with pipe_of(path.read_bytes()) as number, open_live(number, on_lag=policy, max_lag=2.0) as live:
        settle(live)
        held = [piece for _, piece in live._backlog._pieces]
        assert sum(heard.samples.shape[0] for piece in held for heard in piece.heard) <= 3.2 * 16000
        assert sum(len(piece.seen) for piece in held) <= 8
        chunks = [*live]
    assert chunks[0].report.start == pytest.approx(LENGTH - 0.5, abs=0.51)
    assert chunks[0].report.skipped_audio == pytest.approx(chunks[0].report.start)
    assert kinds_of(chunks) == set()
    if policy == "skip":
        assert_true(chunks, path)


def test_a_live_source_in_time_loses_nothing(path: Path) -> None:
    with pipe_of(path.read_bytes()) as number, open_live(number, max_lag=60.0) as live:
        settle(live)
        chunks = [*live]
    assert_same(chunks, load_media(path))
    assert chunks[0].report.lag == pytest.approx(LENGTH - 0.5)


def test_by_default_it_waits_for_the_computer_clock(path: Path) -> None:
    with open_live(path, chunk_seconds=0.05) as live:
        before = time.monotonic()
        ends = [next(live).report.end for _ in range(3)]
        assert time.monotonic() - before >= ends[-1] - 1e-3

"""What little data asks for is known, and refused, before there is memory for it."""

import errno
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from avfusion import InvalidTypeError, InvalidValueError, MediaError
from avfusion.media import MediaLimits, load_media, open_live, write_video
from tests.media.bombs import gif, mp4, pictures_apart, png, sounds_apart
from tests.media.files import grey, tone

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
FREE = dict.fromkeys(("frame_pixels", "total_pixels", "total_samples", "gap_seconds", "total_gap_seconds"), math.inf)


def only(**limits: float) -> MediaLimits:
    return MediaLimits(**{**FREE, **limits})


def test_small_files_do_not_fill_the_memory() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.media.bombs"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("held", "held_again", "gif", "gif_large", "png", "png_header", "silence", "silence_long", "slow"):
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{name} whole ")]
        assert "limits=MediaLimits(" in line
    for name in ("index", "index_packed"):
        assert f"{name} whole " in done.stdout
        assert "states 240000000 samples or more, and has" in done.stdout


@settings(deadline=None, max_examples=200, suppress_health_check=SLOW)
@given(
    apart=st.integers(1, 3000),
    frame_rate=st.sampled_from([0.5, 1.0, 2.0, 30.0, None]),
    side=st.sampled_from([8, 33, 64]),
    limit=st.integers(10, 24),
    more=st.integers(-1, 1),
)
def test_pictures_are_kept_up_to_the_limit_on_their_pixels(
    tmp_path_factory: pytest.TempPathFactory, apart: int, frame_rate: float | None, side: int, limit: int, more: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"apart{apart}.mkv"
    if not path.exists():
        pictures_apart(path, 0.0, float(apart))
    limits = only(total_pixels=2**limit + more)
    whole = None
    least = 2 if frame_rate is None else math.floor(apart * frame_rate)
    if least * side * side * 3 < 2**24:  # else the answer is known, and too large to look
        media = load_media(path, frame_rate=frame_rate, size=side, limits=only())
        assert media.video is not None
        whole = media.video.pixels.shape[1]
    if (least if whole is None else whole) * max(side * side, 1024) > limits.total_pixels:
        with pytest.raises(MediaError, match=r"frames of .* together more than .*limits=MediaLimits\(total_pixels="):
            load_media(path, frame_rate=frame_rate, size=side, limits=limits)
    elif whole is not None:
        media = load_media(path, frame_rate=frame_rate, size=side, limits=limits)
        assert media.video is not None
        assert media.video.pixels.shape[1] == whole


@settings(deadline=None, max_examples=200, suppress_health_check=SLOW)
@given(
    gaps=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    rate=st.sampled_from([1000, 8000]),
    samples=st.integers(8, 22),
    gap=st.sampled_from([50.0, 200.0, math.inf]),
    total=st.sampled_from([300.0, 700.0, math.inf]),
)
def test_silence_is_filled_in_up_to_the_limits(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[int], rate: int, samples: int, gap: float, total: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "sounds.mkv"
    times = [sum(gaps[:count]) for count in range(len(gaps) + 1)]
    sounds_apart(path, *map(float, times), seconds=0.5)
    count, silent = round((times[-1] + 0.5) * rate), [seconds - 0.5 for seconds in gaps]
    assume(abs(sum(silent) - total) > 1 and abs(max(silent) - gap) > 1 and abs(count - 2**samples) > 2 * rate)
    limits = only(total_samples=2**samples, gap_seconds=gap, total_gap_seconds=total)
    if max(silent) > gap or sum(silent) > total or count > 2**samples:
        with pytest.raises(
            MediaError, match=r"limits=MediaLimits\((gap_seconds|total_gap_seconds|total_samples)=\.\.\."
        ):
            load_media(path, sample_rate=rate, limits=limits)
    else:
        media = load_media(path, sample_rate=rate, limits=limits)
        assert media.waveform is not None
        assert media.waveform.samples.shape[1] == pytest.approx(count, abs=2)


@settings(deadline=None, max_examples=200, suppress_health_check=SLOW)
@given(
    kind=st.sampled_from(["png", "gif"]),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    limit=st.integers(1, 90000),
)
def test_a_picture_is_decoded_up_to_the_limit_on_its_pixels(
    tmp_path_factory: pytest.TempPathFactory, kind: str, height: int, width: int, limit: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"sized.{kind}"
    path.write_bytes(png(height, width, height) if kind == "png" else gif(height, width, 10))
    limits = only(frame_pixels=limit)
    # FFmpeg counts a few more than there are: lines are padded.
    if height * width > limit:
        with pytest.raises(MediaError, match=r"limits=MediaLimits\(frame_pixels=\.\.\.\) allows"):
            load_media(path, limits=limits)
    elif (height + 128) * (width + 128) < limit:
        media = load_media(path, limits=limits)
        assert media.video is not None
        assert media.video.pixels.shape[-2:] == (height, width)


@settings(deadline=None, max_examples=200, suppress_health_check=SLOW)
@given(samples=st.integers(2**20, 2**32 - 1), tracks=st.integers(1, 200), packed=st.integers(0, 4))
def test_an_index_that_is_larger_than_its_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, samples: int, tracks: int, packed: int
) -> None:
    assume(samples * tracks > 2**25)
    path = tmp_path_factory.getbasetemp() / "index.mp4"
    path.write_bytes(mp4(samples, tracks, packed=packed))
    for read in (load_media, open_live):
        with pytest.raises(MediaError, match=r"states \d+ samples or more, and has \d+ bytes"):
            read(path)


def test_videos_whose_pictures_are_stated_to_be_too_large_are_refused(tmp_path: Path) -> None:
    for suffix in ("mp4", "mkv", "mov"):
        write_video(tmp_path / f"clip.{suffix}", grey([9, 9]), 2.0)
        with pytest.raises(
            MediaError, match=r"has frames of 24 × 32 pixels, more than 767; limits=MediaLimits\(frame_"
        ):
            load_media(tmp_path / f"clip.{suffix}", limits=only(frame_pixels=767))
        with pytest.raises(
            MediaError, match=r"has frames of 24 × 32 pixels, more than 767; limits=MediaLimits\(frame_"
        ):
            open_live(tmp_path / f"clip.{suffix}", limits=only(frame_pixels=767))


def test_a_limit_ends_a_live_source_with_its_error_after_what_came(tmp_path: Path) -> None:
    path = pictures_apart(tmp_path / "apart.mkv", 0.0, 1.0, 2.0, 302.0)
    with open_live(path, realtime=False, limits=only(total_pixels=2**16)) as live:
        seen = [next(live) for _ in range(3)]
        with pytest.raises(MediaError, match=r"apart\.mkv: asks for .*limits=MediaLimits\(total_pixels="):
            list(live)
    assert all(chunk.video is not None for chunk in seen)
    with open_live(path, realtime=False, limits=only(total_pixels=2**21)) as live:
        assert sum(chunk.video.pixels.shape[1] for chunk in live if chunk.video is not None) == 605


def test_what_a_clip_does_not_show_counts_for_nothing(tmp_path: Path) -> None:
    path = sounds_apart(tmp_path / "sounds.mkv", 0.0, 100.0, 2000.0)
    limits = only(total_samples=150 * 16000, gap_seconds=1000.0)
    media = load_media(path, end=101.0, limits=limits)
    assert media.waveform is not None
    assert media.waveform.durations.tolist() == [pytest.approx(100.1, abs=0.01)]


def test_ordinary_use_meets_no_limit(tmp_path: Path) -> None:
    limits = MediaLimits()
    assert 3600 * 2 * 224 * 224 <= limits.total_pixels  # an hour
    assert 60 * 2 * 1080 * 1920 <= limits.total_pixels
    assert 4320 * 7680 <= limits.frame_pixels
    assert 4 * 3600 * 16000 <= limits.total_samples
    write_video(tmp_path / "clip.mp4", grey([9] * 600), 30.0, tone(440, 20.0, 16000))
    assert load_media(tmp_path / "clip.mp4").duration == pytest.approx(20.0, abs=0.05)


@pytest.mark.parametrize("name", [*FREE])
def test_limits_are_positive_numbers(name: str) -> None:
    for value in (0, -1.0, math.nan):
        with pytest.raises(InvalidValueError, match=f"^{name}: must be positive, found"):
            MediaLimits(**{name: value})
    wrong: Any
    for wrong in ("1", None, True):
        with pytest.raises(InvalidTypeError, match=f"^{name}: must be a number, found"):
            MediaLimits(**{name: wrong})
    with pytest.raises(InvalidTypeError, match=r"^limits: must be MediaLimits, found dict"):
        load_media("clip.mp4", limits={name: 1.0})  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "none"), RuntimeError("can't allocate memory")])
def test_no_memory_is_told_however_it_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def ask(*sizes: object, **options: object) -> None:
        raise error

    (tmp_path / "a.png").write_bytes(png(8, 8, 8))
    monkeypatch.setattr("avfusion.media._load.read_still", ask)
    with pytest.raises(MediaError, match=r"a.png: asks for more memory than there is"):
        load_media(tmp_path / "a.png")

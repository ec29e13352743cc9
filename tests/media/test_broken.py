"""What cannot be read gives one error that names the file and the reason."""

import contextlib
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfusion import InvalidValueError, MediaError
from avfusion.media import load_media, write_video
from tests.media.files import grey, tone, write

FASTSTART = {"movflags": "faststart"}
FRAGMENTS = {"movflags": "frag_keyframe+delay_moov"}
STATING = [  # what states how long it is: suffix, audio codec, whether frames go with it, options
    ("mp4", "aac", True, {}),
    ("mp4", "aac", True, FASTSTART),
    ("mp4", "aac", True, FRAGMENTS),
    ("m4a", "aac", False, FASTSTART),
    ("mkv", "libopus", True, {}),
    ("webm", "libopus", False, {}),
    ("avi", "pcm_s16le", True, {}),
    ("wav", "pcm_s16le", False, {}),
    ("flac", "flac", False, {}),
    ("mp3", "libmp3lame", False, {}),
    ("ogg", "libopus", False, {}),
]


def clip(path: Path, codec: str, pictures: bool, options: dict[str, str]) -> Path:
    return write(
        path,
        samples=tone(440, 2.0, 48000)[None],
        audio_codec=codec,
        pixels=grey(list(range(20, 220, 10))) if pictures else None,
        times=[index / 10 for index in range(20)],
        options=options,
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [clip(folder / f"{index}.{kind[0]}", *kind[1:]) for index, kind in enumerate(STATING)]


def test_the_files_that_are_broken_below_are_read_when_whole(clips: list[Path]) -> None:
    for path in clips:
        assert load_media(path).duration == pytest.approx(2.0, abs=0.11)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.8])
@pytest.mark.parametrize("kind", range(len(STATING)))
def test_a_file_cut_short_is_refused(clips: list[Path], tmp_path: Path, kind: int, share: float) -> None:
    data = clips[kind].read_bytes()
    path = tmp_path / f"short{clips[kind].suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError) as caught:
        load_media(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["mkv", "webm", "ogg", "avi", "wav"])
def test_a_few_bytes_that_are_missing_show_where_the_size_is_stated(
    clips: list[Path], tmp_path: Path, suffix: str
) -> None:
    data = next(path for path in clips if path.suffix == f".{suffix}").read_bytes()
    # Audio without packets of its own is cut between two of those that FFmpeg makes.
    whole_packets = (len(data) - data.find(b"data") - 8) % 8192 if suffix == "wav" else 20
    path = tmp_path / f"short.{suffix}"
    path.write_bytes(data[:-whole_packets])
    with pytest.raises(MediaError, match="bytes are missing at its end"):
        load_media(path)


def test_an_incomplete_packet_is_refused(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mov", "pcm_s16le", False, FASTSTART)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MediaError, match="incomplete packet"):
        load_media(path)


def test_a_cut_that_ends_before_what_is_missing_is_read(clips: list[Path], tmp_path: Path) -> None:
    data = clips[4].read_bytes()
    path = tmp_path / "short.mkv"
    path.write_bytes(data[: int(len(data) * 0.8)])
    assert load_media(path, end=0.5).duration == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", b"", "is empty"),
        ("text.mp4", b"hello there\n" * 100, "is a text file"),
        ("notes.txt", b"hello there\n" * 100, "is a text file"),
        ("lines.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhi\n", r"holds no video or audio \(subtitle\)"),
        ("random.mkv", random.Random(0).randbytes(20000), "broken or no media file"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "is broken: its PNG image cannot be opened"),
    ],
)
def test_a_file_that_is_no_media_is_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MediaError, match=rf"{name}: .*({reason})"):
        load_media(tmp_path / name)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"none\.mp4: does not exist"):
        load_media(tmp_path / "none.mp4")
    with pytest.raises(MediaError, match="is a directory"):
        load_media(tmp_path)
    with pytest.raises(MediaError, match=r"http://example\.org/a\.mp4: does not exist"):
        load_media("http://example.org/a.mp4")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    kind=st.integers(0, len(STATING) - 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=50),
    frame_rate=st.sampled_from([2.0, None]),
    start=st.sampled_from([0.0, 0.7]),
)
def test_damage_anywhere_is_read_or_refused(
    clips: list[Path],
    tmp_path: Path,
    kind: int,
    changes: list[tuple[float, int]],
    frame_rate: float | None,
    start: float,
) -> None:
    data = bytearray(clips[kind].read_bytes())
    for place, value in changes:
        data[int(place * len(data))] = value
    path = tmp_path / f"damaged{clips[kind].suffix}"
    path.write_bytes(data)
    with contextlib.suppress(MediaError):
        media = load_media(path, frame_rate=frame_rate, start=start)
        assert media.video is not None or media.waveform is not None


def test_what_is_absent_is_none_unless_it_is_required(tmp_path: Path) -> None:
    silent, sound = tmp_path / "silent.mp4", tmp_path / "sound.wav"
    write_video(silent, grey([9, 9]), 2.0)
    write(sound, samples=tone(440, 1.0, 48000)[None], audio_codec="pcm_s16le")
    assert load_media(silent).waveform is None
    assert load_media(sound).video is None
    assert load_media(silent, require=("video",)).video is not None
    with pytest.raises(MediaError, match=r"silent\.mp4: holds no audio, which is required"):
        load_media(silent, require=("audio",))
    with pytest.raises(MediaError, match=r"sound\.wav: holds no video, which is required"):
        load_media(sound, require=["video", "audio"])
    with pytest.raises(MediaError, match=r"silent\.mp4: holds no audio"):
        load_media(silent, video=False)
    with pytest.raises(MediaError, match=r"sound\.wav: holds no video"):
        load_media(sound, audio=False)


def test_a_clip_after_the_end_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", grey([9, 9]), 2.0, tone(440, 1.0, 16000))
    with pytest.raises(MediaError, match=r"clip.mp4: holds nothing between 5.* s, it ends at 1\.0"):
        load_media(tmp_path / "clip.mp4", start=5.0)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"frame_rate": 0.0}, "frame_rate"),
        ({"frame_rate": float("nan")}, "frame_rate"),
        ({"frame_rate": float("inf")}, "frame_rate"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"sample_rate": 16000.5}, "sample_rate"),
        ({"start": -1.0}, "start"),
        ({"start": float("inf")}, "start"),
        ({"start": 2.0, "end": 2.0}, "end"),
        ({"end": float("nan")}, "end"),
        ({"size": 0}, "size"),
        ({"size": (3, 4, 5)}, "size"),
        ({"size": (3, 4.0)}, "size"),
        ({"video": False, "audio": False}, "video, audio"),
        ({"require": "audio"}, "require"),
        ({"require": ("sound",)}, "require"),
        ({"audio": False, "require": ("audio",)}, "require"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{name}: .*found"):
        load_media(tmp_path / "none.mp4", **options)


def test_without_pyav_the_extra_is_named() -> None:
    code = "import sys; sys.modules['av'] = None\nimport avfusion.media"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "ImportError: avfusion.media needs PyAV: pip install avfusion[media]" in done.stderr

"""What plays everywhere is read; where video or audio are missing, that is an error, or told."""

import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfusion import InvalidValueError, MediaError
from avfusion.media import collate_media, load_media, open_live
from tests.media.files import grey, tone, write
from tests.media.live.helpers import assert_same

drawn = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
LAST = 4  # of the flags of an Ogg page
TAG = b"TAG" + b"x" * 125
LYRICS = b"LYRICSBEGIN" + b"INF00001x" + b"000020LYRICS200"
APE = (
    b"APETAGEX"
    + struct.pack("<IIII", 2000, 51, 1, 0xA0000000)
    + bytes(8)
    + struct.pack("<II", 11, 0)
    + b"Comment\0hello world"
)
LATER = {
    "zeros": bytes(5000),
    "ID3v1": TAG,
    "Lyrics3": LYRICS + TAG,
    "Lyrics3 alone": LYRICS,
    "APE": APE,
    "APE and ID3v1": APE + TAG,
}


def film(path: Path, **options: Any) -> Path:
    given = {
        "pixels": grey(list(range(20, 220, 10))),
        "times": [index / 10 for index in range(20)],
        "samples": tone(440, 2.0, 48000)[None],
    }
    return write(path, **(given | options))


def song(path: Path, frequency: float = 440, seconds: float = 1.0) -> bytes:
    samples = tone(frequency, seconds, 44100)[None]
    return write(path, samples=samples, rate=44100, audio_codec="libmp3lame").read_bytes()


def checksum(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return value


@pytest.mark.parametrize("codec", ["libopus", "flac"])
def test_an_ogg_file_without_an_end_is_read(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "a.ogg", samples=tone(440, 2.0, 48000)[None], audio_codec=codec)
    expected = load_media(path).waveform.samples
    data = bytearray(path.read_bytes())
    page = data.rfind(b"OggS")
    data[page + 5] &= ~LAST
    data[page + 22 : page + 26] = bytes(4)
    data[page + 22 : page + 26] = struct.pack("<I", checksum(data[page:]))
    path.write_bytes(data)
    media = load_media(path)
    assert torch.equal(media.waveform.samples[:, :31500], expected[:, :31500])
    assert media.skipped == ()


@pytest.mark.parametrize("codec", ["libopus", "flac"])
def test_one_ogg_file_after_another_is_read(tmp_path: Path, codec: str) -> None:
    parts = [
        write(tmp_path / f"{pitch}.ogg", samples=tone(pitch, 1.0, 48000)[None], audio_codec=codec)
        for pitch in (440, 880, 660)
    ]
    path = tmp_path / "all.ogg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    media = load_media(path)
    assert media.duration == pytest.approx(3.0, abs=0.03)
    cut = load_media(path, start=1.5, end=2.5).waveform.samples
    assert torch.equal(cut, media.waveform.samples[:, 24000:40000])
    with open_live(path, realtime=False) as live:
        assert_same([*live], media)


@pytest.mark.parametrize("later", sorted(LATER))
def test_what_follows_the_frames_of_an_mp3_is_no_sound(tmp_path: Path, later: str) -> None:
    data = song(tmp_path / "a.mp3")
    expected = load_media(tmp_path / "a.mp3").waveform.samples
    (tmp_path / "b.mp3").write_bytes(data + LATER[later])
    media = load_media(tmp_path / "b.mp3")
    count = expected.shape[1] - 600
    assert torch.equal(media.waveform.samples[:, :count], expected[:, :count])
    assert media.duration == pytest.approx(1.0, abs=0.1)
    assert media.skipped == ()


@settings(parent=drawn, max_examples=30)
@given(
    seconds=st.lists(st.sampled_from([0.3, 0.7, 1.0]), min_size=2, max_size=4),
    between=st.sampled_from([b"", bytes(700), TAG]),
)
def test_joined_mp3s_are_read_to_the_end(tmp_path: Path, seconds: list[float], between: bytes) -> None:
    parts = []
    for index, length in enumerate(seconds):
        path = tmp_path / f"{length}_{index}.mp3"
        parts.append(path.read_bytes() if path.exists() else song(path, 300 + 100 * index, length))
    (tmp_path / "all.mp3").write_bytes(between.join(parts))
    media = load_media(tmp_path / "all.mp3")
    assert media.duration == pytest.approx(sum(seconds), abs=0.1 * len(seconds))


@pytest.mark.parametrize("stated", [0.0, 0.5, 60.0, 1e9])
def test_a_wrong_duration_of_flv_does_not_matter(tmp_path: Path, stated: float) -> None:
    path = film(tmp_path / "a.flv", video_codec="flv", pixel_format="yuv420p", rate=44100)
    expected = load_media(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"duration") + 9
    data[at : at + 8] = struct.pack(">d", stated)
    path.write_bytes(data)
    media = load_media(path)
    assert torch.equal(media.video.pixels, expected.video.pixels)
    assert torch.equal(media.waveform.samples, expected.waveform.samples)


@pytest.mark.parametrize("suffix", ["avi", "wmv", "mkv", "mp4", "ts"])
@pytest.mark.parametrize(("pictures", "sound"), [(0.0, 3.0), (5.0, 5.0), (4.0, 0.0)])
def test_late_streams_are_not_missing(tmp_path: Path, suffix: str, pictures: float, sound: float) -> None:
    codec = {"avi": "pcm_s16le", "wmv": "libmp3lame"}.get(suffix, "aac")
    path = film(
        tmp_path / f"a.{suffix}",
        times=[pictures + index / 10 for index in range(20)],
        sound_at=((sound, 0),),
        audio_codec=codec,
        video_codec="mpeg4",
        pixel_format="yuv420p",
    )
    media = load_media(path)
    assert media.skipped == ()
    assert load_media(path, end=0.5).duration <= 0.5


@pytest.mark.parametrize("start", [3, 20, 9])
def test_a_recording_may_begin_and_end_anywhere(tmp_path: Path, start: int) -> None:
    data = film(tmp_path / "a.ts").read_bytes()
    (tmp_path / "b.ts").write_bytes(data[188 * start : -188 * start])
    media = load_media(tmp_path / "b.ts")
    assert media.video is not None
    assert media.waveform.durations.item() > 1.5


FLIPPED = [("mp4", {"movflags": "faststart"}), ("mkv", {}), ("ts", {}), ("avi", {})]


@drawn
@given(kind=st.integers(0, len(FLIPPED) - 1), seed=st.integers(0, 10**6), count=st.integers(1, 40))
def test_damage_is_told_and_the_rest_is_read(tmp_path: Path, kind: int, seed: int, count: int) -> None:
    suffix, options = FLIPPED[kind]
    whole = tmp_path / f"whole.{suffix}"
    if not whole.exists():
        codec = ("mpeg4", "yuv420p") if suffix == "avi" else ("libx264", "yuv444p")
        sound = "pcm_s16le" if suffix == "avi" else "aac"
        film(whole, options=options, video_codec=codec[0], pixel_format=codec[1], audio_codec=sound)
    data, draw = bytearray(whole.read_bytes()), random.Random(seed)
    for _ in range(count):
        data[draw.randrange(len(data) // 2, len(data) - 1000)] ^= 1 << draw.randrange(8)
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(data)
    try:
        strict = load_media(path)
        reason = ""
    except MediaError as error:
        strict, reason = None, str(error)
    assert "not permitted" not in reason
    assert "\n" not in reason
    media = load_media(path, damaged="skip")
    assert media.video is not None
    assert media.waveform is not None
    assert (media.skipped == ()) == (strict is not None)
    if strict is not None:
        assert torch.equal(media.video.pixels, strict.video.pixels)
        assert torch.equal(media.waveform.samples, strict.waveform.samples)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "wav", "flac", "ogg", "mp3", "flv"])
def test_of_a_file_cut_short_the_rest_is_read(tmp_path: Path, suffix: str) -> None:
    pictures: dict[str, Any] = {"video_codec": "mpeg4", "pixel_format": "yuv420p", "options": {"movflags": "faststart"}}
    if suffix in ("wav", "flac", "ogg", "mp3"):
        pictures = {"pixels": None, "times": ()}
    if suffix == "flv":
        pictures = {"video_codec": "flv", "pixel_format": "yuv420p", "rate": 44100}
    codec = {"wav": "pcm_s16le", "avi": "pcm_s16le", "flac": "flac", "ogg": "libopus", "mp3": "libmp3lame"}.get(
        suffix, "aac"
    )
    path = film(tmp_path / f"a.{suffix}", audio_codec=codec, **pictures)
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])
    with pytest.raises(MediaError, match=rf'a.{suffix}: .*damaged="skip"'):
        load_media(path)
    media = load_media(path, damaged="skip")
    assert media.skipped
    assert all(isinstance(words, str) and words for words in media.skipped)
    assert 0.5 < media.duration < 2.0
    assert collate_media([media])[1] is not None


def test_damage_outside_a_cut_does_not_matter(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", audio_codec="libopus")
    data = path.read_bytes()
    path.write_bytes(data[: int(0.8 * len(data))])
    assert load_media(path, end=0.5).skipped == ()
    assert load_media(path, start=0.2, end=0.5).skipped == ()


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif"])
def test_an_image_cut_short_is_told(tmp_path: Path, suffix: str) -> None:
    from PIL import Image

    path = tmp_path / f"a.{suffix}"
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(MediaError, match=r'a.\w+: is cut short.*damaged="skip"'):
        load_media(path)
    media = load_media(path, damaged="skip")
    assert media.video.pixels.shape == (1, 1, 3, 64, 64)
    assert media.video.pixels[0, 0, :, :20].float().std() > 20  # what there is
    assert media.skipped


def test_damaged_must_be_one_of_two(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r'damaged: must be "error" or "skip", found \'ignore\''):
        load_media(tmp_path / "none.mp4", damaged="ignore")

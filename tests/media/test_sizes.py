"""Audio whose header says the wrong size, or none, has the samples of the right file."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfusion import MediaError
from avfusion.media import load_media, open_live
from tests.media.files import grey, tone, write
from tests.media.live.helpers import assert_same, kinds_of, pipe_of

drawn = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
_W64 = bytes.fromhex("2E91CF11A5D628DB04C10000")
_GUID = bytes.fromhex("F3ACD3118CD100C04F8EDB8A")
Maker = Callable[[bytes, int, int, int, int, int], bytes]


def riff(pcm: bytes, size: int, whole: int, rate: int, width: int, channels: int, order: str = "<") -> bytes:
    step = width * channels
    name = b"RIFF" if order == "<" else b"RIFX"
    form = struct.pack(f"{order}4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * step, step, 8 * width)
    return struct.pack(f"{order}4sI4s", name, whole, b"WAVE") + form + struct.pack(f"{order}4sI", b"data", size) + pcm


def rifx(pcm: bytes, size: int, whole: int, rate: int, width: int, channels: int) -> bytes:
    return riff(swapped(pcm, width), size, whole, rate, width, channels, ">")


def rf64(pcm: bytes, size: int, whole: int, rate: int, width: int, channels: int) -> bytes:
    size, whole = (-1 if value == 0xFFFFFFFF else value for value in (size, whole))
    wide = struct.pack("<4sIqqqI", b"ds64", 28, whole, size, 0, 0)
    data = riff(pcm, 0xFFFFFFFF, 0xFFFFFFFF, rate, width, channels)
    return b"RF64" + data[4:12] + wide + data[12:]


def w64(pcm: bytes, size: int, whole: int, rate: int, width: int, channels: int) -> bytes:
    step = width * channels
    size, whole = (-25 if value == 0xFFFFFFFF else value for value in (size, whole))
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * step, step, 8 * width)
    head = b"riff" + _W64 + struct.pack("<q", whole + 24) + b"wave" + _GUID
    return head + b"fmt " + _GUID + struct.pack("<q", 40) + form + b"data" + _GUID + struct.pack("<q", size + 24) + pcm


def caf(pcm: bytes, size: int, whole: int, rate: int, width: int, channels: int) -> bytes:
    step = width * channels
    size = -5 if size == 0xFFFFFFFF else size
    form = struct.pack(">4sqd4sIIIII", b"desc", 32, rate, b"lpcm", 2, step, 1, channels, 8 * width)
    return b"caff\0\1\0\0" + form + struct.pack(">4sqI", b"data", size + 4, 0) + pcm


def aiff(pcm: bytes, size: int, whole: int, rate: int, width: int, channels: int) -> bytes:
    frames = size // (width * channels) & 0xFFFFFFFF
    extended = struct.pack(">HQ", 16383 + rate.bit_length() - 1, rate << (64 - rate.bit_length()))
    form = struct.pack(">4sIHIH", b"COMM", 18, channels, frames, 8 * width) + extended
    data = struct.pack(">4sIII", b"SSND", (size + 8) & 0xFFFFFFFF, 0, 0) + swapped(pcm, width)
    return struct.pack(">4sI4s", b"FORM", whole, b"AIFF") + form + data


def au(pcm: bytes, size: int, whole: int, rate: int, width: int, channels: int) -> bytes:
    encoding = {1: 2, 2: 3, 3: 4, 4: 5}[width]
    return b".snd" + struct.pack(">IIIII", 24, size, encoding, rate, channels) + swapped(pcm, width)


def swapped(pcm: bytes, width: int) -> bytes:
    turned = bytearray(len(pcm))
    for place in range(width):
        turned[place::width] = pcm[width - 1 - place :: width]
    return bytes(turned)


MAKERS: dict[str, Maker] = {"wav": riff, "rifx": rifx, "rf64": rf64, "w64": w64, "caf": caf, "aiff": aiff, "au": au}
SIZES: dict[str, Callable[[int], int]] = {
    "all ones": lambda right: 0xFFFFFFFF,
    "largest": lambda right: 0x7FFFFFFF,
    "largest less a header": lambda right: 0x7FFFFFFF - 36,
    "two gigabytes": lambda right: 0x80000000,
    "a page less": lambda right: 0x7FFFF000,
    "as SoX writes it": lambda right: 0x7F000000,
    "none": lambda right: 0,
    "two bytes over": lambda right: right + 2,
    "with the header": lambda right: right + 44,
    "right": lambda right: right,
}


def noise(count: int, width: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(count * width)


@drawn
@given(
    kind=st.sampled_from(sorted(MAKERS)),
    size=st.sampled_from(sorted(SIZES)),
    whole=st.sampled_from(sorted(SIZES)) | st.just("36"),
    count=st.integers(100, 8000) | st.sampled_from([1024, 4096, 8192]),
    rate=st.sampled_from([8000, 16000, 44100]),
    width=st.sampled_from([1, 2, 3, 4]),
    channels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_samples_are_those_of_the_right_file(
    tmp_path: Path, kind: str, size: str, whole: str, count: int, rate: int, width: int, channels: int, seed: int
) -> None:
    pcm = noise(count, width * channels, seed)
    right = len(pcm)
    about = {"rate": rate, "width": width, "channels": channels}
    path = tmp_path / "sound.wav"
    path.write_bytes(MAKERS[kind](pcm, right, right + 36, **about))
    expected = load_media(path).waveform.samples
    path.write_bytes(MAKERS[kind](pcm, SIZES[size](right), 36 if whole == "36" else SIZES[whole](right + 36), **about))
    media = load_media(path)
    assert torch.equal(media.waveform.samples, expected)
    assert media.skipped == ()


@settings(parent=drawn, max_examples=60)
@given(
    kind=st.sampled_from(sorted(MAKERS)),
    size=st.sampled_from(sorted(SIZES)),
    count=st.integers(1000, 20000),
    cut=st.floats(0.0, 0.9),
)
def test_a_cut_of_such_a_file_is_that_of_the_right_one(
    tmp_path: Path, kind: str, size: str, count: int, cut: float
) -> None:
    pcm = noise(count, 2, 0)
    path, start = tmp_path / "sound.wav", cut * count / 44100
    path.write_bytes(MAKERS[kind](pcm, len(pcm), len(pcm) + 36, 44100, 2, 1))
    expected = load_media(path, start=start).waveform
    path.write_bytes(MAKERS[kind](pcm, SIZES[size](len(pcm)), 0, 44100, 2, 1))
    found = load_media(path, start=start).waveform
    assert torch.equal(found.samples, expected.samples)
    with open_live(path, realtime=False) as live:
        chunks = [*live]
    assert_same(chunks, load_media(path))
    assert kinds_of(chunks) == set()


def test_a_recording_to_a_pipe_is_read(tmp_path: Path) -> None:
    unknown = 0xFFFFFFFF
    pcm = bytes(32000)
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", unknown, b"WAVE", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16, b"data", unknown
    )
    (tmp_path / "a.wav").write_bytes(head + pcm)
    assert load_media(tmp_path / "a.wav").waveform.samples.shape == (1, 16000)
    with pipe_of(head + pcm) as number, open_live(number, realtime=False) as live:
        chunks = [*live]
    assert_same(chunks, load_media(tmp_path / "a.wav"))
    assert kinds_of(chunks) == set()


@pytest.mark.parametrize("kind", sorted(MAKERS))
@pytest.mark.parametrize("lost", [2000, 20000])
def test_sound_that_is_missing_is_told(tmp_path: Path, kind: str, lost: int) -> None:
    pcm = noise(20000, 2, 0)
    path = tmp_path / "sound.wav"
    path.write_bytes(MAKERS[kind](pcm[:-lost], len(pcm[:-lost]), 0, 16000, 2, 1))
    expected = load_media(path).waveform.samples
    path.write_bytes(MAKERS[kind](pcm, len(pcm), len(pcm) + 36, 16000, 2, 1)[:-lost])
    with pytest.raises(MediaError, match=r"sound.wav: is cut short: bytes are missing at its end.*damaged"):
        load_media(path)
    media = load_media(path, damaged="skip")
    assert torch.equal(media.waveform.samples, expected)
    assert media.skipped == ("is cut short: bytes are missing at its end",)


def test_what_follows_the_sound_is_not_read_as_sound(tmp_path: Path) -> None:
    pcm = noise(1000, 2, 0)
    note = b"LIST" + struct.pack("<I", 4) + b"INFO"
    (tmp_path / "a.wav").write_bytes(riff(pcm, len(pcm), 0, 16000, 2, 1) + note)
    assert load_media(tmp_path / "a.wav").waveform.samples.shape == (1, 1000)


@pytest.mark.parametrize(("suffix", "codecs"), [("mkv", ("libx264", "libopus")), ("webm", ("libvpx", "libopus"))])
def test_a_live_recording_of_unknown_size_is_read(tmp_path: Path, suffix: str, codecs: tuple[str, str]) -> None:
    written = {
        "pixels": grey([20, 120, 220]),
        "times": [0.0, 0.5, 1.0],
        "video_codec": codecs[0],
        "pixel_format": "yuv420p",
        "samples": tone(440, 1.5, 48000)[None],
        "audio_codec": codecs[1],
    }
    plain = write(tmp_path / f"plain.{suffix}", **written)
    live = write(tmp_path / f"live.{suffix}", **written, options={"live": "1"})
    expected, found = load_media(plain), load_media(live)
    assert torch.equal(found.video.pixels, expected.video.pixels)
    assert found.waveform.samples.shape[1] >= expected.waveform.samples.shape[1]
    count = expected.waveform.samples.shape[1] - 400
    assert torch.equal(found.waveform.samples[:, :count], expected.waveform.samples[:, :count])

"""A cut is the slice of the whole file, to the bit, in every container and with every codec."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfusion.media import Media, load_media
from tests.media.files import grey, picture_frame, sound_frame, tone

drawn = settings(
    deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
CODECS = [  # suffix, of frames, of audio, options
    ("mp4", "libx264", "aac", {}),
    ("mp4", "libx264", "aac", FRAGMENTS),
    ("mp4", "mpeg4", "aac", {}),
    ("mov", "mjpeg", "pcm_s16le", {}),
    ("3gp", "h263", "aac", {}),
    ("mkv", "libx264", "libopus", {}),
    ("mkv", "ffv1", "flac", {}),
    ("webm", "libvpx", "libopus", {}),
    ("webm", "libvpx-vp9", "libopus", {}),
    ("avi", "mpeg4", "libmp3lame", {}),
    ("avi", "mjpeg", "pcm_s16le", {}),
    ("ts", "libx264", "aac", {}),
    ("ts", "mpeg2video", "mp2", {}),
    ("m2ts", "libx264", "ac3", {}),
    ("mpg", "mpeg1video", "mp2", {}),
    ("vob", "mpeg2video", "ac3", {}),
    ("flv", "flv", "libmp3lame", {}),
    ("flv", "libx264", "aac", {}),
    ("wmv", "wmv2", "libmp3lame", {}),
    ("gif", "gif", None, {}),
    ("mkv", None, "libopus", {}),
    ("wav", None, "pcm_s16le", {}),
    ("flac", None, "flac", {}),
    ("mp3", None, "libmp3lame", {}),
    ("m4a", None, "aac", {}),
    ("aac", None, "aac", {}),
    ("ogg", None, "libopus", {}),
    ("h264", "libx264", None, {}),  # without times
]
GOPS = [(1, 0, False), (12, 2, False), (12, 2, True), (250, 2, False)]  # frames, of them B, open or closed
OFFSETS = [0.0, 1.0, 100.0]
_ORDERED = ("libx264", "mpeg4", "mpeg2video", "mpeg1video")  # codecs that know B frames
FRAMES, RATE = 50, 25


def write_film(
    path: Path, codecs: tuple[str | None, str | None], options: dict[str, str], kind: int, at: float
) -> Path:
    """Two seconds of which no two frames, and no two moments of audio, are alike."""
    gop, between, is_open = GOPS[kind]
    side = (96, 128) if codecs[0] == "h263" else (32, 32)
    rate = 48000 if codecs[1] in ("libopus", "ac3", "mp2") else 44100
    samples = tone(300, FRAMES / RATE, rate)[None] * torch.linspace(0.2, 1.0, FRAMES * rate // RATE)
    with av.open(str(path), "w", options=options) as container:
        picture: Any = container.add_stream(codecs[0], rate=RATE) if codecs[0] else None
        sound: Any = container.add_stream(codecs[1], rate=rate) if codecs[1] else None
        if picture is not None:
            picture.height, picture.width = side
            picture.pix_fmt = {"mjpeg": "yuvj420p", "gif": "gray"}.get(codecs[0] or "", "yuv420p")
            picture.gop_size = gop
            if codecs[0] in ("libx264", "mpeg4", "mpeg2video", "mpeg1video"):
                picture.max_b_frames = between
            if codecs[0] == "libx264":
                order = f"open-gop={int(is_open)}:keyint={gop}:bframes={between}:scenecut=0"
                picture.options = {"preset": "ultrafast", "x264-params": order}
            if codecs[0] in ("libvpx", "libvpx-vp9"):
                picture.options = {"deadline": "realtime", "cpu-used": "8"}
        if sound is not None:
            sound.layout = "mono"
        for index, image in enumerate(grey([5 * level + 2 for level in range(FRAMES)], *side)):
            if picture is not None:
                frame = picture_frame(image, 0)
                frame.pts, frame.time_base = round(at * RATE) + index, Fraction(1, RATE)
                container.mux(picture.encode(frame))
            if sound is not None:
                first, stop = (place * rate // RATE for place in (index, index + 1))
                container.mux(sound.encode(sound_frame(samples[:, first:stop], round(at * rate) + first, rate, "mono")))
        for stream in (picture, sound):
            if stream is not None:
                container.mux(stream.encode(None))
    return path


class Films(dict[tuple[int, int, float], tuple[Path, Media]]):
    """Films that were written, each with what it is; of a short name for messages."""

    def __repr__(self) -> str:
        return "films"


@pytest.fixture(scope="module")
def films() -> Films:
    return Films()


def film(films: Films, folder: Path, which: int, kind: int, at: float) -> tuple[Path, Media]:
    suffix, *codecs, options = CODECS[which]
    kind = kind if codecs[0] in _ORDERED else 0
    key = which, kind, at
    if key not in films:
        path = write_film(folder / f"{which}_{kind}_{at}.{suffix}", (codecs[0], codecs[1]), options, kind, at)
        films[key] = path, load_media(path, frame_rate=None)
    return films[key]


@drawn
@given(
    which=st.integers(0, len(CODECS) - 1),
    kind=st.integers(0, len(GOPS) - 1),
    at=st.sampled_from(OFFSETS),
    start=st.floats(0.0, 1.96) | st.integers(1, 49).map(lambda index: index / RATE) | st.floats(1.4, 1.96),
    length=st.none() | st.floats(0.05, 1.0),
)
def test_a_cut_is_the_slice_of_the_whole(
    films: Films,
    tmp_path_factory: pytest.TempPathFactory,
    which: int,
    kind: int,
    at: float,
    start: float,
    length: float | None,
) -> None:
    path, whole = film(films, tmp_path_factory.getbasetemp(), which, kind, at)
    end = math.inf if length is None else start + length
    cut = load_media(path, frame_rate=None, start=start, end=None if length is None else end)
    if whole.video is not None:
        spans = whole.video.spans[0]
        inside = (spans[:, 1] > start + 1e-5) & (spans[:, 0] < end - 1e-5)
        assert (cut.video is None) == (not inside.any())  # AVI may begin with audio
    if cut.video is not None:
        assert torch.equal(cut.video.pixels[0], whole.video.pixels[0, inside])
        assert torch.allclose(cut.video.spans[0], (spans[inside] - start).clamp(0, end - start), atol=1e-6)
    if whole.waveform is not None:
        times = float(whole.waveform.start) + torch.arange(whole.waveform.samples.shape[1], dtype=torch.float64) / 16000
        inside = (times >= start - 6e-11) & (times < end - 1e-5)
        assert abs(int(inside.sum()) - cut.waveform.samples.shape[1]) <= 1  # one at the very edge
        count = min(int(inside.sum()), cut.waveform.samples.shape[1])
        assert torch.equal(cut.waveform.samples[0, :count], whole.waveform.samples[0, inside][:count])
        assert float(cut.waveform.start) == pytest.approx(float(times[inside][0]) - start, abs=1e-6)


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Media, Media]]:
    """Recordings that begin their clocks anew after another, beside what each of them is."""
    folder, made = tmp_path_factory.mktemp("joined"), []
    for which, (suffix, picture, sound, options) in enumerate(CODECS):
        if suffix in ("ts", "m2ts", "mpg", "vob"):
            parts = [
                write_film(folder / f"{which}_{kind}.{suffix}", (picture, sound), options, kind, 1.0) for kind in (1, 3)
            ]
            path = folder / f"{which}.{suffix}"
            path.write_bytes(b"".join(part.read_bytes() for part in parts))
            made.append((path, load_media(path, frame_rate=None), load_media(parts[0], frame_rate=None)))
    return made


@pytest.fixture(scope="module")
def unheard(joined: list[tuple[Path, Media, Media]]) -> list[Media]:
    return [load_media(path, frame_rate=None, audio=False) for path, *_ in joined]


def test_recordings_after_one_another_are_read_as_one(joined: list[tuple[Path, Media, Media]]) -> None:
    assert len(joined) == 5
    for _, media, part in joined:
        assert media.skipped == ()
        assert media.duration == pytest.approx(2 * part.duration, abs=0.05)
        assert media.video.pixels.shape[1] == 2 * part.video.pixels.shape[1]
        count = part.waveform.samples.shape[1] - 2000
        assert torch.equal(media.waveform.samples[:, :count], part.waveform.samples[:, :count])
        both = media.video.pixels[0].float().mean((1, 2, 3)).view(2, -1)  # of the same levels
        assert torch.allclose(both[0], both[1], atol=4)


@drawn
@given(which=st.integers(0, 4), start=st.floats(0.0, 3.9), length=st.floats(0.05, 4.0))
def test_a_cut_of_joined_recordings_is_the_slice_too(
    joined: list[tuple[Path, Media, Media]], unheard: list[Media], which: int, start: float, length: float
) -> None:
    path, whole = joined[which][0], unheard[which]
    spans = whole.video.spans[0]
    inside = (spans[:, 1] > start + 1e-5) & (spans[:, 0] < start + length - 1e-5)
    cut = load_media(path, frame_rate=None, start=start, end=start + length, audio=False)
    assert torch.equal(cut.video.pixels[0], whole.video.pixels[0, inside])


@pytest.mark.parametrize("which", [11, 12, 15])
def test_pictures_after_the_last_that_decodes_alone_are_there(tmp_path: Path, which: int) -> None:
    suffix, *codecs, options = CODECS[which]
    path = write_film(tmp_path / f"clip.{suffix}", (codecs[0], codecs[1]), options, 3, 0.0)
    cut = load_media(path, frame_rate=None, start=1.5)
    assert cut.video.pixels.shape[1] >= 13  # the one at 1.48 s is still on display
    assert cut.waveform.durations.item() == pytest.approx(0.5, abs=0.05)

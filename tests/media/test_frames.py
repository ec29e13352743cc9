"""Which frame is taken for which time, and that it is the right way up."""

import gc
import math
import multiprocessing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfusion import MediaError
from avfusion.media import load_media, write_video
from tests.media.files import grey, levels_of, tone, write

drawn = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
RATES = st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0, 7.5, 10.0, 24.0, 29.97]) | st.floats(0.3, 40.0)


def expected_grid(edges: list[Fraction], frame_rate: float) -> tuple[int, list[int]]:
    """First span and the frame of each, by looking at every middle: frames are on display between their edges."""
    rate = Fraction(frame_rate)
    first = math.floor((edges[0] + Fraction(1, 10**5)) * rate)
    last = math.ceil((edges[-1] - Fraction(1, 10**5)) * rate)
    shown = []
    for index in range(first, last):
        middle = (Fraction(2 * index + 1, 2)) / rate + Fraction(1, 10**5)
        shown.append(sum(edge <= middle for edge in edges[1:-1]))
    return first, shown


@drawn
@given(file_rate=st.sampled_from([1, 2, 5, 8, 10, 24, 25, 30]), count=st.integers(1, 12), frame_rate=RATES)
def test_each_span_has_the_picture_on_display_at_its_middle(
    tmp_path: Path, file_rate: int, count: int, frame_rate: float
) -> None:
    write_video(tmp_path / "clip.mp4", grey([20 * i + 10 for i in range(count)]), file_rate)
    media = load_media(tmp_path / "clip.mp4", frame_rate=frame_rate)
    _, shown = expected_grid([Fraction(i, file_rate) for i in range(count + 1)], frame_rate)
    assert media.waveform is None
    assert media.duration == pytest.approx(count / file_rate)
    assert levels_of(media.video.pixels[0]) == pytest.approx([20 * index + 10 for index in shown], abs=3)
    edges = torch.arange(len(shown) + 1, dtype=torch.float64) / frame_rate
    assert media.video.spans[0].tolist() == torch.stack([edges[:-1], edges[1:]], -1).tolist()
    assert media.video.mask.all()


@drawn
@given(
    steps=st.lists(st.integers(1, 30), min_size=2, max_size=10),
    start=st.integers(0, 20),
    frame_rate=RATES,
    suffix=st.sampled_from(["mp4", "mkv"]),
)
def test_a_variable_frame_rate_and_a_late_start_are_kept(
    tmp_path: Path, steps: list[int], start: int, frame_rate: float, suffix: str
) -> None:
    times = [(start + sum(steps[:index])) * 0.04 for index in range(len(steps))]
    pixels = grey([20 * index + 10 for index in range(len(times))])
    # The audio begins at 0, so that this is where the file begins.
    path = write(tmp_path / f"clip.{suffix}", pixels=pixels, times=times, samples=tone(440, 0.5, 48000)[None])
    every = load_media(path, frame_rate=None).video
    assert levels_of(every.pixels[0]) == pytest.approx([20 * index + 10 for index in range(len(times))], abs=3)
    assert every.spans[0, :, 0].tolist() == pytest.approx(times, abs=1e-3)
    assert every.spans[0, :-1, 1].tolist() == every.spans[0, 1:, 0].tolist()
    assert every.spans[0, -1, 1] > every.spans[0, -1, 0]

    grid = load_media(path, frame_rate=frame_rate).video
    edges = [Fraction(time) for time in (*every.spans[0, :, 0].tolist(), every.spans[0, -1, 1].item())]
    first, shown = expected_grid(edges, frame_rate)
    assert levels_of(grid.pixels[0]) == pytest.approx([20 * index + 10 for index in shown], abs=3)
    assert grid.spans[0, 0, 0].item() == pytest.approx(first / frame_rate)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("frame_rate", [4.0, None])
def test_a_cut_has_the_same_pictures_as_the_whole(tmp_path: Path, suffix: str, frame_rate: float | None) -> None:
    times = [index / 10 for index in range(60)]
    codec = ("mpeg4", "yuv420p") if suffix == "avi" else ("libx264", "yuv444p")
    path = write(
        tmp_path / f"clip.{suffix}",
        pixels=grey([4 * index + 5 for index in range(60)]),
        times=times,
        video_codec=codec[0],
        pixel_format=codec[1],
        samples=tone(440, 6.0, 48000)[None],
    )
    whole = load_media(path, frame_rate=frame_rate)
    cut = load_media(path, frame_rate=frame_rate, start=2.5, end=4.0)
    inside = (whole.video.spans[0, :, 1] > 2.5 + 1e-4) & (whole.video.spans[0, :, 0] < 4.0 - 1e-4)
    assert torch.equal(cut.video.pixels[0], whole.video.pixels[0, inside])
    spans = (whole.video.spans[0, inside] - 2.5).clamp(0, 1.5)
    assert torch.allclose(cut.video.spans[0], spans, atol=1e-6)
    assert cut.duration == pytest.approx(1.5, abs=1e-3)


def test_a_seek_that_lands_too_late_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avfusion.media import _clip

    path = write(
        tmp_path / "clip.mp4",
        pixels=grey([4 * index + 5 for index in range(60)]),
        times=[index / 10 for index in range(60)],
    )
    expected = load_media(path, start=2.5).video.pixels
    monkeypatch.setattr(_clip, "PREROLL", -1.0)
    assert torch.equal(load_media(path, start=2.5).video.pixels, expected)


def test_a_cut_decodes_little_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avfusion.media import _clip

    path = write(tmp_path / "clip.mp4", pixels=grey([4] * 200), times=[index / 10 for index in range(200)])
    seen = []
    add = _clip.FrameCollector.add
    monkeypatch.setattr(_clip.FrameCollector, "add", lambda self, frame: (seen.append(frame.time), add(self, frame))[1])
    load_media(path, start=15.0, end=16.0)
    assert min(seen) > 13.0
    assert max(seen) < 17.0


def test_pictures_that_are_not_wanted_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avfusion.media import _frames

    write_video(tmp_path / "clip.mp4", grey([9] * 50), 25.0)
    kept = []
    convert = _frames.to_tensor
    monkeypatch.setattr(_frames, "to_tensor", lambda *given: (kept.append(1), convert(*given))[1])
    assert load_media(tmp_path / "clip.mp4", frame_rate=2.0).video.pixels.shape[1] == len(kept) == 4


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [None, (20, 12)])
def test_rotation_and_mirroring_are_applied(
    tmp_path: Path, degrees: int, mirrored: bool, size: tuple[int, int] | None
) -> None:
    pixels = grey([0], 24, 32).clone()
    pixels[:, 0, :12, :16] = 255  # red stands top left, green top right, blue bottom left
    pixels[:, 1, :12, 16:] = 255
    pixels[:, 2, 12:, :16] = 255
    path = write(tmp_path / "clip.mp4", pixels=pixels, times=[0.0], rotation=(degrees, mirrored, False))
    shown = torch.rot90(pixels[0], degrees // 90, (1, 2))
    shown = shown.flip(2) if mirrored else shown
    found = load_media(path, size=size).video.pixels[0, 0]
    assert found.shape[1:] == (size or shown.shape[1:])
    for down in (0.25, 0.75):
        for right in (0.25, 0.75):
            places = [
                image[:, int(down * image.shape[1]), int(right * image.shape[2])].float() for image in (found, shown)
            ]
            assert (places[0] - places[1]).abs().max() < 12


def test_the_rotation_in_a_photograph_is_applied(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jpg", pixels=grey([90], 24, 40), times=[0.0], video_codec="mjpeg", pixel_format="yuvj420p"
    )
    orientation = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"Exif\0\0" + orientation
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    assert load_media(path).video.pixels.shape == (1, 1, 3, 40, 24)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (48, 31)])
def test_odd_sizes_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = grey([30, 200], *size)
    write_video(tmp_path / "clip.mp4", pixels, 2.0)
    found = load_media(tmp_path / "clip.mp4").video.pixels[0]
    assert found.shape == pixels.shape
    assert levels_of(found) == pytest.approx([30, 200], abs=3)


@pytest.mark.parametrize(("size", "shape"), [(16, (16, 16)), ((10, 22), (10, 22)), (None, (24, 32))])
def test_size(tmp_path: Path, size: int | tuple[int, int] | None, shape: tuple[int, int]) -> None:
    write_video(tmp_path / "clip.mp4", grey([30, 200]), 2.0)
    assert load_media(tmp_path / "clip.mp4", size=size).video.pixels.shape[3:] == shape


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format"),
    [
        ("png", "png", "rgb24"),
        ("jpg", "mjpeg", "yuvj444p"),
        ("webp", "libwebp", "yuv420p"),
        ("bmp", "bmp", "bgr24"),
        ("tiff", "tiff", "rgb24"),
        ("gif", "gif", "gray"),
    ],
)
def test_an_image_is_held_at_every_time(tmp_path: Path, suffix: str, codec: str, pixel_format: str) -> None:
    path = write(
        tmp_path / f"image.{suffix}",
        pixels=grey([120], 25, 33),
        times=[0.0],
        video_codec=codec,
        pixel_format=pixel_format,
    )
    for options in ({}, {"frame_rate": None}, {"start": 3.0, "end": 4.0}):
        media = load_media(path, **options)
        assert media.video.pixels.shape == (1, 1, 3, 25, 33)
        assert levels_of(media.video.pixels[0]) == pytest.approx([120], abs=3)
        assert media.video.spans.tolist() == [[[-math.inf, math.inf]]]
        assert media.duration == 0.0


def test_an_animation_is_video(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.gif",
        pixels=grey([0, 120, 240]),
        times=[0.0, 0.5, 1.0],
        video_codec="gif",
        pixel_format="gray",
    )
    assert levels_of(load_media(path).video.pixels[0])[:2] == pytest.approx([0, 120], abs=3)


def test_colours_come_back(tmp_path: Path) -> None:
    colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [250, 120, 30]]
    pixels = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, 3, 32, 32)
    for exact in (False, True):
        write_video(tmp_path / "clip.mp4", pixels, 5.0, exact_colours=exact)
        found = load_media(tmp_path / "clip.mp4", frame_rate=5.0).video.pixels[0]
        assert (found.int() - pixels.int()).abs().max() <= 6


def test_pictures_of_changing_size_need_a_size(tmp_path: Path) -> None:
    encoded = []
    for side in (16, 24):
        path = write(
            tmp_path / "p.jpg",
            pixels=grey([90], side, side),
            times=[0.0],
            video_codec="mjpeg",
            pixel_format="yuvj420p",
        )
        encoded.append(path.read_bytes())
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuvj420p"
        for index, data in enumerate(encoded):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 1)
            packet.pts = packet.dts = index
            container.mux(packet)
    with pytest.raises(MediaError, match=r"clip.mkv: .*16 × 16 and 24 × 24.*size="):
        load_media(tmp_path / "clip.mkv")
    assert load_media(tmp_path / "clip.mkv", size=8).video.pixels.shape == (1, 4, 3, 8, 8)


def test_no_sound_is_read_unless_asked_for(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", grey([30, 200]), 2.0, tone(440, 1.0, 16000))
    assert load_media(tmp_path / "clip.mp4", audio=False).waveform is None
    assert load_media(tmp_path / "clip.mp4", video=False).video is None


def _read_in_child(path: str, found: Any) -> None:
    gc.collect()
    found.put(levels_of(load_media(path).video.pixels[0]))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 warns of forks beside threads
def test_a_forked_process_reads_what_its_parent_has_read(tmp_path: Path) -> None:
    """As the workers of a DataLoader do."""
    path = str(tmp_path / "clip.mp4")
    write_video(path, grey([60] * 4, 240, 320), 2.0, tone(440, 2.0, 16000))
    wanted = levels_of(load_media(path, sample_rate=8000).video.pixels[0])
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    child = context.Process(target=_read_in_child, args=(path, found), daemon=True)
    child.start()
    child.join(60.0)
    waits = child.is_alive()
    child.kill()
    assert not waits
    assert found.get() == wanted

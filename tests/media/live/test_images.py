"""An image is the same in chunks as in one piece."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from avfusion import MediaError
from avfusion.media import MediaLimits, load_media, open_live
from tests.media.files import grey, tone, write
from tests.media.live.helpers import assert_same, pipe_of

drawn = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
STILL = (
    "avif",
    "bmp",
    "gif",
    "icns",
    "ico",
    "jp2",
    "jpg",
    "mpo",
    "pcx",
    "png",
    "ppm",
    "qoi",
    "sgi",
    "tga",
    "tif",
    "webp",
)
MOVING = ("avif", "gif", "png", "webp")


def picture(height: int, width: int, shade: int) -> Image.Image:
    return Image.merge(
        "RGB", [Image.linear_gradient("L").rotate(turn).resize((width, height)) for turn in (0, 90, shade)]
    )


@drawn
@given(
    suffix=st.sampled_from(STILL),
    side=st.sampled_from([(16, 16), (20, 33), (40, 17)]),
    size=st.none() | st.integers(8, 20),
    chunk_seconds=st.floats(0.02, 3.0),
    frame_rate=st.floats(0.2, 30.0),
    sounding=st.booleans(),
)
def test_a_still_is_held_in_chunks_too(
    tmp_path: Path,
    suffix: str,
    side: tuple[int, int],
    size: int | None,
    chunk_seconds: float,
    frame_rate: float,
    sounding: bool,
) -> None:
    path, sound = tmp_path / f"{side}.{suffix}", tmp_path / "tone.wav"
    if not path.exists():
        picture(*side, 40).save(path)
    if not sound.exists():
        write(sound, samples=tone(300, 0.6, 16000)[None], rate=16000, audio_codec="pcm_s16le")
    asked = {"size": size, "frame_rate": frame_rate}
    with open_live(
        path, audio_source=sound if sounding else None, realtime=False, chunk_seconds=chunk_seconds, **asked
    ) as live:
        chunks = list(live)
    media = load_media(path, **asked)
    assert media.video.spans.tolist() == [[[-math.inf, math.inf]]]
    if sounding:
        media = media._replace(waveform=load_media(sound).waveform)
    assert_same(chunks, media)
    assert [chunk.video is not None for chunk in chunks].count(True) == 1
    assert chunks[0].video is not None
    assert all(not chunk.report.faults for chunk in chunks)


@drawn
@given(
    suffix=st.sampled_from(MOVING),
    lasts=st.lists(st.integers(1, 40).map(lambda tens: 10 * tens), min_size=2, max_size=5),
    chunk_seconds=st.floats(0.1, 3.0),
    frame_rate=st.sampled_from([2.0, 7.0, 30.0]),
)
def test_an_animation_is_the_same_in_chunks(
    tmp_path: Path, suffix: str, lasts: list[int], chunk_seconds: float, frame_rate: float
) -> None:
    path = tmp_path / f"a.{suffix}"
    first, *others = [picture(16, 24, 45 * index) for index in range(len(lasts))]
    first.save(path, save_all=True, append_images=others, duration=lasts, **({"speed": 10} if suffix == "avif" else {}))
    media = load_media(path, frame_rate=frame_rate)
    assert media.duration == pytest.approx(sum(lasts) / 1000, abs=0.02)
    with open_live(path, realtime=False, chunk_seconds=chunk_seconds, frame_rate=frame_rate) as live:
        assert_same(list(live), media)


def test_a_still_from_a_pipe_is_held(tmp_path: Path) -> None:
    picture(16, 24, 0).save(tmp_path / "a.png")
    with pipe_of((tmp_path / "a.png").read_bytes()) as pipe, open_live(pipe, realtime=False) as live:
        chunks = list(live)
    assert_same(chunks, load_media(tmp_path / "a.png"))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "ts", "gif"])
def test_one_picture_is_the_same_in_chunks(tmp_path: Path, suffix: str) -> None:
    codec = {"gif": {"video_codec": "gif", "pixel_format": "gray"}}.get(suffix, {})
    path = write(tmp_path / f"a.{suffix}", pixels=grey([90]), times=[0.0], **codec)
    with open_live(path, realtime=False) as live:
        assert_same(list(live), load_media(path))


def test_a_broken_still_is_told(tmp_path: Path) -> None:
    picture(40, 40, 0).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with open_live(tmp_path / "a.png", realtime=False) as live:
        chunks = list(live)
    assert [fault.kind for chunk in chunks for fault in chunk.report.faults] == ["corrupt"]
    assert_same(chunks, load_media(tmp_path / "a.png", damaged="skip"))


def test_an_image_is_no_live_sound(tmp_path: Path) -> None:
    picture(16, 16, 0).save(tmp_path / "a.png")
    with pytest.raises(MediaError, match=r"a.png: holds no audio \(an image\)"):
        open_live(tmp_path / "a.png", video=False)
    with pytest.raises(MediaError, match=r"a.png: has frames of 16 × 16 pixels"):
        open_live(tmp_path / "a.png", limits=MediaLimits(frame_pixels=200))


def test_the_picture_that_only_others_show_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    frames = [Image.new("RGB", (8, 8), (level, level, level)) for level in (200, 10, 90)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=500, default_image=True)
    media = load_media(path, frame_rate=2.0)
    assert media.video.pixels[0].float().mean((1, 2, 3)).tolist() == [10.0, 90.0]
    assert torch.equal(media.video.spans[0, :, 0], torch.tensor([0.0, 0.5], dtype=torch.float64))

"""What is written comes back."""

from pathlib import Path

import av
import pytest
import torch

from avfusion import InvalidTypeError, InvalidValueError, MediaError
from avfusion.media import load_media, write_video
from tests.media.files import grey, levels_of, tone


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("frame_rate", [0.5, 2.0, 29.97, 30])
def test_pictures_and_sound_come_back(tmp_path: Path, suffix: str, frame_rate: float) -> None:
    path = tmp_path / f"clip.{suffix}"
    sound = tone(500, 3 / frame_rate, 16000)
    write_video(path, grey([20, 120, 220]), frame_rate, sound)
    media = load_media(path, frame_rate=None)
    assert levels_of(media.video.pixels[0]) == pytest.approx([20, 120, 220], abs=2)
    assert media.video.spans[0, :, 0].tolist() == pytest.approx([0, 1 / frame_rate, 2 / frame_rate], abs=1e-3)
    count = sound.shape[0]
    assert abs(media.waveform.samples.shape[1] - count) <= (0 if suffix != "mkv" else 1024)
    inside = slice(600, count - 600)
    assert torch.allclose(media.waveform.samples[0, inside], sound[inside], atol=0.05)


def test_floating_point_pictures_and_stereo_sound(tmp_path: Path) -> None:
    sound = tone(500, 1.0, 22050)
    write_video(tmp_path / "a.mp4", torch.tensor([0.0, 0.5, 2.0])[:, None, None, None].expand(3, 3, 16, 16), 3.0)
    assert levels_of(load_media(tmp_path / "a.mp4", frame_rate=3.0).video.pixels[0]) == pytest.approx(
        [0, 128, 255], abs=1
    )
    write_video(tmp_path / "b.mp4", grey([9]), 1.0, torch.stack([sound, -sound]), sample_rate=22050)
    assert load_media(tmp_path / "b.mp4").waveform.samples.abs().max() < 0.05


def test_a_rate_that_aac_does_not_know_is_resampled(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey([9, 9]), 1.0, tone(500, 2.0, 10000), sample_rate=10000)
    wave = load_media(tmp_path / "a.mp4").waveform
    assert wave.durations.item() == pytest.approx(2.0, abs=2e-3)
    assert torch.allclose(wave.samples[0, 1000:-1000], tone(500, 2.0, 16000)[1000:31000], atol=0.05)


def test_sound_longer_and_shorter_than_the_pictures(tmp_path: Path) -> None:
    for seconds in (0.01, 0.3, 5.0):
        write_video(tmp_path / "a.mp4", grey([9, 9]), 2.0, tone(500, seconds, 16000))
        assert load_media(tmp_path / "a.mp4").waveform.durations.item() == pytest.approx(seconds, abs=2e-3)


def test_without_x264_it_is_mpeg4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4", "aac"})
    write_video(tmp_path / "a.mp4", grey([20, 220], 25, 33), 2.0)
    found = load_media(tmp_path / "a.mp4").video.pixels[0]
    assert found.shape == (2, 3, 25, 33)
    assert levels_of(found) == pytest.approx([20, 220], abs=3)


PIXELS = torch.zeros(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        (("a.wmv", PIXELS, 2.0), InvalidValueError, "path"),
        (("a.mp4", PIXELS[0], 2.0), InvalidValueError, "pixels"),
        (("a.mp4", PIXELS[:, :1], 2.0), InvalidValueError, "pixels"),
        (("a.mp4", PIXELS[:0], 2.0), InvalidValueError, "pixels"),
        (("a.mp4", PIXELS.int(), 2.0), InvalidTypeError, "pixels"),
        (("a.mp4", PIXELS, 0.0), InvalidValueError, "frame_rate"),
        (("a.mp4", PIXELS, float("nan")), InvalidValueError, "frame_rate"),
        (("a.mp4", PIXELS, 2.0, torch.zeros(3, 50)), InvalidValueError, "samples"),
        (("a.mp4", PIXELS, 2.0, torch.zeros(0)), InvalidValueError, "samples"),
        (("a.mp4", PIXELS, 2.0, torch.zeros(50).long()), InvalidTypeError, "samples"),
        (("a.mp4", PIXELS, 2.0, torch.zeros(50), 0), InvalidValueError, "sample_rate"),
        (("missing/a.mp4", PIXELS, 2.0), MediaError, ".*a.mp4: cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, arguments: tuple, error: type, name: str) -> None:
    with pytest.raises(error, match=name):
        write_video(tmp_path / arguments[0], *arguments[1:])

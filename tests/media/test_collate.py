"""Clips of different length and content in one batch."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion import InvalidValueError, Video, Waveform
from avfusion.media import Media, collate_media, load_media, write_video
from tests.media.files import grey, tone


def made(frames: int | None, samples: int | None, start: float = 0.0) -> Media:
    video = None if frames is None else Video.from_rate(torch.rand(1, frames, 3, 4, 5), 2.0)
    wave = None if samples is None else Waveform.from_samples([torch.rand(samples)], 8000, start=start)
    return Media(video, wave, 1.0)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    st.lists(
        st.tuples(st.none() | st.integers(1, 4), st.none() | st.integers(1, 40), st.floats(0, 3)).filter(
            lambda clip: clip[:2] != (None, None)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_each_row_holds_its_clip_and_nothing_else(kinds: list[tuple[int | None, int | None, float]]) -> None:
    clips = [made(*kind) for kind in kinds]
    video, waveform = collate_media(clips)
    assert (video is None) == all(clip.video is None for clip in clips)
    assert (waveform is None) == all(clip.waveform is None for clip in clips)
    for row, clip in enumerate(clips):
        if video is not None:
            frames = 0 if clip.video is None else clip.video.pixels.shape[1]
            assert video.mask[row].tolist() == [index < frames for index in range(video.mask.shape[1])]
            if clip.video is not None:
                assert torch.equal(video.pixels[row, :frames], clip.video.pixels[0])
                assert torch.equal(video.spans[row, :frames], clip.video.spans[0])
        if waveform is not None:
            count = 0 if clip.waveform is None else clip.waveform.samples.shape[1]
            assert waveform.mask[row].tolist() == [index < count for index in range(waveform.mask.shape[1])]
            if clip.waveform is not None:
                assert torch.equal(waveform.samples[row, :count], clip.waveform.samples[0])
                assert waveform.start[row] == clip.waveform.start[0]


def test_clips_that_do_not_fit_each_other_are_refused() -> None:
    other_size = Media(Video.from_rate(torch.rand(1, 1, 3, 9, 5), 2.0), None, 1.0)
    with pytest.raises(InvalidValueError, match=r"4 × 5, 9 × 5.*size="):
        collate_media([made(1, None), other_size])
    other_dtype = Media(Video.from_rate(torch.zeros(1, 1, 3, 4, 5, dtype=torch.uint8), 2.0), None, 1.0)
    with pytest.raises(InvalidValueError, match=r"torch.float32.*torch.uint8"):
        collate_media([made(1, None), other_dtype])
    other_rate = Media(None, Waveform.from_samples([torch.rand(5)], 16000), 1.0)
    with pytest.raises(InvalidValueError, match=r"\[8000, 16000\].*sample_rate="):
        collate_media([made(None, 3), other_rate])
    with pytest.raises(InvalidValueError, match="found none"):
        collate_media([])
    with pytest.raises(InvalidValueError, match="clip 1"):
        collate_media([made(1, 1), Media(None, None, 0.0)])


def test_files_go_straight_into_a_batch(tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", grey([10] * 12), 4.0, tone(440, 3.0, 16000))
    write_video(tmp_path / "silent.mp4", grey([10] * 4, 40, 50), 4.0)
    clips = [load_media(tmp_path / name, size=16) for name in ("long.mp4", "silent.mp4")]
    video, waveform = collate_media(clips)
    assert video.pixels.shape == (2, 6, 3, 16, 16)
    assert video.mask.sum(1).tolist() == [6, 2]
    assert waveform.durations.tolist() == [3.0, 0.0]

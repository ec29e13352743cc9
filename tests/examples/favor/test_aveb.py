"""The reference assembly in the benchmark."""

from pathlib import Path

import pytest
import torch

from avfusion.aveb import Record, make_request
from avfusion.aveb.runner import run_task
from avfusion.media import write_video
from examples.favor.aveb import load


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    pixels = (torch.rand(24, 3, 32, 32) * 255).byte()
    write_video(path, pixels, frame_rate=6.0, samples=torch.randn(64000) * 0.1)
    return path


def records(clip: Path) -> list[Record]:
    given = {"task": "avsd", "references": ("yes",), "question": "What is heard?"}
    return [
        Record(id="whole", video=clip, audio=clip, **given),
        Record(id="turns", video=clip, audio=clip, history=(("Who speaks?", "Nobody."),), **given),
        Record(id="start", video=clip, audio=clip, span=(0.0, 2.0), needs_cut=True, **given),
        Record(id="end", video=clip, audio=clip, span=(2.0, 4.0), needs_cut=True, **given),
        Record(id="sound", audio=clip, **given),
    ]


def test_a_batch_answers_as_each_by_itself(clip: Path, tmp_path: Path) -> None:
    model = load(max_new_tokens=6, num_beams=1)
    alone = run_task(model, records(clip), tmp_path / "alone")
    together = run_task(model, records(clip), tmp_path / "together", batch_size=5)
    assert alone == together
    blind = run_task(model, records(clip), tmp_path / "blind", blind=True, batch_size=5)
    assert len(blind) == 5


def test_a_span_is_what_is_cut_out(clip: Path) -> None:
    model = load(max_new_tokens=6, num_beams=1)
    whole, _, start, end, _ = (model.answerer.inputs([model._conversation(make_request(r))]) for r in records(clip))
    video = whole["pixel_values_videos"]
    assert start["pixel_values_videos"].shape[1] == end["pixel_values_videos"].shape[1] == video.shape[1] // 2
    torch.testing.assert_close(start["pixel_values_videos"], video[:, :4])
    torch.testing.assert_close(end["pixel_values_videos"], video[:, 4:])

"""The feature cache: the same losses as from media, whatever is dropped; nothing stale, nothing lost."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avfusion import CheckpointError
from avfusion.features import FeatureStore, FeatureWriter
from avfusion.media import write_video
from examples.favor import cache
from examples.favor.__main__ import main
from examples.favor.data import Conversations
from examples.favor.features import FeatureCache, as_streams, cache_settings
from examples.favor.modeling_favor import FavorForConditionalGeneration
from examples.favor.presets import PRESETS
from examples.favor.processing_favor import FavorProcessor
from examples.favor.records import Example, read_examples
from examples.favor.tiny import tiny
from tests.examples.favor.media import clip
from tests.examples.favor.training import asking, command_line, curve, write_clips, write_data

TEXT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def _examples(folder: Path) -> list[Example]:
    """Clips with both, silent ones, sound alone, a picture with another's sound, questions that share, and text."""
    both, long = clip(folder / "a.mp4", seconds=1.5), clip(folder / "b.mp4", seconds=4.0, seed=1)
    mute = clip(folder / "c.mp4", seconds=2.0, sound=False, seed=2)
    dubbed = asking(Path(mute), "dubbed")
    dubbed[0]["content"].insert(1, {"type": "audio", "path": both})
    rows = [asking(Path(both), "x"), asking(Path(both), "y", question="and?"), asking(Path(mute), "z"), dubbed, TEXT]
    rows += [asking(Path(long), "w"), asking(Path(long), "v", kind="audio")]
    return [Example(row, str(number)) for number, row in enumerate(rows)]


def _cached(model: Any, processor: Any, examples: list[Example], folder: Path, **options: int) -> FeatureCache:
    settings = cache_settings(model, processor)
    with FeatureWriter(folder, settings, dtype=None, shard_size=10_000) as writer:
        cache.encode_examples(model, processor, examples, writer, **options)
    return FeatureCache(folder, settings)


def _features(kept: FeatureCache, example: Example) -> dict[str, Tensor]:
    clip = kept.clip(example.messages)
    assert clip is None or clip.features is not None
    return {} if clip is None else dict(clip.features or {})


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("drop", [{}, {"drop_audio": 0.5, "drop_video": 0.5}])
def test_batches_from_the_cache_give_the_loss_of_batches_from_media(
    preset: str, drop: dict[str, float], tmp_path: Path
) -> None:
    model, processor = tiny(preset)
    examples = _examples(tmp_path)
    features = _cached(model, processor, examples, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) > 2
    sources = [Conversations(examples, processor=processor, features=one, **drop) for one in (None, features)]
    for rows in (range(len(examples)), [4], [2, 4], [6]):
        media, kept = (processor.collate([data[index] for index in rows]) for data in sources)
        assert "pixel_values_videos" not in kept
        assert "input_features" not in kept
        assert torch.equal(media["input_ids"], kept["input_ids"])
        with torch.no_grad():
            expected, found = model(**media), model(**kept)
        torch.testing.assert_close(found.loss, expected.loss, atol=1e-6, rtol=1e-6)


def test_a_track_is_encoded_once(tmp_path: Path) -> None:
    for preset, pictures in (("favor-vicuna-7b", 4), ("modern", 3)):  # only the former's depend on the question
        model, processor = tiny(preset)
        features = _cached(model, processor, _examples(tmp_path), tmp_path / preset)
        kinds = [json.loads(key)[0] for key in features.store]
        assert kinds.count("video") == pictures
        # The long clip's sound is asked for as a film's and as a sound's, whose clocks may differ.
        assert kinds.count("sound of video") == 3
        assert kinds.count("sound of audio") == 2
        assert [features.store[key] for key in features.store].count({}) == 1  # the silent film's


@pytest.mark.parametrize("preset", ["favor-vicuna-7b", "video-salmonn-13b"])
@pytest.mark.parametrize("workers", [0, 1])
def test_clips_that_are_encoded_together_have_the_tokens_they_have_alone(
    preset: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = tiny(preset)
    examples = _examples(tmp_path)
    alone = _cached(model, processor, examples, tmp_path / "alone")
    calls, encode = [], FavorForConditionalGeneration.encode
    monkeypatch.setattr(
        FavorForConditionalGeneration, "encode", lambda self, **inputs: (calls.append(1), encode(self, **inputs))[1]
    )
    together = _cached(model, processor, examples, tmp_path / "together", batch_size=4, workers=workers)
    assert len(calls) == 2  # of six jobs: one of the seven conversations is text alone
    assert list(together.store) == list(alone.store)
    assert [together.store[key] for key in together.store].count({}) == 1
    for example in examples:
        found, expected = _features(together, example), _features(alone, example)
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_file_that_changed_is_encoded_anew_and_never_served_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = tiny()
    examples, folder = _examples(tmp_path), tmp_path / "cache"
    before = _cached(model, processor, examples, folder)
    old = [_features(before, example) for example in examples]
    file = tmp_path / "b.mp4"
    stamp = file.stat()
    clip(file, seconds=4.0, seed=7)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    of_file = [index for index, example in enumerate(examples) if "b.mp4" in str(example.messages)]
    assert of_file == [5, 6]
    data = Conversations(examples, processor=processor, features=before)
    for index in of_file:
        with pytest.raises(CheckpointError, match=rf"^{index}: features: .* holds another state of .*b\.mp4"):
            data[index]
    data[0]  # the others are served

    seen: list[int] = []
    model.visual_encoder.vision_model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    after = _cached(model, processor, examples, folder)
    assert seen == [8]  # the changed film's frames
    fresh = _cached(model, processor, examples, tmp_path / "fresh")
    for index, example in enumerate(examples):
        found = _features(after, example)
        torch.testing.assert_close(found, _features(fresh, example), atol=0, rtol=0)
        assert (index in of_file) == any(not torch.equal(found[name], old[index][name]) for name in found)
    seen.clear()
    _cached(model, processor, examples, folder)
    assert seen == []
    file.unlink()  # then what is kept stands for it
    assert _features(after, examples[5]).keys() == old[5].keys()


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path)
    for path in tmp_path.glob("*.mp4"):
        path.write_text("no film")
    command = ["cache", "--model", "tiny", "--data", str(data), "--out", str(tmp_path / "c"), "--device", "cpu"]
    for workers in ("0", "1"):
        assert main([*command, "--workers", workers]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "train.jsonl:1: " in line
        assert ".mp4" in line
    assert main([*command, "--batch-size", "0"]) == 2
    assert capsys.readouterr().err == "batch-size: must be at least 1, found 0\n"


def test_training_from_the_cache_has_the_losses_of_training_from_media(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path)
    assert main(["cache", "--model", "tiny", "--data", str(data), "--out", str(tmp_path / "c"), "--workers", "0"]) == 0
    options = ["--model", "tiny", "--drop-audio", "0.3", "--drop-video", "0.3", "--learning-rate", "1e-2"]
    assert main(command_line(data, tmp_path / "media", *options)) == 0

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("frozen towers and their inputs are not needed")

    for owner, name in (
        (FavorForConditionalGeneration, "encode"),
        (FavorProcessor, "encode_clips"),
        (FavorProcessor, "read"),
    ):
        monkeypatch.setattr(owner, name, never)
    for path in tmp_path.glob("*.mp4"):
        path.unlink()
    assert main(command_line(data, tmp_path / "kept", *options, "--features", str(tmp_path / "c"))) == 0
    media, kept = (torch.tensor(curve(tmp_path / name)) for name in ("media", "kept"))
    assert len(kept) == 6
    torch.testing.assert_close(kept, media, atol=1e-5, rtol=1e-5)


def test_what_was_encoded_before_a_kill_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny("modern")
    examples = [Example(asking(path, name), name) for name, path in write_clips(tmp_path).items()]
    encoded: list[int] = []
    encode = FavorForConditionalGeneration.encode

    def killed_at(limit: int) -> Any:
        def counting(self: Any, **inputs: Any) -> Any:
            if len(encoded) == limit:
                raise KeyboardInterrupt
            encoded.append(1)
            return encode(self, **inputs)

        return counting

    folder, settings = tmp_path / "cache", cache_settings(model, processor)
    monkeypatch.setattr(FavorForConditionalGeneration, "encode", killed_at(3))
    with pytest.raises(KeyboardInterrupt):  # every clip has its own shard
        cache.encode_examples(model, processor, examples, FeatureWriter(folder, settings, dtype=None, shard_size=1))
    monkeypatch.setattr(FavorForConditionalGeneration, "encode", killed_at(100))
    cache.encode_examples(model, processor, examples, FeatureWriter(folder, settings, dtype=None, shard_size=1))
    assert len(encoded) == 4
    again = FeatureCache(folder, settings)
    whole = _cached(model, processor, examples, tmp_path / "whole")
    for example in examples:
        found, expected = (one.clip(example.messages) for one in (again, whole))
        assert found is not None
        assert expected is not None
        assert found.features is not None
        torch.testing.assert_close(found.features, expected.features, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--model", "tiny:modern"], "model 'tiny:modern', found model 'tiny'"),
        (["--model", "tiny", "--option", "frame_rate=1.0"], "frame_rate 1.0, found frame_rate 2.0"),
        (["--model", "tiny", "--dtype", "bfloat16"], "tower dtype 'bfloat16', found tower dtype 'float32'"),
    ],
)
def test_a_cache_of_other_settings_is_refused_by_name(
    options: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, kept = write_data(tmp_path), str(tmp_path / "cache")
    model, processor = tiny()
    model.name_or_path = "tiny"
    examples = read_examples([data])[:1]
    _cached(model, processor, examples, Path(kept))
    for command in (
        [*command_line(data, tmp_path / "out", "--features", kept), *options],
        ["cache", "--data", str(data), "--out", kept, "--workers", "0", "--device", "cpu", *options],
    ):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert name in line


def test_media_that_are_not_in_the_cache_and_damage_are_named(tmp_path: Path) -> None:
    model, processor = tiny("modern")
    examples = _examples(tmp_path)
    features = _cached(model, processor, examples[:1], tmp_path / "cache")
    data = Conversations(examples, processor=processor, features=features)
    with pytest.raises(CheckpointError, match=r"^2: features: .* lacks .*c\.mp4"):
        data[2]
    for shard in (tmp_path / "cache").glob("*.safetensors"):
        shard.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"^0: features: .*\.safetensors is damaged"):
        data[0]


def test_a_silent_film_whose_pictures_are_kept_can_be_completed(tmp_path: Path) -> None:
    model, processor = tiny("modern")
    path = tmp_path / "mute.mp4"
    write_video(path, torch.zeros(4, 3, 32, 32), frame_rate=4.0)
    example = Example(asking(path, "a"), "1")
    writer = FeatureWriter(tmp_path / "cache", cache_settings(model, processor), dtype=None, shard_size=10**6)
    jobs = cache.plan([example], writer)
    assert jobs[0].visual is not None
    frames = {"visual_features": torch.zeros(1, 1, 1), "video_spans": torch.zeros(1, 2, dtype=torch.int64)}
    writer.add(jobs[0].visual.key, as_streams(frames))
    writer.flush()
    (job,) = cache.plan([example], writer)
    assert job.visual is None
    cache.encode_examples(model, processor, [example], writer)
    assert job.sound is not None
    writer.flush()
    assert FeatureStore(tmp_path / "cache")[job.sound.key] == {}
    assert cache.plan([example], writer) == []

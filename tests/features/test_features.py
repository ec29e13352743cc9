"""Features in files: equal to what is encoded, changes noticed, several processes, kills, and strangers' files."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from avfusion import CheckpointError, Frames, InvalidTypeError, InvalidValueError, TokenStream
from avfusion.features import (
    FeatureStore,
    FeatureWriter,
    FileStamp,
    KeptConversations,
    clip_key,
    encoder_digest,
    load_features,
    save_features,
)
from avfusion.models import collate_features, conversation, select_features, split_features
from tests.features.parts import make, write_files

Made = tuple[Any, Any]


@pytest.fixture
def made() -> Made:
    return make()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return write_files(tmp_path, 4)


def equal(ours: Any, theirs: Any) -> bool:
    return set(ours) == set(theirs) and all(
        torch.equal(a, b) for name in ours for a, b in zip(ours[name], theirs[name], strict=True)
    )


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_what_is_kept_is_what_is_encoded(
    made: Made, files: list[str], tmp_path: Path, dtype: torch.dtype | None
) -> None:
    model, processor = made
    directory = tmp_path / "features"
    assert save_features(directory, model, processor, files, dtype=dtype, batch_size=3) == 4
    store = load_features(directory, model, processor)
    assert len(store) == 4
    for file in files:
        messages = conversation("a?", video=file)
        clip = processor.load_clip(messages)
        with torch.no_grad():
            encoded = model.encode(clip.video, clip.waveform)
        expected = {
            name: value._replace(tokens=value.tokens.masked_fill(~value.mask[..., None], 0).to(dtype))
            for name, value in encoded.items()
            if value is not None and value.mask.any()
        }
        kept = store.clip(messages)
        assert kept is not None
        for name, value in (kept.features or {}).items():
            torch.testing.assert_close(value.tokens, expected[name].tokens)  # batches round otherwise
            assert torch.equal(value.mask, expected[name].mask)
            assert torch.equal(value[2], expected[name][2])
        assert set(kept.features or {}) == set(expected)
    rows = [conversation("a?", video=file) for file in files[:3]]
    inputs, theirs = processor.apply_chat_template(list(map(store.conversation, rows))), None
    theirs = processor.apply_chat_template(rows)
    assert torch.equal(inputs["input_ids"], theirs["input_ids"])
    if dtype is None:
        with torch.no_grad():
            torch.testing.assert_close(model(**inputs).logits, model(**theirs).logits)


def test_workers_read_the_store(made: Made, files: list[str], tmp_path: Path) -> None:
    model, processor = made
    save_features(tmp_path / "features", model, processor, files, dtype=None)
    store = load_features(tmp_path / "features", model, processor)
    rows = [[*conversation("a?", video=file), {"role": "assistant", "content": "b"}] for file in files]
    loader = DataLoader(KeptConversations(rows, store), batch_size=4, collate_fn=processor.collate, num_workers=1)
    (batch,) = loader
    assert torch.equal(batch["input_ids"], processor.collate(rows)["input_ids"])
    assert equal(pickle.loads(pickle.dumps(store))[clip_key(rows[0])], store[clip_key(rows[0])])


def test_nothing_is_encoded_twice_but_what_changed(made: Made, files: list[str], tmp_path: Path) -> None:
    model, processor = made
    directory = tmp_path / "features"
    assert save_features(directory, model, processor, files[:2]) == 2
    assert save_features(directory, model, processor, [*files, *files]) == 2
    calls = model.encoders["audio"].calls
    assert save_features(directory, model, processor, files) == 0
    assert model.encoders["audio"].calls == calls
    store = load_features(directory, model, processor)
    os.utime(files[0])  # the same content at another time
    assert store.clip(files[0]) is not None
    assert save_features(directory, model, processor, files) == 0
    before = store[clip_key(files[0]) or ""]
    Path(files[2]).replace(files[0])
    with pytest.raises(CheckpointError, match=r"holds another state of .*0\.mp4.*; encode it again"):
        load_features(directory, model, processor).clip(files[0])
    assert save_features(directory, model, processor, files[:2]) == 1
    after = load_features(directory, model, processor)[clip_key(files[0]) or ""]
    assert not equal(before, after)
    Path(files[1]).unlink()  # what is kept stands for it
    assert load_features(directory, model, processor).clip(files[1]) is not None


def test_other_encoders_and_media_options_are_noticed(made: Made, files: list[str], tmp_path: Path) -> None:
    model, processor = made
    directory = tmp_path / "features"
    save_features(directory, model, processor, files[:1])
    other, _ = make(seed=1)
    with pytest.raises(CheckpointError, match=r"must be of visual encoder .*, found visual encoder"):
        load_features(directory, other)
    processor.frame_rate = 1.0
    with pytest.raises(CheckpointError, match=r"must be of media .*frame_rate"):
        load_features(directory, model, processor)
    with pytest.raises(CheckpointError, match="must be of media"):
        save_features(directory, model, processor, files)
    assert len(load_features(directory)) == 1  # not compared


def test_the_digest_covers_every_weight_and_option() -> None:
    model, _ = make()
    encoder = model.encoders["audio"]
    digest = encoder_digest(encoder)
    assert digest == encoder_digest(make()[0].encoders["audio"]) == encoder_digest(encoder.train())
    for name, value in encoder.named_parameters():
        with torch.no_grad():
            value.view(-1)[-1] += 1e-3
        changed = encoder_digest(encoder)
        assert changed != digest, name
        digest = changed
    assert encoder_digest(encoder.to(torch.bfloat16)) != digest
    with pytest.raises(InvalidValueError, match="must have its weights in this process"):
        encoder_digest(encoder.to("meta"))


def run(directory: Path, files: list[str], calls: str, rank: int, world_size: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world_size), "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-m", "tests.features.parts", str(directory), calls, *files]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_processes_and_a_kill_give_what_one_gives(tmp_path: Path) -> None:
    files = write_files(tmp_path, 7)
    model, processor = make()
    save_features(tmp_path / "one", model, processor, files)
    together = tmp_path / "two"
    started = [run(together, files, "-", 0, 2), run(together, files, "2", 1, 2)]
    first, _ = started[0].communicate(timeout=300)
    assert (started[0].returncode, first.strip()) == (0, "4")
    started[1].communicate(timeout=300)
    assert started[1].returncode == -9  # after two of its three clips
    assert len(load_features(together)) == 6  # also without an index of its own
    again = [run(together, files, "-", rank, 2) for rank in range(2)]
    outputs = [process.communicate(timeout=300)[0].strip() for process in again]
    assert ([process.returncode for process in again], outputs) == ([0, 0], ["0", "1"])
    assert len(json.loads((together / "index.json").read_text())["shards"]) == 7
    ours, theirs = load_features(together, model, processor), load_features(tmp_path / "one", model, processor)
    assert list(ours) == list(theirs)
    assert all(equal(ours[key], theirs[key]) for key in theirs)


def test_what_was_encoded_before_a_broken_file_is_kept(made: Made, files: list[str], tmp_path: Path) -> None:
    model, processor = made
    Path(files[2]).write_bytes(b"no video")
    with pytest.raises(Exception, match=r"2\.mp4"):
        save_features(tmp_path / "features", model, processor, files)
    assert len(load_features(tmp_path / "features", model, processor)) == 2


def test_damaged_and_foreign_files_are_named(made: Made, files: list[str], tmp_path: Path) -> None:
    model, processor = made
    directory = tmp_path / "features"
    save_features(directory, model, processor, files[:1])
    (shard,) = directory.glob("features-*.safetensors")
    index = directory / "index.json"
    good = index.read_text()
    outside = tmp_path / "secret.safetensors"
    save_file({"a": torch.zeros(1)}, outside)
    key = clip_key(files[0]) or ""
    for name in ("../secret.safetensors", str(outside), "features-00000.safetensors"):
        content = json.loads(good)
        content["shards"] = {name: next(iter(content["shards"].values()))}
        index.write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match="shards: must be names of files in this directory"):
            load_features(directory)
    for text in ("{", "[]", '{"format": 1}', good.replace('"format": 1', '"format": 9'), "[" * 100_000):
        index.write_text(text)
        with pytest.raises(CheckpointError, match=r"index.json is .*; delete this file alone"):
            load_features(directory)
    index.unlink()  # it is made again from the shards
    assert list(load_features(directory)) == [key]
    whole = shard.read_bytes()
    for broken in (whole[:-10], whole[:5], b"", b"\xff" * 100):
        shard.write_bytes(broken)
        with pytest.raises(CheckpointError, match=f"{shard.name} is damaged"):
            load_features(directory)[key]
    save_file(
        {"a": torch.zeros(1)}, shard, metadata={"avfusion": json.dumps({"format": 1, "settings": {}, "entries": 3})}
    )
    with pytest.raises(CheckpointError, match=f"{shard.name} is damaged"):
        load_features(directory)
    with pytest.raises(CheckpointError, match="holds no features"):
        load_features(tmp_path / "nowhere")


def test_what_is_wrong_is_said(made: Made, files: list[str], tmp_path: Path) -> None:
    model, processor = made
    directory = tmp_path / "features"
    for rank in (-1, 2):
        with pytest.raises(InvalidValueError, match=f"rank: must be from 0 to world_size - 1 = 1, found {rank}"):
            save_features(directory, model, processor, files, rank=rank, world_size=2)
    with pytest.raises(InvalidValueError, match="batch_size: must be at least 1, found 0"):
        save_features(directory, model, processor, files, batch_size=0)
    with pytest.raises(InvalidTypeError, match="audio: must be a file for its features to be kept, found Tensor"):
        clip_key(conversation("a?", audio=torch.zeros(3)))
    with pytest.raises(InvalidTypeError, match="clips: each must be a file or a conversation, found int"):
        clip_key(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="dtype: must be a floating-point dtype"):
        FeatureWriter(directory, {}, dtype=torch.int8)
    with FeatureWriter(directory, {}) as writer:
        tokens = torch.ones(1, 2, 3)
        for bad in (1e6, float("nan")):
            with pytest.raises(InvalidValueError, match=r"audio: tokens must be finite in torch\.float16"):
                writer.add("a", {"audio": TokenStream.from_rate(bad * tokens, 2.0)})
        with pytest.raises(InvalidValueError, match="audio: must be of one clip, found 2"):
            writer.add("a", {"audio": TokenStream.from_rate(torch.ones(2, 2, 3), 2.0)})
        writer.add("b", {"audio": TokenStream.from_rate(tokens, 2.0)})
    with pytest.raises(CheckpointError, match="lacks a; encode it with save_features"):
        FeatureStore(directory)["a"]


def test_stamps_tell_content_not_time(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    stamp = FileStamp.of(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(0, stamp.time + 1))
    assert not stamp.fits(file)
    file.write_bytes(b"one")
    os.utime(file, ns=(0, stamp.time + 2))
    assert stamp.fits(file)
    assert FileStamp(3, stamp.time, stamp.digest).fits(tmp_path / "gone")
    assert not FileStamp(4, stamp.time, stamp.digest).fits(file)


streams = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 4)).filter(any),  # tokens of audio, frames; not neither
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(lengths=streams, seed=st.integers(0, 99), data=st.data())
def test_batches_split_and_select_as_they_were_put_together(
    lengths: list[tuple[int, int]], seed: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(seed)
    clips: list[dict[str, Any]] = []
    for tokens, frames in lengths:
        clip: dict[str, Any] = {}
        if tokens:
            clip["audio"] = TokenStream.from_rate(torch.randn(1, tokens, 3, generator=generator), 8.0)
        if frames:
            spans = torch.arange(frames, dtype=torch.float64)[None, :, None] + torch.tensor([0.0, 1.0])
            values = torch.randn(1, frames, 2, 4, generator=generator)
            clip["visual"] = Frames(values, torch.ones(1, frames, 2, dtype=torch.bool), spans)
        clips.append(clip)
    batch = collate_features(clips)
    for found, clip in zip(split_features(batch), clips, strict=True):
        real = {name: value for name, value in found.items() if value.mask.any()}
        assert equal(real, clip)
    index = data.draw(st.lists(st.integers(-1, len(clips) - 1), max_size=5))
    rows = split_features(select_features(batch, index)) if index else []
    for row, number in zip(rows, index, strict=True):
        real = {name: value for name, value in row.items() if value.mask.any()}
        assert equal(real, {} if number < 0 else clips[number])
    for bad in ([len(clips)], [-2], [0.5], [True], [[0]]):
        with pytest.raises(InvalidValueError, match="index: must name one of"):
            select_features(batch, torch.tensor(bad))

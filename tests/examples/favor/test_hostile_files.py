"""Checkpoints and configurations that are not what they claim: one clear error, and no file outside is looked at."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from avfusion import CheckpointError, InvalidValueError
from examples.favor.features import FeatureCache
from examples.favor.loading import check_index, load, load_configuration
from examples.favor.questions import read_questions
from examples.favor.records import read_examples
from examples.favor.released import read, sort
from examples.favor.tiny import tiny


def itself() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


def circle() -> dict[str, Any]:
    content: dict[str, Any] = {"state_dict": {"module": {}}}
    content["state_dict"]["module"]["model"] = content
    return content


def deep(levels: int) -> dict[str, Any]:
    content: dict[str, Any] = {"ln_joint.weight": torch.ones(2)}
    for _ in range(levels):
        content = {"model": content}
    return content


@pytest.mark.parametrize("content", [itself(), circle(), deep(9), deep(100)], ids=["itself", "circle", "9", "100"])
def test_a_checkpoint_without_an_end_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "release.pt")
    with pytest.raises(CheckpointError, match=r"levels deep under model, state_dict, module, found more"):
        read(tmp_path / "release.pt")


NAMES = ["model", "state_dict", "module", "ln_joint.weight", "joint_query_tokens", "llama_proj_joint.weight", "x", 3]
TENSORS = [
    torch.ones(2),
    torch.ones(()),
    torch.ones(2, dtype=torch.int64),
    torch.ones(2, dtype=torch.complex64),
    torch.ones(2).to_sparse(),
    torch.ones(0),
    torch.zeros(1, 2, 2),
]
CONTENTS = st.recursive(
    st.sampled_from([*TENSORS, None, 1, "text", b"bytes", 0.5, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
)


@settings(max_examples=250)
@given(content=CONTENTS, loop=st.sampled_from([None, "model", "module"]))
def test_drawn_checkpoints_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: Any, loop: str | None
) -> None:
    path = tmp_path_factory.mktemp("drawn") / "release.pt"
    if loop is not None and isinstance(content, dict):
        content[loop] = content
    torch.save(content, path)
    try:
        found = sort(read(path))
    except CheckpointError:
        return
    assert all(tensor.is_floating_point() and tensor.ndim for tensor in found.connector.values())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("base")
    model, processor = tiny()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def copy_of(base: Path, folder: Path) -> Path:
    for file in base.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize("text", ["[]", "3", "null", "{", "", "[" * 100_000, '{"model_type": []}', '{"a": 1}'])
@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
def test_configurations_that_are_no_objects_are_refused(text: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError):
        load(tmp_path)


VALUES = [None, [], {}, -1, 0, 10**30, 0.5, "two", True, {"model_type": "bert"}, {"model_type": 3}, {"hidden_size": []}]
PLACES = ["text_config", "vision_config", "audio_config", "qformer_config", "slots", "fusion", "dtype", "architectures"]


@settings(max_examples=200)
@given(changes=st.dictionaries(st.sampled_from(PLACES), st.sampled_from(VALUES), min_size=1, max_size=3))
def test_drawn_configurations_are_read_or_refused(
    base: Path, tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    config = json.loads((base / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    try:
        load_configuration(folder)
    except InvalidValueError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


@pytest.mark.parametrize("place", ["slots", "window_frames", "fusion", "num_queries", "connector_layers"])
@pytest.mark.parametrize("value", [[], -1, "two", {"model_type": "bert"}], ids=str)
def test_models_with_odd_configurations_are_refused(base: Path, tmp_path: Path, place: str, value: Any) -> None:
    folder = copy_of(base, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, place: value}))
    with pytest.raises(InvalidValueError):
        load(folder)


@settings(max_examples=200)
@given(
    name=st.sampled_from(["../x", "/etc/passwd", "a/../../x", "sub/x.safetensors", "..", ".", "", "gone.safetensors"])
    | st.text(max_size=6)
)
def test_an_index_names_files_beside_it_alone(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("index")
    (folder / "here.safetensors").touch()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "here.safetensors"}}))
    check_index(folder)
    index.write_text(json.dumps({"weight_map": {"a": "here.safetensors", "b": name}}))
    with pytest.raises(CheckpointError, match="must name files beside it, found"):
        check_index(folder)


def test_models_with_odd_weights_are_refused(base: Path, tmp_path: Path) -> None:
    folder = copy_of(base, tmp_path / "model")
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("proj.weight") and name.startswith("connector"))
    save_file({**tensors, name: torch.ones(())}, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(folder)
    weights.unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(folder)


def test_training_runs_that_stand_on_themselves_are_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(CheckpointError, match=r"holds no adapter_model\.safetensors"):
        load(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="must not be its own base model"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, "9" * 5_000, '{"prompt": 1e999}'], ids=len)
def test_data_that_are_nested_too_deep_are_one_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidValueError, match=r"data\.jsonl"):
        read_examples([file])
    with pytest.raises(InvalidValueError, match=r"data\.jsonl"):
        read_questions(file)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"format": 1, "settings": [], "shards": {}},
        {"format": 1, "settings": {}, "shards": {"a": 3}},
        {"format": 1, "settings": {}, "shards": {"../x": {}}},
    ],
)
def test_an_index_of_features_that_is_none_is_refused(content: Any, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="is no index of features"):
        FeatureCache(tmp_path, {})

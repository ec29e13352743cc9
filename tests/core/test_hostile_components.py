"""Components from files that are not what they claim: a working part, or one error that says what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from avfusion import AudioVisualConnector, CausalQFormer, CheckpointError, FrameSynchroniser, SlidingWindowProjector


def connector() -> AudioVisualConnector:
    qformer = CausalQFormer(
        input_dim=6, hidden_size=4, num_heads=2, num_queries=2, window_frames=2, tokens_per_frame=3, num_layers=1
    )
    return AudioVisualConnector(
        synchroniser=FrameSynchroniser(visual_dim=4, stream_dims={"audio": 2}, slots=3, stream_rates={"audio": 5.0}),
        projector=SlidingWindowProjector(window_encoder=qformer, window_frames=2, llm_dim=5),
        input_dims={"audio": 7},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("saved")
    connector().save_pretrained(folder)
    return folder


def load(folder: Path) -> AudioVisualConnector:
    return AudioVisualConnector.from_pretrained(folder)


def works(part: AudioVisualConnector) -> None:
    """On inputs of the widths that it asks for."""
    like = next(part.parameters()).dtype
    synchroniser = part.synchroniser
    if not 0.1 < synchroniser.frame_rate < 100 or min(synchroniser.stream_rates.values(), default=1) < 0.1:
        return  # as asked for, but with frames by the million
    visual = part.input_dims.get("visual", synchroniser.dims.get("visual"))
    given: dict[str, Any] = {} if visual is None else {"visual": torch.randn(1, 3, 1, visual, dtype=like)}
    for name in synchroniser.stream_rates:
        width = part.input_dims.get(name, synchroniser.dims[name])
        given[name] = torch.randn(1, 1, width, dtype=like)
    part(**given)


JUNK: dict[str, Tensor] = {
    "integers": torch.ones(4, dtype=torch.int64),
    "bytes": torch.ones(4, dtype=torch.uint8),
    "booleans": torch.ones(4, dtype=torch.bool),
    "complex": torch.ones(4, dtype=torch.complex64),
    "eighths": torch.ones(4).to(torch.float8_e4m3fn),
    "NaN": torch.full((4,), torch.nan),
    "infinite": torch.full((4,), torch.inf, dtype=torch.bfloat16),
    "0-d": torch.ones(()),
    "empty": torch.ones(0),
    "2-d": torch.ones(4, 1),
}
NORM = "projector.window_encoder.query_norm.bias"


@pytest.mark.parametrize("name", JUNK)
def test_weights_of_another_kind_are_named(saved: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    save_file(load_file(saved / "model.safetensors") | {NORM: JUNK[name]}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"(of another kind|of another shape|not finite) 1: {NORM}"):
        load(tmp_path)


@settings(max_examples=250)
@given(data=st.data())
def test_drawn_weights_load_or_are_refused(saved: Path, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Any dtypes, shapes and values in place of any tensors; half precision and double load and work."""
    folder = tmp_path_factory.mktemp("drawn")
    tensors = load_file(saved / "model.safetensors")
    chosen = data.draw(st.lists(st.sampled_from(sorted(tensors)), max_size=3, unique=True))
    kinds = ["float16", "bfloat16", "float64", "int8", "int64", "bool", "complex64", "float8_e5m2"]
    refused = False
    for name in chosen:
        dtype = getattr(torch, data.draw(st.sampled_from(kinds)))
        value = tensors[name].to(dtype)
        if data.draw(st.booleans()) and dtype.is_floating_point and value.numel():
            value = torch.full_like(value, torch.nan)
        if data.draw(st.integers(0, 3)) == 0:
            value = data.draw(st.sampled_from([value[None], value.flatten()[:0], value.new_zeros(())]))
        odd = dtype not in (torch.float16, torch.bfloat16, torch.float64)
        refused |= odd or value.shape != tensors[name].shape or not bool(value.double().isfinite().all())
        tensors[name] = value.contiguous()
    (folder / "config.json").write_text((saved / "config.json").read_text())
    save_file(tensors, folder / "model.safetensors")
    if refused:
        with pytest.raises(CheckpointError, match="does not fit AudioVisualConnector"):
            load(folder)
    else:
        loaded = load(folder).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


NESTED: dict[str, Any] = {
    "list": {"avfusion_class": []},
    "dict": {"avfusion_class": {"avfusion_class": "CausalQFormer"}},
    "number": {"avfusion_class": 3},
    "unknown": {"avfusion_class": "nothing"},
    "itself": {"avfusion_class": "AudioVisualConnector"},
    "loss": {"avfusion_class": "DiversityLoss"},
    "plain": {"hidden_size": 4},
    "text": "CausalQFormer",
    "none": None,
    "deep": {"avfusion_class": "SlidingWindowProjector", "window_encoder": {"avfusion_class": None, "name": {}}},
}
VALUES = st.one_of(
    st.sampled_from([None, True, False, -1, 0, 1, 10**9, 10**30, -(10**9), 0.5, float("nan"), float("inf"), "two", ""]),
    st.sampled_from([*NESTED.values(), [], {}, [1, 2], {"audio": -1}, {"audio": "x"}, {"visual": 4, "audio": 2}]),
    st.integers(-4, 12),
)


@settings(max_examples=300)
@given(data=st.data())
def test_drawn_configurations_load_and_work_or_are_refused(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    config = json.loads((saved / "config.json").read_text())
    places = [config, config["synchroniser"], config["projector"], config["projector"]["window_encoder"]]
    for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=2)):
        place[data.draw(st.sampled_from([*place, "avfusion_class", "other"]))] = data.draw(VALUES)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    try:
        loaded = load(folder)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    works(loaded)


@pytest.mark.parametrize("depth", [50, 400, 5_000, 200_000])
@pytest.mark.parametrize("kind", ["lists", "objects", "components"])
def test_depth_is_refused(saved: Path, tmp_path: Path, depth: int, kind: str) -> None:
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    start, end = {
        "lists": ("[", "]"),
        "objects": ('{"a": ', "}"),
        "components": ('{"avfusion_class": "SlidingWindowProjector", "window_encoder": ', "}"),
    }[kind]
    text = f'{{"avfusion_class": "AudioVisualConnector", "projector": {start * depth}1{end * depth}}}'
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError):
        load(tmp_path)


@pytest.mark.parametrize("name", ["num_layers", "num_queries", "hidden_size", "max_instruction_tokens", "llm_dim"])
def test_sizes_that_the_weights_do_not_have_take_no_memory(saved: Path, tmp_path: Path, name: str) -> None:
    config = json.loads((saved / "config.json").read_text())
    place = config["projector"] if name == "llm_dim" else config["projector"]["window_encoder"]
    place[name] = 10**9
    if name == "max_instruction_tokens":
        place["instruction_dim"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"num_layers: must be at most|of another shape|missing|overflowed"):
        load(tmp_path)

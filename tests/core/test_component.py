"""Saving and loading: what comes back is what was saved, and anything else is one clear error."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import avfusion
from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    CheckpointError,
    DiversityLoss,
    FrameSynchroniser,
    MultiResolutionProjector,
    SlidingWindowProjector,
)
from avfusion.modules import Component


class Resampler(nn.Module):
    """A window encoder of somebody else's."""

    num_queries, output_dim = 2, 4

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(6, 4)
        self.again = nn.Linear(6, 4)
        self.again.weight = self.proj.weight

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        pooled = tokens.sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)[:, None]
        return torch.stack([self.proj(pooled), self.again(pooled)], 1)


def synchroniser(**changes: Any) -> FrameSynchroniser:
    return FrameSynchroniser(visual_dim=4, stream_dims={"audio": 2}, slots=3, stream_rates={"audio": 5.0}, **changes)


def qformer(**changes: Any) -> CausalQFormer:
    sizes = {"input_dim": 6, "hidden_size": 4, "num_heads": 2, "num_queries": 4, "window_frames": 4}
    return CausalQFormer(**sizes | {"tokens_per_frame": 3} | changes)


def projector(window_encoder: nn.Module | None = None) -> SlidingWindowProjector:
    encoder = qformer() if window_encoder is None else window_encoder
    return SlidingWindowProjector(window_encoder=encoder, window_frames=4, stride_frames=3, llm_dim=5)


def two_resolutions() -> MultiResolutionProjector:
    return MultiResolutionProjector(
        window_encoder=qformer(), window_frames=4, fine_window_frames=2, fine_num_queries=2, llm_dim=5
    )


COMPONENTS: dict[str, Callable[[], Component]] = {
    "loss": lambda: DiversityLoss(weight=0.25, reduction="none"),
    "synchroniser": synchroniser,
    "absent tokens": lambda: synchroniser(learn_absent_tokens=True),
    "qformer": lambda: qformer(causal_direction="reversed", instruction_dim=3, dropout=0.2, num_layers=1),
    "plain qformer": lambda: qformer(causal_direction=None),
    "projector": projector,
    "two resolutions": two_resolutions,
    "connector": lambda: AudioVisualConnector(
        synchroniser=synchroniser(learn_absent_tokens=True), projector=projector(), input_dims={"audio": 7}
    ),
    "connector of two resolutions": lambda: AudioVisualConnector(
        synchroniser=synchroniser(), projector=two_resolutions()
    ),
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_comes_back_as_it_was(name, tmp_path) -> None:
    saved = COMPONENTS[name]()
    saved.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors", ".md"}, "nothing pickled"
    loaded = type(saved).from_pretrained(tmp_path)
    assert not loaded.training
    assert loaded.config == saved.config
    assert str(loaded) == str(saved)
    assert loaded.state_dict().keys() == saved.state_dict().keys()
    for key, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    again = type(saved).from_config(saved.config)
    assert again.config == saved.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in saved.state_dict().items()}


def test_a_loaded_connector_computes_the_same(tmp_path) -> None:
    saved = COMPONENTS["connector"]().eval()
    saved.save_pretrained(tmp_path)
    loaded = AudioVisualConnector.from_pretrained(tmp_path)
    given = {"visual": torch.randn(2, 5, 3, 4), "audio": torch.randn(2, 11, 7)}
    for expected, found in zip(saved(**given), loaded(**given), strict=True):
        assert torch.equal(expected, found)
    assert loaded.projector.stride_frames == 3
    assert loaded.synchroniser.stream_rates == {"audio": 5.0}


@given(st.permutations(["speech", "sounds", "music"]))
def test_streams_keep_their_order(names) -> None:
    made = FrameSynchroniser(visual_dim=4, stream_dims=dict.fromkeys(names, 2), slots=9)
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        loaded = FrameSynchroniser.from_pretrained(folder)
    assert list(loaded.dims) == ["visual", *names]  # the order of fusion
    media = {name: torch.randn(1, 9, 2) for name in names}
    assert torch.equal(loaded(**media).tokens, made(**media).tokens)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_comes_back_and_no_bit_is_lost(dtype, tmp_path) -> None:
    saved = qformer().to(dtype)
    saved.save_pretrained(tmp_path)
    loaded = CausalQFormer.from_pretrained(tmp_path)
    for key, value in saved.state_dict().items():
        assert loaded.state_dict()[key].dtype == dtype
        assert torch.equal(loaded.state_dict()[key], value)


def test_a_module_of_ones_own_is_saved_and_given_again(tmp_path) -> None:
    saved = projector(Resampler())
    saved.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"window_encoder: .*Resampler, which only you can build; pass"):
        SlidingWindowProjector.from_pretrained(tmp_path)
    loaded = SlidingWindowProjector.from_pretrained(tmp_path, window_encoder=Resampler())
    assert torch.equal(loaded.window_encoder.proj.weight, saved.window_encoder.proj.weight)
    assert loaded.window_encoder.again.weight is loaded.window_encoder.proj.weight, "tied weights stay tied"
    assert loaded.stride_frames == 3


def test_one_inside_a_connector_is_asked_for(tmp_path) -> None:
    saved = AudioVisualConnector(synchroniser=synchroniser(), projector=projector(Resampler()))
    saved.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="Resampler, which only you can build"):
        AudioVisualConnector.from_pretrained(tmp_path)
    loaded = AudioVisualConnector.from_pretrained(tmp_path, projector=projector(Resampler()))
    assert torch.equal(loaded.projector.proj.weight, saved.projector.proj.weight)


def test_a_subclass_of_ones_own_is_known_by_its_name(tmp_path) -> None:
    class Louder(CausalQFormer):
        """Nothing more."""

    try:
        projector(Louder(**qformer().config)).save_pretrained(tmp_path)
        loaded = SlidingWindowProjector.from_pretrained(tmp_path)
        assert type(loaded.window_encoder) is Louder
    finally:
        del Component.registry["Louder"]
    with pytest.raises(CheckpointError, match=r"avfusion_class: must be one of .*'CausalQFormer'.*, found 'Louder'"):
        SlidingWindowProjector.from_pretrained(tmp_path)


# --- Files that do not fit. ---


def edit(path: Path, **changes: Any) -> str:
    return json.dumps(json.loads(path.read_text()) | changes)


CONFIGS: dict[str, tuple[Callable[[Path], str | bytes], str]] = {
    "another class": (lambda p: edit(p, avfusion_class="DiversityLoss"), "describe a CausalQFormer, found 'Diversity"),
    "foreign": (lambda p: '{"model_type": "bert", "hidden_size": 4}', "describe a CausalQFormer, found None"),
    "not an object": (lambda p: "[1, 2]", "describe a CausalQFormer, found None"),
    "not JSON": (lambda p: "{nothing", "not a component's configuration"),
    "not text": (lambda p: b"\xff\xfe\x00\x80", "not a component's configuration"),
    "empty": (lambda p: "", "not a component's configuration"),
    "another argument": (lambda p: edit(p, colour="red"), r"unknown arguments \['colour'\], known are .*'input_dim'"),
    "impossible sizes": (lambda p: edit(p, num_heads=3), "num_heads: must divide"),
    "wrong type": (lambda p: edit(p, num_heads="two"), "cannot be built from its configuration"),
    "other sizes": (lambda p: edit(p, num_queries=9), r"query_tokens is \(4, 4\), must be \(9, 4\)"),
    "fewer layers": (lambda p: edit(p, num_layers=1), "unknown 36: layers.1"),
    "more layers": (lambda p: edit(p, num_layers=3), "missing 36: layers.2"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_does_not_fit(name, tmp_path) -> None:
    qformer().save_pretrained(tmp_path)
    write, message = CONFIGS[name]
    path = tmp_path / "config.json"
    text = write(path)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=message):
        CausalQFormer.from_pretrained(tmp_path)


WEIGHTS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "one missing": (lambda t: {k: v for k, v in t.items() if k != "query_tokens"}, "missing 1: query_tokens$"),
    "one more": (lambda t: t | {"other": torch.zeros(1)}, "unknown 1: other$"),
    "another shape": (lambda t: t | {"query_norm.bias": torch.zeros(5)}, r"query_norm.bias is \(5,\), must be \(4,\)$"),
    "foreign": (lambda t: {"bert.weight": torch.zeros(1)}, r"missing \d+: .*; .* …. unknown 1: bert.weight$"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_tensors_that_do_not_fit_are_all_named(name, tmp_path) -> None:
    qformer().save_pretrained(tmp_path)
    change, message = WEIGHTS[name]
    path = tmp_path / "model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(CheckpointError, match=message) as caught:
        CausalQFormer.from_pretrained(tmp_path)
    assert "does not fit CausalQFormer" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x04\x95" + bytes(40), b"\xff" * 64], ids=len)
def test_a_file_that_is_not_safetensors(content, tmp_path) -> None:
    qformer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        CausalQFormer.from_pretrained(tmp_path)


def test_a_truncated_file(tmp_path) -> None:
    qformer().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        CausalQFormer.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(name, tmp_path) -> None:
    qformer().save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=re.escape(name)):
        CausalQFormer.from_pretrained(tmp_path)


def test_no_such_directory(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: holds no config\.json"):
        CausalQFormer.from_pretrained(tmp_path / "nowhere")


# --- The Hub. ---


def test_names_on_the_hub_are_asked_for_with_their_revision(tmp_path, monkeypatch) -> None:
    saved = qformer()
    saved.save_pretrained(tmp_path)
    asked = []

    def download(**request: Any) -> str:
        asked.append((request["repo_id"], request["filename"], request["revision"], request["local_files_only"]))
        return str(tmp_path / request["filename"])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    loaded = CausalQFormer.from_pretrained("someone/qformer", revision="v2", local_files_only=True)
    assert torch.equal(loaded.query_tokens, saved.query_tokens)
    assert asked == [("someone/qformer", name, "v2", True) for name in ("config.json", "model.safetensors")]


def test_a_hub_that_cannot_be_reached_says_so(tmp_path) -> None:
    with pytest.raises(OSError, match="local_files_only"):
        CausalQFormer.from_pretrained("someone/qformer", cache_dir=tmp_path, local_files_only=True)


def test_without_huggingface_hub_everything_but_saving_works(tmp_path) -> None:
    code = f"""
import sys
sys.modules["huggingface_hub"] = None
import avfusion
loss = avfusion.DiversityLoss()
for use in (loss.save_pretrained, loss.push_to_hub, avfusion.DiversityLoss.from_pretrained):
    try:
        use({str(tmp_path)!r})
    except ImportError as error:
        print(error)
"""
    env = os.environ | {"PYTHONPATH": str(Path(avfusion.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert (
        done.stdout.splitlines().count(
            "Saving and loading components needs huggingface_hub: pip install 'avfusion[hf]'"
        )
        == 3
    )
    assert list(tmp_path.iterdir()) == []

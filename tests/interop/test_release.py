"""Released weights: the golden vectors, and every way in which a state dict can fail to be one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    CheckpointError,
    DiversityLoss,
    FrameSynchroniser,
    InvalidValueError,
    LLMEmbeddings,
    MultiResolutionProjector,
    SlidingWindowProjector,
)
from avfusion.interop import connector_from_release, connector_to_release

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
TOLERANCE = 1e-5


def read(name: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    config = json.loads((GOLDEN / f"{name}.json").read_text())
    return (
        config,
        load_file(GOLDEN / f"{name}.state_dict.safetensors"),
        load_file(GOLDEN / f"{name}.tensors.safetensors"),
    )


def convert(config: dict[str, Any], state_dict: dict[str, Tensor], **changes: Any) -> AudioVisualConnector:
    names = ("num_heads", "window_frames", "causal_direction", "fine_window_frames")
    return connector_from_release(state_dict, **{n: config[n] for n in names if n in config} | changes)


def inputs(name: str) -> dict[str, Tensor | None]:
    _, _, tensors = read(name)
    # Without sound the release puts zeros in the slots, after the audio map; the file's audio then went unused.
    audio = None if name == "no_audio" else tensors["input.audio_tokens"]
    return {"visual": tensors["input.visual_tokens"], "audio": audio}


@torch.no_grad()
def run(name: str) -> tuple[AudioVisualConnector, LLMEmbeddings, dict[str, Tensor]]:
    config, state_dict, tensors = read(name)
    connector = convert(config, state_dict)
    assert not connector.training
    return connector, connector(**inputs(name)), tensors


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_golden_outputs(name) -> None:
    _, out, tensors = run(name)
    close(out.embeddings, tensors["output.llm_embeds"])
    if "output.joined_states" in tensors:
        close(out.query_states.reshape(tensors["output.joined_states"].shape), tensors["output.joined_states"])
    else:
        close(out.query_states, tensors["output.query_states"])
        close(DiversityLoss(weight=1.0)(out.query_states), tensors["output.diversity"].squeeze())


@pytest.mark.parametrize("name", [n for n in NAMES if "output.layer0.causal_encoder_states" in read(n)[2]])
@torch.no_grad()
def test_golden_causal_states_of_every_layer(name) -> None:
    config, state_dict, tensors = read(name)
    connector = convert(config, state_dict)
    seen: list[Tensor] = []
    for layer in connector.projector.window_encoder.layers:
        layer.causal_attention.register_forward_hook(lambda module, given, output: seen.append(output))
    projector = connector.projector
    projector.encode(projector.cut(connector.synchronise(**inputs(name))))
    assert len(seen) == config["num_layers"]
    for layer, states in enumerate(seen):
        close(states, tensors[f"output.layer{layer}.causal_encoder_states"])


def test_golden_cases_are_all_here() -> None:
    assert NAMES == ["audio_longer", "causal_mask", "multi_resolution", "no_audio", "plain_qformer", "released_mask"]


def test_the_direction_and_the_number_of_heads_are_not_idle() -> None:
    config, state_dict, tensors = read("released_mask")
    for changes in ({"causal_direction": "causal"}, {"num_heads": 2}, {"window_frames": 4}):
        out = convert(config, state_dict, **changes)(**inputs("released_mask"))
        same = out.embeddings.shape == tensors["output.llm_embeds"].shape
        assert not same or (out.embeddings - tensors["output.llm_embeds"]).abs().max() > 0.1


# --- Any sizes: each of the release's tensors goes to one place of the connector, and none is left over. ---

PARTS = ("attention", "crossattention", "encoder_causal_attention")


def synthetic(
    *,
    layers: int,
    hidden: int,
    visual: int,
    audio: int,
    raw: int | None,
    queries: int,
    inner: int,
    llm: int,
    positions: int,
    causal: bool,
    fine: int | None,
) -> dict[str, Tensor]:
    """A state dict with the released names, every tensor different."""
    fused = visual + audio
    shapes: dict[str, tuple[int, ...]] = {
        "joint_frame_position_embedding.weight": (positions, fused),
        "joint_query_tokens": (1, queries, hidden),
    }

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    norm("ln_joint", fused)
    norm("joint_Qformer.bert.embeddings.LayerNorm", hidden)
    linear("llama_proj_joint", 2 * hidden if fine else hidden, llm)
    if raw is not None:
        linear("speech_pre_qformer_proj", raw, audio)
    if fine:
        shapes["low_query_tokens"] = (1, fine, hidden)
    for layer in range(layers):
        for part, own, other in zip(PARTS, (hidden, hidden, fused), (hidden, fused, fused), strict=True):
            if part == "encoder_causal_attention" and not causal:
                continue
            stem = f"joint_Qformer.bert.encoder.layer.{layer}.{part}"
            linear(f"{stem}.self.query", own, own)
            linear(f"{stem}.self.key", other, own)
            linear(f"{stem}.self.value", other, own)
            linear(f"{stem}.output.dense", own, own)
            norm(f"{stem}.output.LayerNorm", own)
        stem = f"joint_Qformer.bert.encoder.layer.{layer}"
        linear(f"{stem}.intermediate_query.dense", hidden, inner)
        linear(f"{stem}.output_query.dense", inner, hidden)
        norm(f"{stem}.output_query.LayerNorm", hidden)
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    for number, tensor in enumerate(tensors.values()):
        tensor.view(-1)[0] = number  # small whole numbers differ in every dtype
    return tensors


@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    sizes=st.tuples(*[st.integers(1, 3)] * 3),
    raw=st.one_of(st.none(), st.integers(1, 9)),
    fine=st.one_of(st.none(), st.integers(1, 2)),
    parts=st.integers(1, 3),
    causal=st.booleans(),
    direction=st.sampled_from(["causal", "reversed"]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    spare=st.integers(0, 40),
    llm=st.integers(1, 9),
)
@settings(deadline=None, max_examples=20)
def test_every_tensor_of_any_sizes_is_used(
    layers, heads, sizes, raw, fine, parts, causal, direction, dtype, spare, llm
) -> None:
    fine_frames = 1 if fine else None
    window = parts if fine else 2
    visual = heads * sizes[0]
    audio = visual if raw is None else heads * sizes[1]  # without its map the audio's width is half of the fused one
    state_dict = synthetic(
        layers=layers,
        hidden=heads * sizes[2],
        visual=visual,
        audio=audio,
        raw=raw,
        queries=fine * parts if fine else 3,
        inner=7,
        llm=llm,
        positions=window * 32 + spare,
        causal=causal,
        fine=fine,
    )
    state_dict = {name: tensor.to(dtype) for name, tensor in state_dict.items()}
    connector = connector_from_release(
        state_dict, num_heads=heads, window_frames=window, causal_direction=direction, fine_window_frames=fine_frames
    )
    left = [tensor for _, tensor in sorted(connector.state_dict().items())]
    assert len(left) == len(state_dict)
    for name, tensor in state_dict.items():
        wanted = tensor[0] if "query_tokens" in name else tensor
        wanted = wanted[: window * 32] if "position" in name else wanted
        places = [i for i, found in enumerate(left) if torch.equal(found, wanted)]
        assert len(places) == 1, name
        assert left[places[0]].dtype == dtype
    assert isinstance(connector.projector, MultiResolutionProjector) == bool(fine)
    encoder = connector.projector.window_encoder
    encoder = encoder.window_encoder if fine else encoder
    assert encoder.causal_direction == (direction if causal else None)
    assert len(encoder.layers) == layers
    out = connector(
        visual=torch.randn(1, 3, 32, visual, dtype=dtype), audio=torch.randn(1, 75, raw or audio, dtype=dtype)
    )
    assert out.embeddings.shape[-1] == llm
    assert out.embeddings.isfinite().all()


# --- What else a checkpoint may hold, and what it must not. ---


def test_other_names_of_the_same_tensors_and_other_parts_are_not_read() -> None:
    config, state_dict, tensors = read("released_mask")
    more: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        for ours, theirs in (
            ("ln_joint", "ln_video"),
            ("ln_joint", "ln_speech"),
            ("joint_frame_position_embedding", "video_frame_position_embedding"),
            ("joint_query_tokens", "video_query_tokens"),
            ("joint_query_tokens", "speech_query_tokens"),
            ("joint_Qformer", "video_Qformer"),
            ("joint_Qformer", "speech_Qformer"),
            ("llama_proj_joint", "llama_proj"),
            ("llama_proj_joint", "llama_proj_speech"),
        ):
            if name.startswith(ours):
                more[name.replace(ours, theirs, 1)] = torch.full_like(tensor, torch.nan)
    lora = "llama_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    more |= {lora: torch.zeros(2, 2), "visual_encoder.blocks.0.norm1.weight": torch.zeros(2)}
    assert len(more) > len(state_dict)
    out = convert(config, {**more, **state_dict})(**inputs("released_mask"))
    close(out.embeddings, tensors["output.llm_embeds"])


def test_the_given_tensors_stay_as_they_are_and_are_not_shared() -> None:
    config, state_dict, _ = read("released_mask")
    before = {name: tensor.clone() for name, tensor in state_dict.items()}
    connector = convert(config, state_dict)
    with torch.no_grad():
        for parameter in connector.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_dict.items())


@pytest.mark.parametrize("name", sorted(read("released_mask")[1]))
def test_each_missing_tensor_is_an_error(name) -> None:
    config, state_dict, _ = read("released_mask")
    del state_dict[name]
    with pytest.raises(CheckpointError, match=r"missing|unknown 1: input_projections\.audio\.bias"):
        convert(config, state_dict)


@pytest.mark.parametrize("name", sorted(read("multi_resolution")[1]))
def test_each_tensor_of_another_shape_is_an_error(name) -> None:
    config, state_dict, _ = read("multi_resolution")
    tensor = state_dict[name]
    state_dict[name] = torch.cat([tensor, tensor[..., :1]], -1)
    with pytest.raises((CheckpointError, InvalidValueError)):
        convert(config, state_dict)


@pytest.mark.parametrize(
    "name",
    [
        "joint_Qformer.bert.encoder.layer.0.attention.self.other.weight",
        "joint_Qformer.bert.encoder.layer.0.attention.self.query.other",
        "joint_Qformer.bert.pooler.weight",
        "joint_Qformer.bert.encoder.layer.7.attention.self.query.weight",
        "ln_joint.other",
        "llama_proj_joint.other",
    ],
)
def test_unknown_tensors_of_the_connector_are_an_error(name) -> None:
    config, state_dict, _ = read("released_mask")
    with pytest.raises(CheckpointError, match=r"unknown|missing"):
        convert(config, state_dict | {name: torch.zeros(48, 48)})


@pytest.mark.parametrize("state_dict", [{}, {"model.embed_tokens.weight": torch.zeros(2, 2)}], ids=["none", "foreign"])
def test_a_foreign_state_dict_is_one_error(state_dict) -> None:
    with pytest.raises(CheckpointError, match="holds no released connector"):
        connector_from_release(state_dict, num_heads=4, window_frames=3, causal_direction="causal")


def test_fine_windows_belong_to_weights_that_have_them() -> None:
    config, state_dict, _ = read("multi_resolution")
    with pytest.raises(InvalidValueError, match=r"fine_window_frames: .* found None and some"):
        convert(config, state_dict, fine_window_frames=None)
    with pytest.raises(InvalidValueError, match=r"fine_window_frames: must divide window_frames = 3, found 2"):
        convert(config, state_dict, fine_window_frames=2)
    config, state_dict, _ = read("causal_mask")
    with pytest.raises(InvalidValueError, match=r"fine_window_frames: .* found 1 and none"):
        convert(config, state_dict, fine_window_frames=1)


def of_widths(visual: int, audio: int, *, mapped: bool) -> AudioVisualConnector:
    """A connector of the release's kind, with streams of these widths."""
    qformer = CausalQFormer(
        input_dim=visual + audio, hidden_size=4, num_heads=1, num_queries=2, window_frames=2, padding="released"
    )
    return AudioVisualConnector(
        synchroniser=FrameSynchroniser(visual_dim=visual, stream_dims={"audio": audio}, padding="released"),
        projector=SlidingWindowProjector(window_encoder=qformer, window_frames=2, llm_dim=3),
        input_dims={"audio": 5} if mapped else {},
    ).eval()


@settings(max_examples=200)
@given(
    visual=st.integers(1, 9),
    audio=st.integers(1, 9),
    mapped=st.booleans(),
    given_dim=st.none() | st.integers(-2, 20),
)
def test_a_width_that_the_weights_do_not_tell_is_given(
    visual: int, audio: int, mapped: bool, given_dim: int | None
) -> None:
    connector = of_widths(visual, audio, mapped=mapped).double()
    released, total = connector_to_release(connector), visual + audio
    options: dict[str, Any] = {"num_heads": 1, "window_frames": 2, "causal_direction": "causal"}
    if mapped:
        fits, expected = given_dim in (None, visual), visual
    elif given_dim is None:
        fits, expected = total % 2 == 0, total // 2
    else:
        fits, expected = 0 < given_dim < total, given_dim
    if not fits:
        with pytest.raises(InvalidValueError, match=r"^visual_dim: must be"):
            connector_from_release(released, visual_dim=given_dim, **options)
        return
    found = connector_from_release(released, visual_dim=given_dim, **options)
    assert found.synchroniser.dims["visual"] == expected
    if expected == visual:
        clip = {"visual": torch.randn(1, 3, 2, visual), "audio": torch.randn(1, 70, 5 if mapped else audio)}
        clip = {name: value.double() for name, value in clip.items()}
        torch.testing.assert_close(found(**clip).embeddings, connector(**clip).embeddings)


@pytest.mark.parametrize("kind", ["0-d", "integers", "NaN", "many layers", "endless number"])
@pytest.mark.parametrize(
    "name", ["joint_query_tokens", "llama_proj_joint.weight", "ln_joint.weight", "speech_pre_qformer_proj.weight"]
)
def test_tensors_that_are_no_weights_are_one_error(name: str, kind: str) -> None:
    config, state_dict, _ = read("released_mask")
    tensor = state_dict[name]
    if kind in ("many layers", "endless number"):
        number = 9999 if kind == "many layers" else "9" * 5000
        state_dict[f"joint_Qformer.bert.encoder.layer.{number}.attention.self.query.weight"] = tensor
    else:
        nan = torch.full_like(tensor, torch.nan)
        state_dict[name] = {"0-d": tensor.new_zeros(()), "integers": tensor.long(), "NaN": nan}[kind]
    with pytest.raises(CheckpointError):
        convert(config, state_dict)


def test_other_arguments_that_do_not_fit() -> None:
    config, state_dict, _ = read("released_mask")
    for direction in ("upper", "", "causally"):
        with pytest.raises(InvalidValueError, match="causal_direction"):
            convert(config, state_dict, causal_direction=direction)
    with pytest.raises(InvalidValueError, match="num_heads"):
        convert(config, state_dict, num_heads=5)
    with pytest.raises(CheckpointError, match=r"position_embedding is \(128, 48\), must be \(160, 48\)"):
        convert(config, state_dict, window_frames=5)
    with pytest.raises(InvalidValueError, match="window_frames"):
        convert(config, state_dict, window_frames=0)


@pytest.mark.parametrize("case", ["released_mask", "plain_qformer", "multi_resolution"])
def test_going_back_gives_the_released_tensors(case) -> None:
    config, state_dict, _ = read(case)
    released = connector_to_release(convert(config, state_dict))
    table = "joint_frame_position_embedding.weight"
    state_dict[table] = state_dict[table][: released[table].shape[0]]
    assert released.keys() == state_dict.keys()
    assert all(torch.equal(released[name], tensor) for name, tensor in state_dict.items())


def test_a_connector_that_the_release_cannot_name_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"no name for \['input_projections.visual.weight'"):
        connector_to_release(
            AudioVisualConnector(
                synchroniser=FrameSynchroniser(visual_dim=4, stream_dims={"audio": 4}, slots=2),
                projector=SlidingWindowProjector(
                    window_encoder=CausalQFormer(
                        input_dim=8, hidden_size=4, num_heads=1, num_queries=1, window_frames=2, tokens_per_frame=2
                    ),
                    window_frames=2,
                    llm_dim=4,
                ),
                input_dims={"visual": 3},
            )
        )

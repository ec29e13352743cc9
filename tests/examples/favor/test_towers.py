"""Towers run in calls of bounded size, on real frames and sound only, and give what one call would."""

import math
import weakref
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from avfusion.functional import pool_patches
from examples.favor import FavorForConditionalGeneration
from examples.favor.presets import lora_config
from examples.favor.tiny import tiny, tiny_config
from tests.examples.favor.parts import inside

FRAMES, CHUNKS = (5, 0, 3), (3, 1, 0)  # of three clips: all are padded to the longest, and some lack a modality


def small(preset: str, **options: Any) -> FavorForConditionalGeneration:
    """A preset's tiny twin with other options, frozen."""
    config = tiny_config(preset)
    for name, value in options.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    return FavorForConditionalGeneration(config).eval().requires_grad_(False)


def media(model: FavorForConditionalGeneration) -> dict[str, Tensor]:
    """A ragged batch; what is padding would be noticed."""
    config = model.config
    side, length = config.vision_config.image_size, 2 * config.audio_config.max_source_positions
    sound = torch.tensor(CHUNKS)[:, None] * length - 7
    inputs = {
        "pixel_values_videos": torch.randn(3, max(FRAMES), 3, side, side),
        "video_mask": torch.arange(max(FRAMES)) < torch.tensor(FRAMES)[:, None],
        "input_features": torch.randn(3, config.audio_config.num_mel_bins, length * max(CHUNKS)),
        "feature_attention_mask": torch.arange(length * max(CHUNKS)) < sound,
    }
    if config.qformer_config is not None:
        inputs["qformer_input_ids"] = torch.randint(3, 200, (3, 5))
        inputs["qformer_attention_mask"] = torch.arange(5) < torch.tensor([5, 2, 3])[:, None]
    return inputs


def calls(tower: nn.Module) -> list[int]:
    """Filled with the rows of every call from now on."""
    seen: list[int] = []

    def note(_: Any, args: Any, given: Any) -> None:
        seen.append(len(args[0] if args else given["query_embeds"]))

    tower.register_forward_pre_hook(note, with_kwargs=True)
    return seen


def seen_alone(model: FavorForConditionalGeneration, inputs: dict[str, Tensor]) -> Tensor:
    """Visual tokens, with one plain call of each tower for every frame."""
    parts, tokens = inside(model), []
    for clip, frame in inputs["video_mask"].nonzero().tolist():
        patches = parts["vision"](inputs["pixel_values_videos"][clip, frame][None]).last_hidden_state
        if "qformer" not in parts:
            side = int(patches.shape[1] ** 0.5)
            tokens.append(pool_patches(patches[:, -side * side :], (side, side), model.config.num_query_tokens))
            continue
        said = inputs["qformer_attention_mask"][clip]
        words = inputs["qformer_input_ids"][clip][said][None]
        queries = model.visual_encoder.query_tokens
        out = parts["qformer"](input_ids=words, query_embeds=queries, encoder_hidden_states=patches)
        tokens.append(out.last_hidden_state[:, : model.config.num_query_tokens])
    return torch.cat(tokens)


def equal(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


PRESETS = ("favor-vicuna-7b", "modern")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("count", [1, 3, 8])
def test_pictures_go_in_calls_that_fit_and_give_what_one_call_gives(preset: str, count: int) -> None:
    model = small(preset, frame_batch_size=count)
    inputs = {name: value for name, value in media(model).items() if "feature" not in name}
    expected, real = seen_alone(model, inputs), inputs["video_mask"]
    seen = [calls(part) for name, part in inside(model).items() if name != "audio"]
    found = model.encode(**inputs)["visual_features"]
    equal(found[real], expected)
    assert not found[~real].any()
    for rows in seen:
        assert sum(rows) == sum(FRAMES)  # real frames only
        assert len(rows) == math.ceil(sum(FRAMES) / count)
        assert max(rows) <= count


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("count", [1, 3, 4])
def test_sound_goes_in_calls_that_fit_and_gives_what_one_call_gives(preset: str, count: int) -> None:
    model = small(preset, chunk_batch_size=count)
    inputs = {name: value for name, value in media(model).items() if "feature" in name}
    tower, whole = inside(model)["audio"], torch.zeros(3, 50 * max(CHUNKS), 32)
    for clip, chunks in enumerate(CHUNKS):
        for first in range(chunks):
            sound = inputs["input_features"][clip, :, 100 * first : 100 * (first + 1)]
            whole[clip, 50 * first : 50 * (first + 1)] = tower(sound[None]).last_hidden_state[0]
    rows = calls(tower)
    features = model.encode(**inputs)
    real = features["audio_mask"]
    assert real.sum(1).tolist() == [chunks * 50 - 3 if chunks else 0 for chunks in CHUNKS]  # 7 mel frames are silence
    equal(features["audio_features"][real], whole[:, : real.shape[1]][real])
    assert not features["audio_features"][~real].any()
    assert sum(rows) == sum(CHUNKS)
    assert len(rows) == math.ceil(sum(CHUNKS) / count)
    assert max(rows) <= count


def test_towers_of_which_others_hold_a_share_have_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("favor-vicuna-7b", frame_batch_size=1, chunk_batch_size=1)
    monkeypatch.setattr("avfusion.encoders._base.is_sharded", lambda *_: True)
    seen = {name: calls(part) for name, part in inside(model).items()}
    model.encode(**media(model))
    assert seen == {"vision": [sum(FRAMES)], "qformer": [sum(FRAMES)], "audio": [sum(CHUNKS)]}


@pytest.mark.parametrize("preset", PRESETS)
def test_trained_towers_have_a_graph(preset: str) -> None:
    model = small(preset)
    model.visual_encoder.requires_grad_(True)
    model.audio_encoder.requires_grad_(True)
    features = model.encode(**media(model))
    assert features["visual_features"].requires_grad
    assert features["audio_features"].requires_grad


def test_a_trained_qformer_keeps_its_graph_and_the_frozen_tower_below_has_none() -> None:
    model = small("favor-vicuna-7b")
    parts, seen = inside(model), []
    parts["qformer"].requires_grad_(True)
    parts["vision"].register_forward_hook(lambda _, __, out: seen.append(out.last_hidden_state.requires_grad))
    model.encode(**media(model))["visual_features"].sum().backward()
    assert seen == [False]
    assert any(parameter.grad is not None for parameter in parts["qformer"].parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_frozen_towers_have_no_graph_where_checkpointing_asks_all_embeddings_for_gradients(preset: str) -> None:
    peft = get_peft_model(small(preset), lora_config("favor-vicuna-7b")).train()
    peft.enable_input_require_grads()
    model = peft.get_base_model()
    assert not any(value.requires_grad for value in model.encode(**media(model)).values())


def test_the_layers_that_must_stay_whole_are_those_of_all_parts() -> None:
    whole = set(tiny("video-salmonn-13b")[0]._no_split_modules)
    assert whole >= {"WhisperEncoderLayer", "LlamaDecoderLayer", "InstructBlipAttention", "AudioVisualConnector"}


@pytest.mark.parametrize("preset", ["favor-vicuna-7b", "video-salmonn-13b", "modern"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_that_is_asked_of_the_whole_is_that_of_every_part(preset: str, attention: str) -> None:
    model = FavorForConditionalGeneration._from_config(tiny_config(preset), attn_implementation=attention)
    found = [part.config._attn_implementation for part in model.modules() if isinstance(part, PreTrainedModel)]
    assert found == [attention] * len(found)
    assert len(found) > 3


class Allocated(TorchDispatchMode):
    """The most bytes that tensors made under it took at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {one.untyped_storage().data_ptr() for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage.data_ptr() not in before:
                self.change(storage.nbytes())
                weakref.finalize(storage, self.change, -storage.nbytes())
        return out

    def change(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["vision_config", "audio_config"])
def test_what_a_call_takes_is_bounded_whatever_the_length_of_a_clip(kind: str, attention: str) -> None:
    config = tiny_config("favor-vicuna-7b")
    for name, value in {"hidden_size": 176, "intermediate_size": 768, "num_attention_heads": 4}.items():
        setattr(config.vision_config, name, value)  # in the proportions of the published towers
    config.vision_config.image_size, config.qformer_config.encoder_hidden_size = 112, 176
    config.audio_config.d_model, config.audio_config.encoder_ffn_dim = 160, 640
    config.audio_config.max_source_positions = 300
    config._attn_implementation = attention
    config.frame_batch_size = config.chunk_batch_size = 2
    model = FavorForConditionalGeneration(config).eval()
    length, found = 2 * config.audio_config.max_source_positions, []
    for items in (2, 16):
        inputs = (
            {"pixel_values_videos": torch.randn(1, items, 3, 112, 112)}
            if kind == "vision_config"
            else {"input_features": torch.randn(1, 80, items * length)}
        )
        with torch.no_grad(), Allocated() as allocated:
            out = model.encode(**inputs)
        given = sum(value.nbytes for value in (*inputs.values(), *out.values()))
        found.append(allocated.most - given)
    # Over one call, only copies of what goes in and the results of the calls before, until they are in their places.
    assert found[1] < found[0] + 2 * given

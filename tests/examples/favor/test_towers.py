"""Frozen towers run in calls of bounded size, on real frames and sound only, and give what one call would."""

import math
import weakref
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from avfusion.functional import pool_patches
from examples.favor import FavorForConditionalGeneration, towers
from examples.favor.presets import full_config, lora_config, tiny, tiny_config
from examples.favor.towers import items_per_call

FRAMES, CHUNKS = (5, 0, 3), (3, 1, 0)  # of three clips: all are padded to the longest, and some lack a modality


@pytest.fixture(params=["favor-vicuna-7b", "modern"])
def model(request: pytest.FixtureRequest) -> FavorForConditionalGeneration:
    return tiny(request.param)[0].requires_grad_(False)


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


def set_limit(model: FavorForConditionalGeneration, kind: str, count: int) -> None:
    """So much memory that ``count`` frames or chunks fit, and half another one."""
    config = getattr(model.config, kind)
    one = 1e6 / items_per_call(config, torch.float32, 1e6)
    model.config.tower_memory = (count + 0.5) * one
    assert items_per_call(config, torch.float32, model.config.tower_memory) == count


def seen_alone(model: FavorForConditionalGeneration, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Patches and visual tokens, with one plain call of each tower for every frame."""
    whole: list[Tensor] = []
    tokens: list[Tensor] = []
    for clip, frame in inputs["video_mask"].nonzero().tolist():
        patches = model.vision_tower(inputs["pixel_values_videos"][clip, frame][None]).last_hidden_state
        whole.append(patches)
        if model.qformer is None:
            side = int(patches.shape[1] ** 0.5)
            tokens.append(pool_patches(patches[:, -side * side :], (side, side), model.config.num_query_tokens))
            continue
        said = inputs["qformer_attention_mask"][clip]
        words = inputs["qformer_input_ids"][clip][said][None]
        out = model.qformer(input_ids=words, query_embeds=model.query_tokens, encoder_hidden_states=patches)
        tokens.append(out.last_hidden_state[:, : model.config.num_query_tokens])
    return torch.cat(whole), torch.cat(tokens)


def equal(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_pictures_go_in_calls_that_fit_and_give_what_one_call_gives(
    model: FavorForConditionalGeneration, count: int
) -> None:
    inputs = {name: value for name, value in media(model).items() if "feature" not in name}
    patches, tokens = seen_alone(model, inputs)
    real = inputs["video_mask"]
    set_limit(model, "vision_config", count)
    seen = [calls(tower) for tower in (model.vision_tower, model.qformer) if tower is not None]
    out = model.get_video_features(**inputs)
    kept = model.encode(**inputs)["visual_features"]
    for found, expected in ((out.last_hidden_state, patches), (out.pooler_output, tokens), (kept, tokens)):
        equal(found[real], expected)
        assert not found[~real].any()
    for rows in seen:
        assert sum(rows) == 2 * sum(FRAMES)  # real frames, in each of the two
        assert len(rows) == 2 * math.ceil(sum(FRAMES) / count)
        assert max(rows) <= count


@pytest.mark.parametrize("count", [1, 3, 4])
def test_sound_goes_in_calls_that_fit_and_gives_what_one_call_gives(
    model: FavorForConditionalGeneration, count: int
) -> None:
    inputs = {name: value for name, value in media(model).items() if "feature" in name}
    whole = torch.zeros(3, 50 * max(CHUNKS), 32)
    for clip, chunks in enumerate(CHUNKS):
        for first in range(chunks):
            sound = inputs["input_features"][clip, :, 100 * first : 100 * (first + 1)]
            whole[clip, 50 * first : 50 * (first + 1)] = model.audio_tower(sound[None]).last_hidden_state[0]
    set_limit(model, "audio_config", count)
    rows = calls(model.audio_tower)
    equal(model.get_audio_features(**inputs).last_hidden_state, whole)
    equal(model.encode(**inputs)["audio_features"], whole)
    assert sum(rows) == 2 * sum(CHUNKS)
    assert len(rows) == 2 * math.ceil(sum(CHUNKS) / count)
    assert max(rows) <= count


def test_what_happens_inside_comes_of_one_call(model: FavorForConditionalGeneration) -> None:
    model.set_attn_implementation("eager")
    inputs = media(model)
    pictures = {name: value for name, value in inputs.items() if "feature" not in name}
    sound = {name: value for name, value in inputs.items() if "feature" in name}
    for tower, get, given, real in (
        (model.vision_tower, model.get_video_features, pictures, sum(FRAMES)),
        (model.audio_tower, model.get_audio_features, sound, sum(CHUNKS)),
    ):
        expected = get(**given).last_hidden_state
        model.config.tower_memory = 1e-6
        rows = calls(tower)
        out = get(**given, output_hidden_states=True, output_attentions=True)
        model.config.tower_memory = 1024
        assert rows == [real]
        equal(out.last_hidden_state, expected)
        assert [len(layer) for layer in out.hidden_states] == [real] * 3
        assert [len(layer) for layer in out.attentions] == [real] * 2


@pytest.mark.parametrize("why", ["trained", "sharded"])
def test_towers_that_parts_would_not_help_or_harm_have_one_call(
    model: FavorForConditionalGeneration, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.config.tower_memory = 1e-6
    if why == "trained":
        model.vision_tower.requires_grad_(True)
        model.audio_tower.requires_grad_(True)
    else:
        monkeypatch.setattr(towers, "is_sharded", lambda *_: True)
    seen = calls(model.vision_tower), calls(model.audio_tower)
    features = model.encode(**media(model))
    assert seen == ([sum(FRAMES)], [sum(CHUNKS)])
    assert features["visual_features"].requires_grad == (why == "trained")
    assert features["audio_features"].requires_grad == (why == "trained")


def test_a_trained_qformer_keeps_its_graph_and_the_frozen_tower_below_has_none() -> None:
    model = tiny()[0].requires_grad_(False)
    model.qformer.requires_grad_(True)
    seen: list[bool] = []
    model.vision_tower.register_forward_hook(lambda _, __, out: seen.append(out.last_hidden_state.requires_grad))
    model.encode(**media(model))["visual_features"].sum().backward()
    assert seen == [False]
    assert any(parameter.grad is not None for parameter in model.qformer.parameters())


def test_frozen_towers_have_no_graph_where_checkpointing_asks_all_embeddings_for_gradients(
    model: FavorForConditionalGeneration,
) -> None:
    peft = get_peft_model(model, lora_config("favor-vicuna-7b")).train()
    peft.enable_input_require_grads()
    assert not any(value.requires_grad for value in model.encode(**media(model)).values())


@pytest.mark.parametrize("kind", ["vision_config", "audio_config"])
def test_the_count_follows_memory_dtype_and_attention(kind: str) -> None:
    config = getattr(full_config("favor-vicuna-7b"), kind)
    config._attn_implementation = "sdpa"
    count = items_per_call(config, torch.float32, 1024)
    for other in (items_per_call(config, torch.bfloat16, 512), items_per_call(config, torch.float32, 2048) // 2):
        assert other == count
    config._attn_implementation = "eager"
    assert 1 <= items_per_call(config, torch.float32, 1024) < count
    assert items_per_call(config, torch.float32, 0.1) == 1


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
    model = FavorForConditionalGeneration(config).eval()
    set_limit(model, kind, 2)
    limit = model.config.tower_memory * 2**20
    length, found = 2 * config.audio_config.max_source_positions, []
    for items in (2, 16):
        inputs = (
            {"pixel_values_videos": torch.randn(1, items, 3, 112, 112)}
            if kind == "vision_config"
            else {"input_features": torch.randn(1, 80, items * length)}
        )
        with torch.no_grad(), Allocated() as allocated:
            out = model.encode(**inputs)
        found.append(allocated.most - sum(value.nbytes for value in out.values()))
    assert 0.3 * limit < found[0] < limit
    # Over that, only the results of the calls before, until they are put in their places.
    assert found[1] - found[0] < 0.1 * limit + 2 * sum(value.nbytes for value in out.values())

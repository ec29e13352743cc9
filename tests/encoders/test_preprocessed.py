"""Encoders without preprocessing of their own, built from a configuration, and trained in part."""

from typing import Any

import pytest
import torch
from transformers import CLIPImageProcessor, CLIPVisionConfig, ResNetConfig, TimmWrapperConfig, WhisperFeatureExtractor
from transformers.image_processing_utils import BaseImageProcessor

from avfusion import InvalidTypeError, InvalidValueError, Video
from avfusion.encoders import (
    HFVisionEncoder,
    InstructBlipVisualEncoder,
    TimmVisualEncoder,
    WhisperAudioEncoder,
    preprocess_videos,
)
from tests.encoders import tiny

OWN_SIZE = ("clip", "siglip", "dinov3", "swin")  # of which the configuration states the processor's size

FAMILIES = ("hf", "instructblip", "whisper", *(f"timm_{family}" for family in tiny.TIMM))


def without_processor(encoder: Any) -> Any:
    """The same encoder, for pixels that an image processor has made."""
    if isinstance(encoder, HFVisionEncoder):
        return HFVisionEncoder(model=encoder.model)
    encoder.image_processor = None
    return encoder


@pytest.mark.parametrize("name", [*OWN_SIZE, "instructblip"])
def test_pixels_of_the_image_processor_give_the_tokens_of_raw_ones(name: str) -> None:
    encoder, raw = tiny.VISUAL[name](), tiny.film(3, 1)
    made = encoder.preprocess(raw.pixels.flatten(0, 1)).unflatten(0, raw.mask.shape)
    expected, options = encoder(raw), encoder.image_size
    bare = without_processor(encoder)
    assert bare.image_size == options
    found = bare(raw._replace(pixels=made))
    torch.testing.assert_close(found.tokens, expected.tokens)
    with pytest.raises(InvalidValueError, match=r"pixels: must be of an image processor's float output of \("):
        bare(raw)
    with pytest.raises(InvalidValueError, match=r"found torch\.float32 of "):
        bare(raw._replace(pixels=made[..., 1:]))


def test_clips_of_any_sizes_are_prepared_for_an_encoder_without_a_processor() -> None:
    encoder = tiny.picture("siglip")
    small, large = tiny.film(3, 1, size=(32, 32)), tiny.film(2, size=(40, 40))
    gap = large._replace(mask=torch.tensor([[False, True]]))
    made = preprocess_videos([small, None, gap], encoder.image_processor)
    assert made.mask.tolist() == [[True] * 3, [True, False, False], [False] * 3, [True, False, False]]
    found = HFVisionEncoder(model=encoder.model)(made)
    torch.testing.assert_close(found.tokens[:2], encoder(small).tokens)
    assert not found.tokens[2].any()
    torch.testing.assert_close(found.tokens[3, 0], encoder(large).tokens[0, 1])
    assert torch.equal(made.spans[3, 0], large.spans[0, 1])
    floats = small._replace(pixels=small.pixels / 255)
    torch.testing.assert_close(preprocess_videos([floats], encoder.image_processor).pixels, made.pixels[:2])


def test_what_cannot_be_prepared_is_told() -> None:
    processor = tiny.picture("siglip").image_processor
    with pytest.raises(InvalidValueError, match=r"videos: must have frames .*, found no frame at all"):
        preprocess_videos([None], processor)
    free = CLIPImageProcessor(size={"shortest_edge": 32}, do_center_crop=False)
    with pytest.raises(InvalidValueError, match=r"makes one size, found \(3, 32, 32\) and \(3, 32, 48\)"):
        preprocess_videos([tiny.film(1, size=(20, 30)), tiny.film(1, size=(20, 20))], free)


def test_a_model_without_a_size_needs_an_image_processor() -> None:
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    with pytest.raises(InvalidValueError, match="image_processor: must be given for ResNetConfig"):
        HFVisionEncoder.from_config(config)


def test_processors_of_another_kind_are_refused_by_name() -> None:
    with pytest.raises(InvalidTypeError, match="found BaseImageProcessor; for a timm model, use TimmVisualEncoder"):
        HFVisionEncoder(model=tiny.picture().model, image_processor=BaseImageProcessor())


def built(family: str) -> tuple[Any, Any]:
    """A new encoder and one that has loaded its weights."""
    if family == "hf":
        return HFVisionEncoder.from_config(CLIPVisionConfig(**tiny.VIT), pool=4), tiny.picture(pool=4)
    if family == "instructblip":
        return InstructBlipVisualEncoder.from_config(tiny.blip_config()), tiny.blip()
    if family.startswith("timm"):
        name, options = tiny.TIMM[family.removeprefix("timm_")]
        config = TimmWrapperConfig(architecture=name, model_args={**options, "num_classes": 10})  # of a head
        size = tiny.VISUAL[family]().image_size
        return TimmVisualEncoder.from_config(config, image_size=size), tiny.VISUAL[family]()
    extractor = WhisperFeatureExtractor(feature_size=8)
    return WhisperAudioEncoder.from_config(tiny.whisper_config(), feature_extractor=extractor), tiny.whisper()


@pytest.mark.parametrize("family", FAMILIES)
def test_from_a_configuration_it_is_the_encoder_with_other_weights(family: str) -> None:
    new, old = built(family)
    assert new.frozen
    new.load_state_dict(old.state_dict())
    given = tiny.clips(12000) if family == "whisper" else tiny.film(2)
    expected = old(given).tokens
    if isinstance(given, Video) and not family.startswith("timm"):  # which normalises by itself
        given = given._replace(pixels=old.preprocess(given.pixels[0])[None])
    torch.testing.assert_close(new.eval()(given).tokens, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_on_the_meta_device_it_has_no_weights_yet(family: str) -> None:
    with torch.device("meta"):
        new, old = built(family)
    assert all(value.is_meta for value in new.parameters())
    assert {name: value.shape for name, value in new.state_dict().items()} == {
        name: value.shape for name, value in old.state_dict().items()
    }


def test_new_queries_are_not_alike() -> None:
    queries = InstructBlipVisualEncoder.from_config(tiny.blip_config()).query_tokens[0]
    assert queries.std(0).min() > 0


def test_what_is_frozen_in_a_trained_encoder_stays_in_evaluation_mode() -> None:
    encoder = tiny.blip(frozen=False)
    encoder.vision_model.requires_grad_(False)
    encoder.train()
    assert encoder.qformer.training
    assert not encoder.vision_model.training
    seen: list[bool] = []
    encoder.vision_model.register_forward_hook(lambda _, __, out: seen.append(out.last_hidden_state.requires_grad))
    encoder(tiny.film(2)).tokens.sum().backward()
    assert seen == [False]
    assert encoder.query_tokens.grad is not None


@pytest.mark.parametrize("name", ["whisper", "siglip", "instructblip", "timm_vit"])
def test_one_with_nothing_to_train_keeps_no_graph_whatever_hooks_ask(name: str) -> None:
    encoder = {**tiny.AUDIO, **tiny.VISUAL}[name](frozen=False)
    encoder.requires_grad_(False)
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d):  # as enable_input_require_grads does with embeddings
            module.register_forward_hook(lambda _, __, out: out.requires_grad_(True))
    assert not encoder(tiny.clips(12000) if name in tiny.AUDIO else tiny.film(2)).tokens.requires_grad

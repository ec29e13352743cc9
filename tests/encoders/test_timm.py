"""timm's models: patches or maps of the whole picture, normalised as the model was trained."""

import pytest
import timm
import torch
import torch.nn.functional as F

from avfusion import InvalidTypeError, InvalidValueError
from avfusion.encoders import TimmVisualEncoder
from tests.encoders import tiny


@pytest.mark.parametrize("family", tiny.TIMM)
def test_equals_timm(family: str) -> None:
    encoder = tiny.timm_picture(family)
    video = tiny.film(2, size=encoder.image_size)
    config = timm.data.resolve_model_data_config(encoder.model)
    mean, std = (torch.tensor(config[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    features = encoder.model.forward_features((video.pixels[0] / 255 - mean) / std)
    wanted = {
        "vit": lambda: features[:, 1:],
        "nchw": lambda: features.flatten(2).transpose(1, 2),
        "nhwc": lambda: features.flatten(1, 2),
    }[family]()
    torch.testing.assert_close(encoder(video).tokens[0], wanted, atol=1e-5, rtol=0)


def test_prefix_tokens_can_be_kept() -> None:
    encoder = tiny.timm_picture(keep_prefix_tokens=True)
    dropped = tiny.timm_picture()
    dropped.load_state_dict(encoder.state_dict())
    video = tiny.film(2)
    assert encoder.tokens_per_frame == dropped.tokens_per_frame + 1
    assert torch.equal(encoder(video).tokens[:, :, 1:], dropped(video).tokens)


def test_the_whole_picture_is_resized() -> None:
    encoder = tiny.timm_picture()
    video = tiny.film(2, size=(20, 80))
    video = video._replace(pixels=(video.pixels > 127).to(torch.uint8) * 255)  # hard edges make bicubic overshoot
    pixels = F.interpolate(video.pixels[0] / 255, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    wanted = encoder(video._replace(pixels=pixels[None]))
    torch.testing.assert_close(encoder(video).tokens, wanted.tokens, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", [-1, -2, 0])
@pytest.mark.parametrize("family", tiny.TIMM)
def test_a_layer_equals_timm_s(family: str, layer: int) -> None:
    encoder = tiny.timm_picture(family, select_layer=layer)
    video = tiny.film(2, size=encoder.image_size)
    (wanted,) = encoder.model.forward_intermediates(
        encoder.preprocess(video.pixels[0]), indices=[layer], intermediates_only=True
    )
    wanted = wanted.flatten(2).transpose(1, 2)
    assert (encoder.tokens_per_frame, encoder.output_dim) == wanted.shape[1:]
    torch.testing.assert_close(encoder(video).tokens[0], wanted, atol=1e-5, rtol=0)


def test_a_layer_comes_with_its_prefix_tokens() -> None:
    encoder = tiny.timm_picture(select_layer=-1, keep_prefix_tokens=True)
    last = tiny.timm_picture(keep_prefix_tokens=True)
    last.load_state_dict(encoder.state_dict())
    video = tiny.film(2)
    torch.testing.assert_close(encoder.model.norm(encoder(video).tokens), last(video).tokens, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", [None, -1])
@pytest.mark.parametrize("family", tiny.TIMM)
def test_pooling_averages_the_grid(family: str, layer: int | None) -> None:
    encoder = tiny.timm_picture(family, select_layer=layer, pool=(1, 2))
    whole = tiny.timm_picture(family, select_layer=layer)
    whole.load_state_dict(encoder.state_dict())
    video = tiny.film(2, size=encoder.image_size)
    tokens = whole(video).tokens[0]
    side = int(whole.tokens_per_frame**0.5)
    halves = tokens.reshape(2, side, 2, side // 2, -1).mean((1, 3))
    torch.testing.assert_close(encoder(video).tokens[0], halves, atol=1e-5, rtol=0)


def test_pooling_leaves_prefix_tokens_alone() -> None:
    encoder = tiny.timm_picture(pool=1, keep_prefix_tokens=True)
    whole = tiny.timm_picture(keep_prefix_tokens=True)
    whole.load_state_dict(encoder.state_dict())
    video = tiny.film(2)
    prefix, patches = whole(video).tokens[0].split([1, 16 // 4], 1)
    wanted = torch.cat([prefix, patches.mean(1, keepdim=True)], 1)
    torch.testing.assert_close(encoder(video).tokens[0], wanted, atol=1e-5, rtol=0)


def test_refuses_layers_and_pools_that_are_not_there() -> None:
    with pytest.raises(InvalidValueError, match=r"select_layer: must be a layer of VisionTransformer, found 9"):
        tiny.timm_picture(select_layer=9)
    for pool in (0, 9, (3, 1)):
        with pytest.raises(InvalidValueError, match=r"pool: must be a grid of at most 2 × 2 patches"):
            tiny.timm_picture(pool=pool)


def test_image_size_can_be_given() -> None:
    encoder = TimmVisualEncoder(model=tiny.timm_model("nchw"), image_size=(64, 96))
    assert (encoder.tokens_per_frame, encoder.output_dim) == (6, 16)
    assert encoder(tiny.film(1)).tokens.shape == (1, 1, 6, 16)


def test_refuses_what_is_not_timm() -> None:
    with pytest.raises(InvalidTypeError, match=r"model: must be a timm model with forward_features, found Linear"):
        TimmVisualEncoder(model=torch.nn.Linear(2, 2))

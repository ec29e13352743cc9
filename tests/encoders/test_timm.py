"""timm's models: patches or maps of the whole picture, normalised as the model was trained."""

import pytest
import timm
import torch
import torch.nn.functional as F

from avfusion import InvalidTypeError
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


def test_image_size_can_be_given() -> None:
    encoder = TimmVisualEncoder(model=tiny.timm_model("nchw"), image_size=(64, 96))
    assert (encoder.tokens_per_frame, encoder.output_dim) == (6, 16)
    assert encoder(tiny.film(1)).tokens.shape == (1, 1, 6, 16)


def test_refuses_what_is_not_timm() -> None:
    with pytest.raises(InvalidTypeError, match=r"model: must be a timm model with forward_features, found Linear"):
        TimmVisualEncoder(model=torch.nn.Linear(2, 2))

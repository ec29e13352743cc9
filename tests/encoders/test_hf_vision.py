"""Vision encoders of transformers: the patches, in the layer and in the number that was asked for."""

import pytest
import torch
import torch.nn.functional as F
from transformers import BitImageProcessor, CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from avfusion import InvalidValueError, Video
from avfusion.encoders import HFVisionEncoder
from tests.encoders import tiny

PREFIX = {"clip": 1, "siglip": 0, "dinov2": 1, "dinov3": 5}


def hidden(encoder: HFVisionEncoder, video: Video, layer: int | None = None) -> torch.Tensor:
    """What transformers gives for the pictures of a one-clip video."""
    pixels = encoder.image_processor(list(video.pixels[0]), return_tensors="pt")["pixel_values"]
    output = encoder.model(pixels, output_hidden_states=True)
    return output.last_hidden_state if layer is None else output.hidden_states[layer]


@pytest.mark.parametrize("layer", [None, -2, 0])
@pytest.mark.parametrize("family", PREFIX)
def test_equals_transformers_without_class_tokens(family: str, layer: int | None) -> None:
    encoder = tiny.picture(family, select_layer=layer)
    video = tiny.film(3)
    wanted = hidden(encoder, video, layer)[:, PREFIX[family] :]
    assert encoder.tokens_per_frame == 16
    torch.testing.assert_close(encoder(video).tokens[0], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", PREFIX)
def test_class_tokens_can_be_kept(family: str) -> None:
    encoder = tiny.picture(family, keep_prefix_tokens=True, pool=(1, 1))
    video = tiny.film(2)
    wanted = hidden(encoder, video)
    prefix, patches = wanted[:, : PREFIX[family]], wanted[:, PREFIX[family] :]
    assert encoder.tokens_per_frame == PREFIX[family] + 1
    pooled = torch.cat([prefix, patches.mean(1, keepdim=True)], 1)
    torch.testing.assert_close(encoder(video).tokens[0], pooled, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("pool", "grid"), [(4, (2, 2)), (8, (2, 4)), (3, (1, 3)), ((4, 1), (4, 1)), (16, (4, 4))])
def test_pooling_averages_neighbouring_patches(pool: int | tuple[int, int], grid: tuple[int, int]) -> None:
    encoder = tiny.picture(pool=pool)
    video = tiny.film(2)
    maps = hidden(encoder, video)[:, 1:].reshape(2, 4, 4, 16)
    edges = [[(4 * i // n, -(-4 * (i + 1) // n)) for i in range(n)] for n in grid]
    wanted = torch.stack([maps[:, a:b, c:d].mean((1, 2)) for a, b in edges[0] for c, d in edges[1]], 1)
    assert encoder.tokens_per_frame == grid[0] * grid[1]
    torch.testing.assert_close(encoder(video).tokens[0], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["convnext", "swin"])
def test_maps_and_merged_patches_are_rows_of_tokens(family: str) -> None:
    encoder = tiny.picture(family)
    video = tiny.film(2)
    wanted = hidden(encoder, video)
    wanted = wanted.flatten(2).transpose(1, 2) if wanted.ndim == 4 else wanted
    torch.testing.assert_close(encoder(video).tokens[0], wanted, atol=1e-5, rtol=0)
    first = tiny.picture(family, pool=(1, 2))
    first.load_state_dict(encoder.state_dict())
    rows, columns = (2, 3) if family == "convnext" else (4, 4)
    maps = F.adaptive_avg_pool2d(wanted.transpose(1, 2).reshape(2, 16, rows, columns), (1, 2))
    torch.testing.assert_close(first(video).tokens[0], maps.flatten(2).transpose(1, 2), atol=1e-5, rtol=0)


def test_dual_encoder_gives_its_vision_tower() -> None:
    encoder = tiny.picture("clip_both")
    assert not [key for key in encoder.state_dict() if "text" in key]


def test_pictures_of_another_size_than_the_model_s_get_interpolated_positions() -> None:
    model = CLIPVisionModel(CLIPVisionConfig(**{**tiny.VIT, "image_size": 48})).eval()
    encoder = HFVisionEncoder(model=model, image_processor=CLIPImageProcessor(**tiny.CROP))
    video = tiny.film(2)
    pixels = encoder.image_processor(list(video.pixels[0]), return_tensors="pt")["pixel_values"]
    wanted = model(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder(video).tokens[0], wanted, atol=1e-5, rtol=0)


def test_refuses_what_it_cannot_give() -> None:
    make = {"model": CLIPVisionModel(CLIPVisionConfig(**tiny.VIT)), "image_processor": CLIPImageProcessor(**tiny.CROP)}
    with pytest.raises(InvalidValueError, match=r"select_layer: must be between -3 and 2, found 3"):
        HFVisionEncoder(**make, select_layer=3)
    for pool in (0, 5, 32, (5, 1), (0, 2)):
        with pytest.raises(InvalidValueError, match=r"pool: must be a grid of at most 4 × 4 patches"):
            HFVisionEncoder(**make, pool=pool)
    free = BitImageProcessor(size={"shortest_edge": 32}, do_center_crop=False)
    with pytest.raises(InvalidValueError, match=r"image_processor: must make every image .* of one size"):
        HFVisionEncoder(**{**make, "image_processor": free})

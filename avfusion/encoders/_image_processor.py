"""Transformers' image processors on tensors."""

from typing import Any

import torch
from torch import Tensor

from avfusion.errors import InvalidValueError


def process(processor: Any, pixels: Tensor, device: torch.device) -> Tensor:
    """Applies a transformers image processor to ``(image, 3, height, width)``, on ``device``."""
    floating = pixels.is_floating_point()
    features = processor(
        images=list(pixels.to(device, torch.float32 if floating else None)),
        do_rescale=processor.do_rescale and not floating,  # 0 … 1 already
        input_data_format="channels_first",
        device=device,
        return_tensors="pt",
    )
    return features["pixel_values"].to(device)


def processed_size(processor: Any) -> tuple[int, int]:
    """Height and width of an image processor's output."""
    found = [
        process(processor, torch.zeros(1, 3, *size, dtype=torch.uint8), torch.device("cpu"))
        for size in ((32, 48), (48, 32))
    ]
    if found[0].ndim != 4 or found[0].shape != found[1].shape:
        shapes = " and ".join(str(tuple(pixels.shape)) for pixels in found)
        raise InvalidValueError(
            f"image_processor: must make every image (1, 3, height, width) of one size, found {shapes} "
            "for a wide and a high one; give it a fixed size, or let it crop"
        )
    return found[0].shape[2], found[0].shape[3]

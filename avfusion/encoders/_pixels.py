"""Pictures: from any size, uint8 or 0 … 1, to what a tower takes; only real frames are looked at."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from avfusion.encoders._base import PretrainedEncoder, place
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types import Frames, Video


def process(processor: Any, pixels: Tensor, device: torch.device) -> Tensor:
    """``(picture, 3, height, width)`` through an image processor of transformers, on ``device``."""
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
    """Height and width that an image processor makes of every picture."""
    found = [
        process(processor, torch.zeros(1, 3, *size, dtype=torch.uint8), torch.device("cpu"))
        for size in ((32, 48), (48, 32))
    ]
    if found[0].ndim != 4 or found[0].shape != found[1].shape:
        shapes = " and ".join(str(tuple(pixels.shape)) for pixels in found)
        raise InvalidValueError(
            f"image_processor: must make every picture (1, 3, height, width) of one size, found {shapes} "
            "for a wide and a high one; give it a fixed size, or let it crop"
        )
    return found[0].shape[2], found[0].shape[3]


def output_shape(model: nn.Module, call: Callable[..., Any], size: tuple[int, int], **options: Any) -> torch.Size:
    """Shape of ``call(model's output)`` for one picture of ``size``, without computing it."""
    modes = {module: module.training for module in model.modules()}
    weights = {name: value.detach().to("meta") for name, value in (*model.named_parameters(), *model.named_buffers())}
    try:
        with torch.no_grad():
            dtype = next(value.dtype for value in weights.values() if value.is_floating_point())
            pixels = torch.empty(1, 3, *size, device="meta", dtype=dtype)
            return call(torch.func.functional_call(model.eval(), weights, (pixels,), options)).shape
    finally:
        for module, mode in modes.items():
            module.training = mode


class PictureEncoder(PretrainedEncoder):
    """A tower for pictures, frame by frame."""

    output_dim: int
    tokens_per_frame: int

    def _encode_frames(self, video: Video, encode: Callable[..., Tensor], *per_clip: Tensor) -> Frames:
        """Real frames through ``encode(pixels, *rows)``, with each clip's row of ``per_clip`` beside its frames."""
        if not isinstance(video, Video):
            raise InvalidTypeError(f"video: must be an avfusion.Video, found {type(video).__name__}")
        rows = torch.nonzero(video.mask)[:, 0]
        given = [value[rows.to(value.device)] for value in per_clip]
        pixels = video.pixels.flatten(0, 1) if len(rows) == video.mask.numel() else video.pixels[video.mask]
        mask = video.mask.to(self.device)
        tokens = place(self._in_groups(encode, pixels, *given), mask)
        return Frames(tokens, mask[..., None].expand(tokens.shape[:3]), video.spans.to(self.device))

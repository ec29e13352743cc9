"""Transformers' image processors on tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types import Video
from avfusion.types.clock import time_dtype


def process(processor: Any, pixels: Tensor, device: torch.device, size: tuple[int, int] | None = None) -> Tensor:
    """Applies a transformers image processor to ``(image, 3, height, width)``, on ``device``.

    Without a processor, the pixels must come as one made them, of ``size``.
    """
    if processor is None:
        if not pixels.is_floating_point() or tuple(pixels.shape[2:]) != size:
            raise InvalidValueError(
                f"pixels: must be of an image processor's float output of {size}, as the encoder has none of its own, "
                f"found {pixels.dtype} of {tuple(pixels.shape[2:])}"
            )
        return pixels.to(device)
    floating = pixels.is_floating_point()
    features = processor(
        images=list(pixels.to(device, torch.float32 if floating else None)),
        do_rescale=processor.do_rescale and not floating,  # 0 … 1 already
        input_data_format="channels_first",
        device=device,
        return_tensors="pt",
    )
    return features["pixel_values"].to(device)


def preprocess_videos(videos: Sequence[Video | None], image_processor: Any) -> Video:
    """The real frames of clips, as an image processor makes them, in one batch.

    It is what encoders without an image processor take, so that a data loader can do the work; the counterpart of
    :func:`log_mel_chunks`.

    Args:
        videos: of any sizes; each may be a batch of clips, ``None`` is one clip without frames.
        image_processor: of transformers; must make all frames one size.

    Returns:
        ``pixels`` ``(clip, frame, 3, height, width)``, zero where masked, real frames first, and their ``spans``.

    Raises:
        InvalidValueError: no clip with a frame, or frames of different sizes.

    Example:
        >>> import torch
        >>> from transformers import CLIPImageProcessor
        >>> from avfusion import Video
        >>> from avfusion.encoders import preprocess_videos
        >>> film = Video.from_rate(torch.zeros(1, 3, 3, 40, 60, dtype=torch.uint8), frame_rate=2.0)
        >>> made = preprocess_videos([film, None], CLIPImageProcessor())
        >>> made.pixels.shape, made.mask.sum(1).tolist()
        (torch.Size([2, 3, 3, 224, 224]), [3, 0])
    """
    pixels: list[Tensor | None] = []
    spans: list[Tensor] = []
    for video in videos:
        for row in range(1 if video is None else len(video.mask)):
            real = None if video is None else video.mask[row]
            if video is None or real is None or not real.any():
                pixels.append(None)
                spans.append(torch.zeros(0, 2, dtype=time_dtype(torch.device("cpu"))))
                continue
            pixels.append(process(image_processor, video.pixels[row][real], torch.device("cpu")))
            spans.append(video.spans[row][real].cpu())
    shapes = {tuple(one.shape[1:]) for one in pixels if one is not None}
    if len(shapes) != 1:
        found = " and ".join(map(str, sorted(shapes))) or "no frame at all"
        raise InvalidValueError(f"videos: must have frames that image_processor makes one size, found {found}")
    blank = torch.zeros(0, *shapes.pop())
    filled = [blank if one is None else one for one in pixels]
    mask = [torch.ones(len(one), dtype=torch.bool) for one in filled]
    padded = (torch.nn.utils.rnn.pad_sequence(values, batch_first=True) for values in (filled, mask, spans))
    return Video(*padded)


def processed_size(processor: Any, config: Any) -> tuple[int, int]:
    """Height and width of an image processor's output; without one, of the input that a model is configured for."""
    if processor is None:
        size = getattr(config, "image_size", None)
        if size is None:
            raise InvalidValueError(
                f"image_processor: must be given for {type(config).__name__}, which has no image_size"
            )
        return (size, size) if isinstance(size, int) else (size[0], size[1])
    if not hasattr(processor, "do_rescale"):
        raise InvalidTypeError(
            f"image_processor: must be one of transformers' own, found {type(processor).__name__}; "
            "for a timm model, use TimmVisualEncoder"
        )
    found = [
        process(processor, torch.zeros(1, 3, *size, dtype=torch.uint8, device="cpu"), torch.device("cpu"))
        for size in ((32, 48), (48, 32))
    ]
    if found[0].ndim != 4 or found[0].shape != found[1].shape:
        shapes = " and ".join(str(tuple(pixels.shape)) for pixels in found)
        raise InvalidValueError(
            f"image_processor: must make every image (1, 3, height, width) of one size, found {shapes} "
            "for a wide and a high one; give it a fixed size, or let it crop"
        )
    return found[0].shape[2], found[0].shape[3]

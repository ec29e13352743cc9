"""Shared by visual encoders: only real frames are encoded; any size, uint8 or 0 … 1."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from avfusion.encoders._base import PretrainedEncoder
from avfusion.errors import InvalidTypeError
from avfusion.functional import scatter_masked
from avfusion.types import Frames, Video


class VisualTower(PretrainedEncoder):
    """An encoder of single frames: :meth:`preprocess`, then :meth:`encode`."""

    output_dim: int
    tokens_per_frame: int

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Resizes, crops and normalises images to the model's input, in its dtype on its device.

        Args:
            pixels: ``(image, 3, height, width)`` of any size, uint8 or in 0 … 1.

        Returns:
            ``(image, 3, height, width)`` of the model's size.
        """
        raise NotImplementedError

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Encodes images in one call.

        Args:
            pixel_values: ``(image, 3, height, width)`` from :meth:`preprocess`.

        Returns:
            ``(image, tokens_per_frame, output_dim)``.
        """
        raise NotImplementedError

    def forward(self, video: Video) -> Frames:
        """Encodes every real frame.

        Args:
            video: frames of any size, on any device.

        Returns:
            Tokens ``(batch, frame, tokens_per_frame, output_dim)`` of the model's dtype on its device, zero where
            masked, with the spans of the video.

        Raises:
            InvalidTypeError: ``video`` is not a :class:`~avfusion.Video`.
        """
        return self._encode_frames(video, self.encode)

    def _encode_frames(self, video: Video, encode: Callable[..., Tensor], *per_clip: Tensor) -> Frames:
        """Applies ``encode(pixel_values, *rows)`` to real frames, with their clip's row of each of ``per_clip``."""
        if not isinstance(video, Video):
            raise InvalidTypeError(f"video: must be an avfusion.Video, found {type(video).__name__}")
        rows = torch.nonzero(video.mask)[:, 0]
        given = [value[rows.to(value.device)] for value in per_clip]
        pixels = video.pixels.flatten(0, 1) if len(rows) == video.mask.numel() else video.pixels[video.mask]
        mask = video.mask.to(self.device)
        tokens = self._in_groups(lambda shown, *said: encode(self.preprocess(shown), *said), pixels, *given)
        tokens = scatter_masked(tokens, mask)
        return Frames(tokens, mask[..., None].expand(tokens.shape[:3]), video.spans.to(self.device))


def output_shape(model: nn.Module, call: Callable[..., Any], size: tuple[int, int], **options: Any) -> torch.Size:
    """Shape of ``call(model's output)`` for one image of ``size``, without computing it."""
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

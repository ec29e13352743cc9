"""Any model of timm, frame by frame."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avfusion.encoders._pixels import PictureEncoder, output_shape
from avfusion.errors import InvalidTypeError
from avfusion.types import Frames, Video


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ImportError("TimmVisualEncoder needs timm: pip install avfusion[hf]") from error
    return timm


class _Features(nn.Module):
    """``forward_features`` as the call."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.forward_features(pixels)


class TimmVisualEncoder(PictureEncoder):
    """A timm model: the patch tokens of a transformer, or the last feature map of a convolutional network, row by row.

    Each picture is resized, as a whole, to the size the model was made for (timm's own evaluation crops the borders,
    which in a video often matter), and normalised with the model's mean and deviation. Only real frames are encoded.

    Args:
        model: any timm model with ``forward_features``; its head is not used.
        image_size: height and width of the pictures the model gets; its own without it.
        keep_prefix_tokens: keep class and register tokens, before the patches.
        frame_batch_size: frames that run at once.
        frozen: no gradients, no graph, always in evaluation mode. Marks the parameters of ``model`` itself.

    Raises:
        InvalidTypeError: ``model`` has no ``forward_features``.

    Example:
        >>> import timm, torch
        >>> from avfusion import Video
        >>> from avfusion.encoders import TimmVisualEncoder
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, pretrained=False)
        >>> vision = TimmVisualEncoder(model=model)
        >>> frames = vision(Video.from_rate(torch.zeros(1, 3, 3, 40, 60, dtype=torch.uint8), frame_rate=2.0))
        >>> frames.tokens.shape, vision.tokens_per_frame
        (torch.Size([1, 3, 4, 192]), 4)
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        image_size: tuple[int, int] | None = None,
        keep_prefix_tokens: bool = False,
        frame_batch_size: int = 32,
        frozen: bool = True,
    ) -> None:
        super().__init__(group_size=frame_batch_size, group_name="frame_batch_size", frozen=frozen)
        if not hasattr(model, "forward_features"):
            raise InvalidTypeError(f"model: must be a timm model with forward_features, found {type(model).__name__}")
        self.model: Any = model
        self.keep_prefix_tokens = keep_prefix_tokens
        config = _timm().data.resolve_model_data_config(model)
        # The patch embedding knows of an img_size given to create_model; the pretrained configuration does not.
        own = getattr(getattr(model, "patch_embed", None), "img_size", None) or config["input_size"][1:]
        self.image_size: tuple[int, int] = tuple(image_size or own)
        self._mean, self._std = config["mean"], config["std"]
        self._interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
        self._channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        self._prefix: int = getattr(model, "num_prefix_tokens", 0)
        shape = output_shape(_Features(model), self._tokens, self.image_size)
        self.tokens_per_frame: int = shape[1]
        self.output_dim: int = shape[2]
        self._settle(model)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        image_size: tuple[int, int] | None = None,
        keep_prefix_tokens: bool = False,
        frame_batch_size: int = 32,
        frozen: bool = True,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> Self:
        """Loads a pretrained model through ``timm.create_model``.

        Args:
            name: for example ``"vit_base_patch16_224"``, ``"hf-hub:user/model"`` or ``"local-dir:path"``.
            image_size: as in the constructor, and so are the next three.
            keep_prefix_tokens: as in the constructor.
            frame_batch_size: as in the constructor.
            frozen: as in the constructor.
            dtype: of the parameters; float32 without it.
            options: for ``timm.create_model``.
        """
        model = _timm().create_model(name, **{"pretrained": True, "num_classes": 0, **options}).eval()
        return cls(
            model=model.to(dtype),
            image_size=image_size,
            keep_prefix_tokens=keep_prefix_tokens,
            frame_batch_size=frame_batch_size,
            frozen=frozen,
        )

    def forward(self, video: Video) -> Frames:
        """Encodes every real frame.

        Args:
            video: pictures of any size, on any device.

        Returns:
            Tokens ``(batch, frame, tokens_per_frame, output_dim)`` of the model's dtype on its device, zero where
            masked, with the spans of the video.

        Raises:
            InvalidTypeError: ``video`` is not a :class:`~avfusion.Video`.
        """
        return self._encode_frames(video, self._encode)

    def _encode(self, pixels: Tensor) -> Tensor:
        return self._tokens(self.model.forward_features(self._normalise(pixels)))

    def _normalise(self, pixels: Tensor) -> Tensor:
        values = pixels.to(self.device, torch.float32)
        if not pixels.is_floating_point():
            values = values / 255
        if values.shape[2:] != self.image_size:
            values = F.interpolate(values, self.image_size, mode=self._interpolation, antialias=True).clamp(0, 1)
        mean, std = values.new_tensor([self._mean, self._std])[..., None, None]
        return ((values - mean) / std).to(self.dtype)

    def _tokens(self, features: Tensor) -> Tensor:
        if features.ndim == 4:
            return (features if self._channels_last else features.permute(0, 2, 3, 1)).flatten(1, 2)
        if features.ndim == 2:
            return features[:, None]
        return features if self.keep_prefix_tokens else features[:, self._prefix :]

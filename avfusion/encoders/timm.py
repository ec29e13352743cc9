"""timm models, applied to each frame."""

from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avfusion.encoders._loading import split_options
from avfusion.encoders._timm_call import TimmCall, lay_patches
from avfusion.encoders._timm_loading import import_timm, load_timm
from avfusion.encoders._visual import VisualTower


class TimmVisualEncoder(VisualTower):
    """A timm model: the patch tokens of a transformer, or the last feature map of a convolutional network, row by row.

    Each image is resized without cropping to the model's input size (timm's evaluation crops the borders, which often
    matter in a video), and normalised with the model's mean and standard deviation. Only real frames are encoded.

    Args:
        model: any timm model with ``forward_features``; its head is not used.
        image_size: height and width of the model's input; the model's own by default.
        select_layer: use the features of this layer, as counted by the model's ``forward_intermediates``: blocks of a
            transformer, stages of others (``-2``: before the last one); ``None``: the model's output, with its norm.
        keep_prefix_tokens: return class and register tokens too, before the patches.
        pool: average-pool the patch grid or feature map to this many tokens, or to ``(rows, columns)``. A number is
            split into the squarest grid: 32 is 4 × 8.
        frame_batch_size: frames per call of the model.
        frozen: no gradients, always in evaluation mode. Sets ``requires_grad`` of ``model``'s own parameters.

    Raises:
        InvalidTypeError: ``model`` has no ``forward_features``, or no ``forward_intermediates`` for a layer.
        InvalidValueError: ``pool`` is larger than the patch grid, or the model has no ``select_layer``.

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
        select_layer: int | None = None,
        keep_prefix_tokens: bool = False,
        pool: int | tuple[int, int] | None = None,
        frame_batch_size: int = 32,
        frozen: bool = True,
    ) -> None:
        super().__init__(group_size=frame_batch_size, group_name="frame_batch_size", frozen=frozen)
        self._call = TimmCall.of(model, select_layer)
        self.model: Any = model
        self.keep_prefix_tokens = keep_prefix_tokens
        config = import_timm().data.resolve_model_data_config(model)
        # An img_size passed to create_model is in the patch embedding, not in the pretrained configuration.
        own = getattr(getattr(model, "patch_embed", None), "img_size", None) or config["input_size"][1:]
        self.image_size: tuple[int, int] = tuple(image_size or own)
        self._mean, self._std = config["mean"], config["std"]
        self._interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
        patches, self.output_dim = lay_patches(model, self._call, self.image_size, keep_prefix=keep_prefix_tokens)
        self._patches = patches.pooled(pool)
        self.tokens_per_frame: int = self._patches.tokens
        self._settle(model)

    @classmethod
    def from_pretrained(
        cls, name: str, *, checkpoint_path: str | Path | None = None, dtype: torch.dtype | None = None, **options: Any
    ) -> Self:
        """Loads a pretrained model through ``timm.create_model``.

        Args:
            name: for example ``"vit_base_patch16_224"``, ``"hf-hub:user/model"`` or ``"local-dir:path"``.
            checkpoint_path: safetensors file of the weights of the architecture ``name``, with any head or none.
            dtype: dtype of the parameters; float32 by default.
            **options: the constructor's arguments; all others are passed to ``timm.create_model``. A transformer's
                positions are interpolated to ``image_size``.

        Raises:
            CheckpointError: the checkpoint lacks weights of the model, or has others.
            InvalidValueError: a ``checkpoint_path`` that is not a safetensors file.
        """
        own, options = split_options(cls, options)
        model = load_timm(name, own.get("image_size"), checkpoint_path, options)
        return cls(model=model.to(dtype), **own)

    @classmethod
    def from_config(cls, config: Any, **options: Any) -> Self:
        """A new encoder with random weights.

        Args:
            config: ``TimmWrapperConfig`` of transformers, of which ``architecture`` and ``model_args`` count, and
                ``pretrained_cfg`` (mean, input size, …), if it has one.
            **options: the constructor's arguments except ``model``.
        """
        overlay = getattr(config, "pretrained_cfg", None)
        arguments = {
            **(config.model_args or {}),
            "pretrained": False,
            "num_classes": 0,
            "pretrained_cfg_overlay": overlay,
        }
        return cls(model=import_timm().create_model(config.architecture, **arguments), **options)

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Images, resized without cropping and normalised: ``(image, 3, height, width)`` of ``image_size``."""
        values = pixels.to(self.device, torch.float32)
        if not pixels.is_floating_point():
            values = values / 255
        if values.shape[2:] != self.image_size:
            values = F.interpolate(values, self.image_size, mode=self._interpolation, antialias=True).clamp(0, 1)
        mean, std = values.new_tensor([self._mean, self._std])[..., None, None]
        return ((values - mean) / std).to(self.dtype)

    def encode(self, pixel_values: Tensor) -> Tensor:
        """``(image, tokens_per_frame, output_dim)`` of images from :meth:`preprocess`, in one call."""
        prefix, patches = self._call(self.model, pixel_values)
        return self._patches.select(torch.cat([prefix, patches.flatten(1, -2)], 1))

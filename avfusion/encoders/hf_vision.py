"""Transformers vision encoders, applied to each frame."""

import inspect
from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, PreTrainedModel

from avfusion.encoders._image_processor import process, processed_size
from avfusion.encoders._loading import body
from avfusion.encoders._patches import Patches, merged_grid
from avfusion.encoders._visual import VisualTower, output_shape
from avfusion.errors import InvalidValueError


class HFVisionEncoder(VisualTower):
    """A transformers vision encoder: CLIP, SigLIP, DINOv2, DINOv3 and similar, or a network with feature maps.

    The tokens of a frame are its patches, row by row. Only real frames are encoded.
    ``HFVisionEncoder.from_pretrained("openai/clip-vit-large-patch14", pool=32)`` loads one.

    Args:
        model: the vision encoder, or a model that contains one; its text encoder or head is dropped.
        image_processor: the model's image processor; resizes, crops and normalises, on the model's device if it
            uses torchvision (the default). Its output must have a fixed size. ``None`` if the pixels of videos come
            as an image processor made them.
        select_layer: use the hidden states of this layer, as ``hidden_states[select_layer]`` (``-2``: before the last
            layer); ``None``: the model's output.
        keep_prefix_tokens: return class and register tokens too, before the patches.
        pool: average-pool the patch grid to this many tokens, or to ``(rows, columns)``. A number is split into the
            squarest grid: 32 is 4 × 8.
        frame_batch_size: frames per call of the model.
        frozen: no gradients, always in evaluation mode. Sets ``requires_grad`` of ``model``'s own parameters.

    Raises:
        InvalidValueError: the output size of ``image_processor`` varies, ``pool`` is larger than the patch
            grid, or the model has no ``select_layer``.

    Example:
        >>> import torch
        >>> from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel
        >>> from avfusion import Video
        >>> from avfusion.encoders import HFVisionEncoder
        >>> config = CLIPVisionConfig(
        ...     hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        ...     image_size=32, patch_size=8,
        ... )
        >>> processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        >>> vision = HFVisionEncoder(model=CLIPVisionModel(config), image_processor=processor, select_layer=-2, pool=4)
        >>> frames = vision(Video.from_rate(torch.zeros(1, 3, 3, 40, 60, dtype=torch.uint8), frame_rate=2.0))
        >>> frames.tokens.shape, vision.tokens_per_frame
        (torch.Size([1, 3, 4, 16]), 4)
    """

    _parts: ClassVar[dict[str, Any]] = {"model": AutoModel, "image_processor": AutoImageProcessor}

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        image_processor: Any = None,
        select_layer: int | None = None,
        keep_prefix_tokens: bool = False,
        pool: int | tuple[int, int] | None = None,
        frame_batch_size: int = 32,
        frozen: bool = True,
    ) -> None:
        super().__init__(group_size=frame_batch_size, group_name="frame_batch_size", frozen=frozen)
        both = hasattr(model.config, "vision_config")
        self.model: Any = model.vision_model if both else body(model, "pixel_values")
        self.image_processor = image_processor
        self.select_layer = select_layer
        config = self.model.config
        self.image_size = size = processed_size(image_processor, config)
        self._options: dict[str, Any] = {} if select_layer is None else {"output_hidden_states": True}
        expected = getattr(config, "image_size", None)
        interpolates = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        if interpolates and size != (expected, expected):
            self._options["interpolate_pos_encoding"] = True
        shape = output_shape(self.model, self._hidden, size, **self._options)
        if len(shape) == 4:
            grid, prefix, self.output_dim = (shape[2], shape[3]), 0, shape[1]
        else:
            grid = merged_grid(shape[1], size, getattr(config, "patch_size", 1))
            prefix, self.output_dim = shape[1] - grid[0] * grid[1], shape[2]
        self._patches = Patches(prefix, grid[0] * grid[1], grid, keep_prefix_tokens).pooled(pool)
        self.tokens_per_frame: int = self._patches.tokens
        self._settle(self.model)

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Applies the image processor to ``(image, 3, height, width)`` pixels."""
        return process(self.image_processor, pixels, self.device, self.image_size).to(self.dtype)

    def encode(self, pixel_values: Tensor) -> Tensor:
        """``(image, tokens_per_frame, output_dim)`` of images from :meth:`preprocess`, in one call."""
        hidden = self._hidden(self.model(pixel_values, **self._options))
        return self._patches.select(hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden)

    def _hidden(self, output: Any) -> Tensor:
        if self.select_layer is None:
            return output.last_hidden_state
        layers = output.hidden_states
        if not -len(layers) <= self.select_layer < len(layers):
            raise InvalidValueError(
                f"select_layer: must be between {-len(layers)} and {len(layers) - 1}, found {self.select_layer}"
            )
        return layers[self.select_layer]

"""Any vision encoder of transformers, frame by frame."""

import inspect
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, PreTrainedModel

from avfusion.encoders._base import body, hub_options, load_pretrained
from avfusion.encoders._pixels import PictureEncoder, output_shape, process, processed_size
from avfusion.errors import InvalidValueError
from avfusion.types import Frames, Video


class HFVisionEncoder(PictureEncoder):
    """A vision encoder of transformers: CLIP, SigLIP, DINOv2 and 3 and their kin, or a network that gives feature maps.

    A frame becomes the tokens of its patches, row by row. Only real frames are encoded.

    Args:
        model: the vision encoder; of a model with a text tower or a head, the vision encoder is taken.
        image_processor: the model's image processor; resizes, crops and normalises, on the model's device if it is
            torchvision's kind (the default kind). It must make every picture one size.
        select_layer: take the hidden states of this layer, as ``hidden_states[select_layer]`` (``-2``: before the last
            layer); ``None``: the model's output.
        keep_prefix_tokens: keep class and register tokens, before the patches.
        pool: average the patch grid to this many tokens, or to ``(rows, columns)``. A number is split into the
            squarest grid: 32 is 4 × 8.
        frame_batch_size: frames that run at once.
        frozen: no gradients, no graph, always in evaluation mode. Marks the parameters of ``model`` itself.

    Raises:
        InvalidValueError: pictures of different sizes come out of ``image_processor``, ``pool`` is larger than the
            patch grid, or the model has no ``select_layer``.

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

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        image_processor: Any,
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
        self.keep_prefix_tokens = keep_prefix_tokens
        size = processed_size(image_processor)
        config = self.model.config
        self._options: dict[str, Any] = {} if select_layer is None else {"output_hidden_states": True}
        expected = getattr(config, "image_size", None)
        if (
            size != (expected, expected)
            and "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        ):
            self._options["interpolate_pos_encoding"] = True
        shape = output_shape(self.model, self._hidden, size, **self._options)
        self._grid, self._prefix = _patch_grid(shape, size, getattr(config, "patch_size", 1))
        self.output_dim: int = shape[1] if len(shape) == 4 else shape[2]
        self._pool = None if pool is None else _pool_grid(pool, self._grid)
        rows, columns = self._pool or self._grid
        self.tokens_per_frame: int = rows * columns + self._prefix * keep_prefix_tokens
        self._settle(self.model)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        select_layer: int | None = None,
        keep_prefix_tokens: bool = False,
        pool: int | tuple[int, int] | None = None,
        frame_batch_size: int = 32,
        frozen: bool = True,
        **options: Any,
    ) -> Self:
        """Loads model and image processor from the hub or a directory.

        Args:
            name: for example ``"openai/clip-vit-large-patch14"``.
            select_layer: as in the constructor, and so are all others but ``options``.
            keep_prefix_tokens: as in the constructor.
            pool: as in the constructor.
            frame_batch_size: as in the constructor.
            frozen: as in the constructor.
            options: for the model's ``from_pretrained`` (``dtype``, ``attn_implementation``, ``revision``, …).

        Raises:
            CheckpointError: the checkpoint lacks weights of the model.
        """
        return cls(
            model=load_pretrained(AutoModel, name, options),
            image_processor=AutoImageProcessor.from_pretrained(name, **hub_options(options)),
            select_layer=select_layer,
            keep_prefix_tokens=keep_prefix_tokens,
            pool=pool,
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
        ready = process(self.image_processor, pixels, self.device)
        hidden = self._hidden(self.model(ready.to(self.dtype), **self._options))
        if hidden.ndim == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        prefix, patches = hidden[:, : self._prefix], hidden[:, self._prefix :]
        if self._pool is not None:
            maps = patches.transpose(1, 2).reshape(len(patches), self.output_dim, *self._grid)
            patches = F.adaptive_avg_pool2d(maps, self._pool).flatten(2).transpose(1, 2)
        return torch.cat([prefix, patches], 1) if self.keep_prefix_tokens else patches

    def _hidden(self, output: Any) -> Tensor:
        if self.select_layer is None:
            return output.last_hidden_state
        layers = output.hidden_states
        if not -len(layers) <= self.select_layer < len(layers):
            raise InvalidValueError(
                f"select_layer: must be between {-len(layers)} and {len(layers) - 1}, found {self.select_layer}"
            )
        return layers[self.select_layer]


def _patch_grid(shape: torch.Size, size: tuple[int, int], patch: Any) -> tuple[tuple[int, int], int]:
    """Rows and columns of patches, and tokens before them, of a model's output for a picture of ``size``."""
    if len(shape) == 4:
        return (shape[2], shape[3]), 0
    height, width = (patch, patch) if isinstance(patch, int) else patch
    while True:  # a hierarchical model merges 2 × 2 patches from stage to stage
        rows, columns = size[0] // height, size[1] // width
        if rows * columns <= shape[1]:
            return (rows, columns), shape[1] - rows * columns
        height, width = 2 * height, 2 * width


def _pool_grid(pool: int | tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    if isinstance(pool, int):
        rows = next((rows for rows in range(int(max(pool, 0) ** 0.5), 0, -1) if pool % rows == 0), 0)
        pool = (rows, pool // rows if rows else 0)
    if not (1 <= pool[0] <= grid[0] and 1 <= pool[1] <= grid[1]):
        raise InvalidValueError(f"pool: must be a grid of at most {grid[0]} × {grid[1]} patches, found {pool}")
    return pool

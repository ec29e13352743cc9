"""InstructBLIP's visual encoder: a ViT, then a Q-Former conditioned on the instruction."""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipModel,
    InstructBlipPreTrainedModel,
    InstructBlipQFormerModel,
    InstructBlipVisionModel,
)

from avfusion.encoders._image_processor import process, processed_size
from avfusion.encoders._visual import VisualTower
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types import Frames, Video


class _VisualOnly(InstructBlipPreTrainedModel):
    """The visual part of an InstructBLIP checkpoint, without its language model."""

    _keys_to_ignore_on_load_unexpected = (r"^language_",)

    def __init__(self, config: InstructBlipConfig) -> None:
        super().__init__(config)
        self.vision_model = InstructBlipVisionModel(config.vision_config)
        self.qformer = InstructBlipQFormerModel(config.qformer_config)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size))
        self.post_init()


class InstructBlipVisualEncoder(VisualTower):
    """InstructBLIP's ViT and instruction-aware Q-Former: FAVOR's visual tokens, 32 per frame, of width 768.

    ``InstructBlipVisualEncoder.from_pretrained("Salesforce/instructblip-vicuna-7b")`` loads only the
    visual part of a checkpoint. The instruction's ids come from the tokenizer in its ``qformer_tokenizer`` directory.

    Args:
        model: an ``InstructBlipForConditionalGeneration`` or ``InstructBlipModel``; its language model is dropped.
        image_processor: the model's image processor; ``None`` if the pixels of videos come as one made them.
        frame_batch_size: frames per call of the model.
        frozen: no gradients, always in evaluation mode. Sets ``requires_grad`` of ``model``'s own parameters.

    Raises:
        InvalidTypeError: ``model`` is not an InstructBLIP model.
        InvalidValueError: the output size of ``image_processor`` is not the ViT's input size.

    Example:
        >>> import torch
        >>> from transformers import BlipImageProcessor, InstructBlipConfig, InstructBlipModel
        >>> from avfusion import Video
        >>> from avfusion.encoders import InstructBlipVisualEncoder
        >>> tower = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> config = InstructBlipConfig(
        ...     vision_config=dict(tower, image_size=28),
        ...     qformer_config=dict(tower, vocab_size=10, encoder_hidden_size=16),
        ...     text_config=dict(model_type="opt", hidden_size=16, ffn_dim=16, num_hidden_layers=1,
        ...                      num_attention_heads=2, vocab_size=10, word_embed_proj_dim=16),
        ...     num_query_tokens=4,
        ... )
        >>> processor = BlipImageProcessor(size={"height": 28, "width": 28})
        >>> vision = InstructBlipVisualEncoder(model=InstructBlipModel(config), image_processor=processor)
        >>> video = Video.from_rate(torch.zeros(2, 3, 3, 40, 60, dtype=torch.uint8), frame_rate=2.0)
        >>> vision(video, qformer_input_ids=torch.ones(2, 5, dtype=torch.long)).tokens.shape
        torch.Size([2, 3, 4, 16])
    """

    _parts: ClassVar[dict[str, Any]] = {"model": _VisualOnly, "image_processor": AutoImageProcessor}

    def __init__(
        self,
        *,
        model: InstructBlipForConditionalGeneration | InstructBlipModel,
        image_processor: Any = None,
        frame_batch_size: int = 32,
        frozen: bool = True,
    ) -> None:
        super().__init__(group_size=frame_batch_size, group_name="frame_batch_size", frozen=frozen)
        if not isinstance(model, InstructBlipPreTrainedModel) or not hasattr(model, "qformer"):
            raise InvalidTypeError(f"model: must be an InstructBLIP model, found {type(model).__name__}")
        self.vision_model: Any = model.vision_model
        self.qformer: Any = model.qformer
        self.query_tokens = model.query_tokens
        self.image_processor = image_processor
        size = model.config.vision_config.image_size
        self.image_size = processed_size(image_processor, model.config.vision_config)
        if self.image_size != (size, size):
            raise InvalidValueError(f"image_processor: must make images of {size} × {size}, found {self.image_size}")
        self.tokens_per_frame: int = self.query_tokens.shape[1]
        self.output_dim: int = self.query_tokens.shape[2]
        self._settle(model)

    @classmethod
    def from_config(cls, config: InstructBlipConfig, **options: Any) -> Self:
        """A new encoder with random weights; the language model of ``config`` is not built."""
        encoder = super().from_config(config, **options)
        encoder.reset_parameters()
        return encoder

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws new queries, which transformers leaves at zero."""
        nn.init.normal_(self.query_tokens, std=self.qformer.config.initializer_range)

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of ViT and Q-Former; transformers may store the queries in float32."""
        dtype: torch.dtype = self.vision_model.dtype
        return dtype

    def forward(
        self,
        video: Video,
        qformer_input_ids: Tensor | None = None,
        qformer_attention_mask: Tensor | None = None,
    ) -> Frames:
        """Encodes every real frame, conditioned on its clip's instruction.

        Args:
            video: frames of any size, on any device.
            qformer_input_ids: ``(batch, length)`` instruction of each clip, padded on the right; none by default.
            qformer_attention_mask: ``(batch, length)``, true or 1 for real ids; all by default.

        Returns:
            Tokens ``(batch, frame, queries, output_dim)`` on the model's device, zero where masked, with the spans of
            the video.

        Raises:
            InvalidTypeError: ``video`` is not a :class:`~avfusion.Video`.
            InvalidValueError: an instruction for another number of clips, a mask of another shape, or a mask alone.
        """
        if qformer_input_ids is None:
            if qformer_attention_mask is not None:
                raise InvalidValueError("qformer_attention_mask: must come with qformer_input_ids, found it alone")
            return self._encode_frames(video, self.encode)
        if qformer_input_ids.ndim != 2 or len(qformer_input_ids) != len(video.mask):
            raise InvalidValueError(
                f"qformer_input_ids: must be (batch, length) with batch = {len(video.mask)}, "
                f"found shape {tuple(qformer_input_ids.shape)}"
            )
        if qformer_attention_mask is None:
            qformer_attention_mask = torch.ones_like(qformer_input_ids)
        if qformer_attention_mask.shape != qformer_input_ids.shape:
            raise InvalidValueError(
                f"qformer_attention_mask: must be (batch, length) = {tuple(qformer_input_ids.shape)}, "
                f"found shape {tuple(qformer_attention_mask.shape)}"
            )
        return self._encode_frames(video, self.encode, qformer_input_ids, qformer_attention_mask)

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Applies the image processor to ``(image, 3, height, width)`` pixels."""
        return process(self.image_processor, pixels, self.device, self.image_size).to(self.dtype)

    def encode(self, pixel_values: Tensor, ids: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """Encodes images in one call.

        Args:
            pixel_values: ``(image, 3, height, width)``, from :meth:`preprocess`.
            ids: ``(image, length)`` instruction of each image.
            real: ``(image, length)`` true or 1 for real ids.

        Returns:
            ``(image, queries, output_dim)``.
        """
        patches = self.vision_model(pixel_values).last_hidden_state
        queries = self.query_tokens.expand(len(patches), -1, -1)
        mask = torch.ones(queries.shape[:2], dtype=torch.long, device=self.device)
        if ids is not None:
            real = torch.ones_like(ids) if real is None else real
            ids, mask = ids.to(self.device), torch.cat([mask, real.to(mask)], 1)
        states = self.qformer(
            input_ids=ids, attention_mask=mask, query_embeds=queries, encoder_hidden_states=patches
        ).last_hidden_state
        return states[:, : queries.shape[1]]

"""FAVOR: towers of transformers, avfusion's connector, and a language model."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import can_return_tuple

from avfusion import DiversityLoss, Frames, LLMEmbeddings, TokenStream
from avfusion.models import merge_embeddings, select_clips
from examples.favor.configuration_favor import FavorConfig
from examples.favor.connector import build_connector
from examples.favor.generation import MediaGenerationMixin
from examples.favor.inputs import check_features, check_labels, check_no_placeholders, find_placeholders
from examples.favor.output import CACHE, FavorOutput, one_cache
from examples.favor.towers import FavorTowers


class FavorForConditionalGeneration(FavorTowers, MediaGenerationMixin):
    """A language model that hears and sees.

    Media come as tensors of ``clip`` clips, as :class:`FavorProcessor` makes them; row ``i`` of the text talks about
    clip ``i``, or about clip ``media_index[i]``. Times are whole microseconds, which no cast to half precision harms.
    """

    main_input_name = "input_ids"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True  # each step of generation but the first
    _skip_keys_device_placement: ClassVar[list[str]] = [CACHE]

    def __init__(self, config: FavorConfig) -> None:
        super().__init__(config)
        self.connector: Any = build_connector(config)
        self.language_model: Any = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()
        self.generation_config.suppress_tokens = [config.media_token_id]  # a place without an embedding for it

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        own = [*module.parameters(recurse=False)]
        fresh = own and not all(getattr(parameter, "_is_hf_initialized", False) for parameter in own)
        if fresh and hasattr(module, "reset_parameters") and type(module).__module__.startswith("avfusion."):
            module.reset_parameters()  # type: ignore[operator]

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_output_embeddings(value)

    def get_media_embeddings(self, *, clips: int = 1, **features: Tensor | None) -> LLMEmbeddings:
        """The connector's embeddings of what :meth:`encode` gave, or of ``clips`` clips without anything."""
        return self.connector(**self.media_streams(clips=clips, **features))

    def media_streams(self, *, clips: int = 1, **features: Tensor | None) -> dict[str, Frames | TokenStream]:
        """What the connector takes, by name, for what :meth:`encode` gave, or for ``clips`` clips without anything."""
        parameter = next(self.connector.parameters())
        device, dtype = parameter.device, parameter.dtype  # of a sharded parameter too
        streams: dict[str, Frames | TokenStream] = {}
        for name, stream in self.streams.items():
            tokens, mask, times = (features.get(part) for part in stream.features)
            if tokens is not None and mask is not None and times is not None:
                streams[name] = stream.values(tokens.to(device, dtype), mask.to(device, torch.bool), times.to(device))
        if not streams:  # the connector's parameters get zero gradients rather than none
            dim = self.streams["audio"].width(self.config)
            streams["audio"] = TokenStream.empty(clips, dim, device=device, dtype=dtype)
        return streams

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        inputs_embeds: Any = None,
        labels: Tensor | None = None,
        media_index: Tensor | None = None,
        num_windows_in_batch: Tensor | int | None = None,
        read_media: bool = True,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> FavorOutput:
        """Next-token logits, and the loss if there are labels.

        Args:
            input_ids: ``(row, length)``, with the media token once for each embedding of the row's clip.
            attention_mask: ``(row, length)``.
            position_ids: ``(row, length)``; counted from a two-dimensional ``attention_mask`` without it.
            cache: the one to continue.
            inputs_embeds: ``(row, length, dim)`` instead of ``input_ids``.
            labels: ``(row, length)``, -100 where nothing is learned.
            media_index: ``(row,)`` int64: the clip of each row, -1 for none.
            num_windows_in_batch: windows of all micro-batches of a step, over which diversity is averaged.
            read_media: whether media may be given, here or on another process; not in the later steps of generation.
            past_key_values: ``cache``, as transformers before 5.24 calls it.
            **kwargs: media, or what :meth:`encode` gave for them, by the names of the table in ``streams``; all else is
                for the language model. Masks and times may be left out of media, and the question.

                * ``pixel_values_videos`` ``(clip, frame, 3, height, width)``, as the image processor makes them,
                  ``video_mask`` ``(clip, frame)``, ``video_spans`` ``(clip, frame, 2)`` int64 microseconds;
                  ``qformer_input_ids`` and ``qformer_attention_mask`` ``(clip, length)``: the question;
                * ``input_features`` ``(clip, mel, frame)``: whole chunks of Whisper's length,
                  ``feature_attention_mask`` ``(clip, frame)``; ``audio_start`` ``(clip,)`` int64 microseconds;
                * ``input_values`` and ``input_values_mask`` ``(clip, sample)``: the sound itself, for further towers;
                * ``visual_features`` ``(clip, frame, token, dim)`` with ``video_mask`` and ``video_spans``;
                  ``NAME_features`` ``(clip, time, dim)``, ``NAME_mask`` and ``NAME_times`` ``(clip, time)``.

        Raises:
            PlaceholderError: a row whose media tokens are not as many as its clip's embeddings, media tokens without
                any media, or media tokens among the labels.
            InvalidValueError: media and features together, or features without their mask or times.
        """
        cache = one_cache(cache, past_key_values)
        token = self.config.media_token_id
        check_labels(labels, token)
        media = {name: kwargs.pop(name) for name in [*kwargs] if name in self.media_names}
        features = check_features(media)
        if not features and read_media:
            features = self.encode(**media)
        embeddings: LLMEmbeddings | None = None
        if features or (self.training and cache is None):
            text = input_ids if input_ids is not None else inputs_embeds
            embeddings = self.get_media_embeddings(**features, clips=len(text))
        table: Any = self.get_input_embeddings()
        if inputs_embeds is None:
            inputs_embeds = table(input_ids.masked_fill(input_ids == token, 0))  # the token may lie outside the table
        elif read_media:
            input_ids = find_placeholders(inputs_embeds, table, token)
        if embeddings is None and read_media:
            check_no_placeholders(input_ids, token)
        elif embeddings is not None:
            chosen = embeddings if media_index is None else select_clips(embeddings, media_index)
            inputs_embeds = merge_embeddings(input_ids, inputs_embeds, chosen, token)
        if position_ids is None and cache is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        out = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            labels=labels,
            **{**kwargs, CACHE: cache, "return_dict": True},
        )
        loss, diversity = out.loss, None
        if loss is not None and embeddings is not None:
            values = DiversityLoss(weight=self.config.diversity_weight, reduction="none")(embeddings.query_states)
            count = embeddings.window_mask.sum() if num_windows_in_batch is None else num_windows_in_batch
            count = torch.as_tensor(count, device=values.device).clamp(min=1)
            diversity = values.masked_fill(~embeddings.window_mask, 0).sum() / count
            loss = loss + diversity.to(loss)
        return FavorOutput(loss, out.logits, out.get(CACHE), out.get("hidden_states"), out.get("attentions"), diversity)

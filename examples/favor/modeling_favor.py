"""FAVOR: towers of transformers, avfusion's connector, and a language model."""

import warnings
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from avfusion import DiversityLoss, Frames, InvalidValueError, LLMEmbeddings, TokenStream
from avfusion.models import merge_embeddings, select_clips
from examples.favor.configuration_favor import FavorConfig
from examples.favor.inputs import check_features, check_labels, check_no_placeholders
from examples.favor.parts import build_connector, seconds
from examples.favor.towers import FavorTowers

MEDIA_INPUTS = (
    *("pixel_values_videos", "video_mask", "video_spans", "qformer_input_ids", "qformer_attention_mask"),
    *("input_features", "feature_attention_mask", "audio_start", "input_values", "input_values_mask"),
)
FEATURES = (
    *("visual_features", "video_mask", "video_spans"),
    *("audio_features", "audio_mask", "audio_times"),
    *("event_features", "event_mask", "event_times"),
)


@dataclass
class FavorOutput(CausalLMOutputWithPast):
    """What the language model gives, and the diversity loss that is part of ``loss``."""

    diversity_loss: Tensor | None = None


CACHE = fields(FavorOutput)[2].name  # "cache" from transformers 5.24 on, "past_key_values" before


class FavorForConditionalGeneration(FavorTowers, GenerationMixin):
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
    _no_split_modules: ClassVar[list[str]] = ["AudioVisualConnector", "HFAudioEncoder"]

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
        if module is self and self.qformer is not None:
            nn.init.normal_(self.query_tokens, std=self.config.initializer_range)
        elif fresh and hasattr(module, "reset_parameters") and type(module).__module__.startswith("avfusion."):
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

    def media_streams(
        self,
        *,
        visual_features: Tensor | None = None,
        video_mask: Tensor | None = None,
        video_spans: Tensor | None = None,
        audio_features: Tensor | None = None,
        audio_mask: Tensor | None = None,
        audio_times: Tensor | None = None,
        event_features: Tensor | None = None,
        event_mask: Tensor | None = None,
        event_times: Tensor | None = None,
        clips: int = 1,
    ) -> dict[str, Frames | TokenStream]:
        """What the connector takes, by name, for what :meth:`encode` gave, or for ``clips`` clips without anything."""
        parameter = next(self.connector.parameters())
        like = parameter.device, parameter.dtype  # of a sharded parameter too
        streams: dict[str, Frames | TokenStream] = {}
        if visual_features is not None and video_mask is not None and video_spans is not None:
            tokens, mask = visual_features.to(*like), video_mask.to(like[0], torch.bool)
            streams["visual"] = Frames(
                tokens, mask[..., None].expand(tokens.shape[:3]), seconds(video_spans.to(like[0]))
            )
        for name, features, real, times in (
            ("audio", audio_features, audio_mask, audio_times),
            ("events", event_features, event_mask, event_times),
        ):
            if features is not None and real is not None and times is not None:
                streams[name] = TokenStream(
                    features.to(*like), real.to(like[0], torch.bool), seconds(times.to(like[0]))
                )
        if not streams:  # the connector's parameters get zero gradients rather than none
            dim = self.config.audio_config.d_model
            streams["audio"] = TokenStream.empty(clips, dim, device=like[0], dtype=like[1])
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
        pixel_values_videos: Tensor | None = None,
        video_mask: Tensor | None = None,
        video_spans: Tensor | None = None,
        qformer_input_ids: Tensor | None = None,
        qformer_attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        feature_attention_mask: Tensor | None = None,
        audio_start: Tensor | None = None,
        input_values: Tensor | None = None,
        input_values_mask: Tensor | None = None,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        audio_mask: Tensor | None = None,
        audio_times: Tensor | None = None,
        event_features: Tensor | None = None,
        event_mask: Tensor | None = None,
        event_times: Tensor | None = None,
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
            pixel_values_videos: ``(clip, frame, 3, height, width)``, as the image processor makes them.
            video_mask: ``(clip, frame)``: real frames.
            video_spans: ``(clip, frame, 2)`` int64 microseconds.
            qformer_input_ids: ``(clip, length)``: instruction of InstructBLIP's Q-Former.
            qformer_attention_mask: ``(clip, length)``.
            input_features: ``(clip, mel, frame)``: whole chunks of Whisper's length.
            feature_attention_mask: ``(clip, frame)``: real mel frames.
            audio_start: ``(clip,)`` int64 microseconds.
            input_values: ``(clip, sample)``: the sound itself, for the second audio tower.
            input_values_mask: ``(clip, sample)``.
            visual_features: what :meth:`encode` gave, instead of pictures; so are the six below.
            audio_features: ``(clip, time, dim)``.
            audio_mask: ``(clip, time)``.
            audio_times: ``(clip, time)`` int64 microseconds.
            event_features: ``(clip, time, dim)``.
            event_mask: ``(clip, time)``.
            event_times: ``(clip, time)`` int64 microseconds.
            media_index: ``(row,)`` int64: the clip of each row, -1 for none.
            num_windows_in_batch: windows of all micro-batches of a step, over which diversity is averaged.
            read_media: whether media may be given, here or on another process; not in the later steps of generation.
            past_key_values: ``cache``, as transformers before 5.24 calls it.
            **kwargs: for the language model.

        Raises:
            PlaceholderError: a row whose media tokens are not as many as its clip's embeddings, media tokens without
                any media, or media tokens among the labels.
            InvalidValueError: media and features together, or features without their mask or times.
        """
        cache = _one_cache(cache, past_key_values)
        token = self.config.media_token_id
        check_labels(labels, token)
        features: dict[str, Tensor] = {}
        if visual_features is not None or audio_features is not None or event_features is not None:
            features = _present(
                visual_features=visual_features,
                video_mask=video_mask,
                video_spans=video_spans,
                audio_features=audio_features,
                audio_mask=audio_mask,
                audio_times=audio_times,
                event_features=event_features,
                event_mask=event_mask,
                event_times=event_times,
            )
            check_features(
                features,
                pixel_values_videos=pixel_values_videos,
                input_features=input_features,
                input_values=input_values,
            )
        elif read_media:
            features = self.encode(
                pixel_values_videos=pixel_values_videos,
                video_mask=video_mask,
                video_spans=video_spans,
                qformer_input_ids=qformer_input_ids,
                qformer_attention_mask=qformer_attention_mask,
                input_features=input_features,
                feature_attention_mask=feature_attention_mask,
                audio_start=audio_start,
                input_values=input_values,
                input_values_mask=input_values_mask,
            )
        embeddings: LLMEmbeddings | None = None
        if features or (self.training and cache is None):
            text = input_ids if input_ids is not None else inputs_embeds
            embeddings = self.get_media_embeddings(**features, clips=len(text))
        table: Any = self.get_input_embeddings()
        if inputs_embeds is None:
            inputs_embeds = table(input_ids)
        elif read_media:
            same = (inputs_embeds == table(torch.full((), token, device=inputs_embeds.device))).all(-1)
            input_ids = torch.where(same, token, token + 1)
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

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, inputs_embeds: Tensor | None = None, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """What a step of generation gets: media only until the cache holds them.

        Later steps are the same for all batches and tokens, so that they compile to one graph.
        """
        inputs = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        wanted = inputs["read_media"] = is_first_iteration or not kwargs.get("use_cache", True)
        cache, new = inputs.get(CACHE), inputs.get("input_ids")
        if wanted and cache is not None and cache.get_seq_length() > 0 and new is not None:
            wanted = bool((new == self.config.media_token_id).any())
        return inputs if wanted else {name: value for name, value in inputs.items() if name not in _ALL_MEDIA}

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Repeats the rows for beams; the clips stay as they are, and are encoded once."""
        media = {name: kwargs.pop(name) for name in _ALL_MEDIA - {"media_index"} if name in kwargs}
        if expand_size > 1 and any(value is not None for value in media.values()) and kwargs.get("media_index") is None:
            kwargs["media_index"] = torch.arange(len(next(v for v in media.values() if v is not None)))
        input_ids, kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return input_ids, {**kwargs, **media}


def _one_cache(cache: Any, past_key_values: Any) -> Any:
    """The cache, by whichever name it came."""
    if past_key_values is None:
        return cache
    if cache is not None:
        raise InvalidValueError(f"cache, past_key_values: must not come together, found both; give {CACHE} alone")
    if CACHE == "cache":  # the models of transformers warn too
        warnings.warn("`past_key_values` is deprecated; give `cache`", FutureWarning, stacklevel=3)
    return past_key_values


def _present(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


_ALL_MEDIA = {*MEDIA_INPUTS, *FEATURES, "media_index"}

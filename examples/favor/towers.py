"""The pretrained towers: pictures and sound to tokens."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.instructblip.modeling_instructblip import InstructBlipQFormerModel, InstructBlipVisionModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import can_return_tuple

from avfusion import InvalidValueError
from examples.favor.configuration_favor import FavorConfig
from examples.favor.parts import EventTower, is_sharded, pool_patches, scatter


class FavorTowers(PreTrainedModel):
    """Whisper, a vision tower with or without InstructBLIP's Q-Former, and perhaps a second audio tower."""

    config_class = FavorConfig
    config: FavorConfig

    def __init__(self, config: FavorConfig) -> None:
        super().__init__(config)
        vision, blip = config.vision_config, config.vision_config.model_type == "instructblip_vision_model"
        self.vision_tower: Any = InstructBlipVisionModel._from_config(vision) if blip else AutoModel.from_config(vision)
        self.audio_tower: Any = WhisperEncoder._from_config(config.audio_config)
        self.qformer: Any = None
        if config.qformer_config is not None:
            self.qformer = InstructBlipQFormerModel._from_config(config.qformer_config)
            self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size))
        self.event_tower: Any = None if config.event_config is None else EventTower(config.event_config)

    @classmethod
    def is_custom_code(cls) -> bool:
        """Says that ``_init_weights`` spares loaded weights, so that transformers may initialise all others."""
        return False

    @property
    def towers(self) -> dict[str, Any]:
        """The towers by name."""
        names = ("vision_tower", "qformer", "audio_tower", "event_tower")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def train(self, mode: bool = True) -> "FavorTowers":
        """Sets the mode; towers that are wholly frozen stay in evaluation mode."""
        super().train(mode)
        for tower in self.towers.values():
            tower.train(mode and any(parameter.requires_grad for parameter in tower.parameters()))
        return self

    @can_return_tuple  # type: ignore[untyped-decorator]
    def get_video_features(
        self,
        pixel_values_videos: Tensor,
        video_mask: Tensor | None = None,
        qformer_input_ids: Tensor | None = None,
        qformer_attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Patches of every real frame ``(clip, frame, patch, dim)``; ``pooler_output`` are its visual tokens.

        ``hidden_states`` and ``attentions`` are those of the real frames, one after the other.
        """
        if video_mask is None:
            video_mask = torch.ones(pixel_values_videos.shape[:2], dtype=torch.bool, device=pixel_values_videos.device)
        pixels, clip = pixel_values_videos[video_mask], video_mask.nonzero()[:, 0]
        if not len(clip):  # sharded towers run on every rank: one blank frame, of which nothing is kept
            pixels, clip = pixel_values_videos.new_zeros(1, *pixel_values_videos.shape[2:]), clip.new_zeros(1)
        dtype = next(parameter.dtype for parameter in self.vision_tower.parameters() if parameter.is_floating_point())
        out = self.vision_tower(pixels.to(dtype), **{**kwargs, "return_dict": True})
        patches = out.last_hidden_state
        if self.qformer is None:
            tokens = pool_patches(patches, self.config.vision_config, self.config.num_query_tokens)
        else:
            queries = self.query_tokens.expand(len(pixels), -1, -1)
            real, ids = clip.new_ones(queries.shape[:2]), None
            if qformer_input_ids is not None:
                said = torch.ones_like(qformer_input_ids) if qformer_attention_mask is None else qformer_attention_mask
                ids, real = qformer_input_ids[clip], torch.cat([real, said[clip].to(real)], 1)
            tokens = self.qformer(
                input_ids=ids, attention_mask=real, query_embeds=queries, encoder_hidden_states=patches
            ).last_hidden_state[:, : queries.shape[1]]
        out.last_hidden_state, out.pooler_output = scatter(patches, video_mask), scatter(tokens, video_mask)
        return out

    @can_return_tuple  # type: ignore[untyped-decorator]
    def get_audio_features(
        self, input_features: Tensor, feature_attention_mask: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Tokens of sound ``(clip, time, dim)``, from mel frames ``(clip, mel, frame)`` in whole chunks of Whisper's.

        ``hidden_states`` and ``attentions`` are those of the chunks with sound, one after the other.
        """
        chunk = 2 * self.config.audio_config.max_source_positions
        clips, mels, length = input_features.shape
        if length == 0 or length % chunk:
            raise InvalidValueError(f"input_features: must hold whole chunks of {chunk} mel frames, found {length}")
        mask = input_features.new_ones(clips, length) if feature_attention_mask is None else feature_attention_mask
        real = mask.bool().reshape(clips, -1, chunk).any(-1)
        chunks = input_features.reshape(clips, mels, -1, chunk).transpose(1, 2)[real]
        if not len(chunks):  # as for frames
            chunks = input_features.new_zeros(1, mels, chunk)
        dtype = self.audio_tower.conv1.weight.dtype
        out = self.audio_tower(chunks.to(dtype), **{**kwargs, "return_dict": True})
        states = scatter(out.last_hidden_state, real).flatten(1, 2)
        hidden, attentions = out.get("hidden_states"), out.get("attentions")
        return BaseModelOutputWithPooling(states, states, hidden_states=hidden, attentions=attentions)

    def encode(
        self,
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
    ) -> dict[str, Tensor]:
        """The towers' tokens, which :meth:`forward` takes instead of what they were made from.

        A frozen tower always gives the same, so they may be kept. Whatever is absent from all clips is left out.
        """
        self._join_other_ranks(pixel_values_videos, input_features, input_values)
        features: dict[str, Tensor] = {}
        if pixel_values_videos is not None:
            clips, frames = pixel_values_videos.shape[:2]
            if video_mask is None:
                video_mask = torch.ones(clips, frames, dtype=torch.bool, device=pixel_values_videos.device)
            if video_spans is None:
                edges = torch.arange(frames + 1, device=video_mask.device) * round(1e6 / self.config.frame_rate)
                video_spans = torch.stack([edges[:-1], edges[1:]], -1).expand(clips, -1, -1)
            seen = self.get_video_features(
                pixel_values_videos, video_mask, qformer_input_ids, qformer_attention_mask, return_dict=True
            )
            features |= {"visual_features": seen.pooler_output, "video_mask": video_mask, "video_spans": video_spans}
        if input_features is not None:
            clips, _, length = input_features.shape
            if feature_attention_mask is None:
                feature_attention_mask = torch.ones(clips, length, dtype=torch.bool, device=input_features.device)
            if audio_start is None:
                audio_start = torch.zeros(clips, dtype=torch.int64, device=input_features.device)
            heard = self.get_audio_features(input_features, feature_attention_mask, return_dict=True).last_hidden_state
            steps = torch.arange(length // 2, device=heard.device)  # a token stands for two mel frames of 10 ms
            features["audio_features"] = heard
            features["audio_mask"] = feature_attention_mask[:, ::2].bool().to(heard.device)
            features["audio_times"] = audio_start.to(heard.device)[:, None] + 20_000 * steps + 10_000
        if self.event_tower is not None and input_values is not None:
            features |= self.event_tower(input_values, input_values_mask, audio_start)
        return features

    def _join_other_ranks(self, pixels: Tensor | None, mels: Tensor | None, samples: Tensor | None) -> None:
        """Sharded towers are gathered by all ranks at once, so they run, on a blank, where a batch lacks a modality."""
        like: dict[str, Any] = {"device": self.audio_tower.conv1.weight.device}
        nothing = torch.zeros(1, 1, dtype=torch.bool, **like)
        if pixels is None and is_sharded(self.vision_tower):
            side = self.config.vision_config.image_size
            self.get_video_features(torch.zeros(1, 1, 3, side, side, **like), nothing)
        if mels is None and is_sharded(self.audio_tower):
            length = 2 * self.config.audio_config.max_source_positions
            blank = torch.zeros(1, self.config.audio_config.num_mel_bins, length, **like)
            self.get_audio_features(blank, nothing.expand(1, length))
        if samples is None and self.event_tower is not None and is_sharded(self.event_tower):
            self.event_tower(torch.zeros(1, 1, **like), nothing)

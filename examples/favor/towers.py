"""The pretrained towers: pictures and sound to tokens."""

import sys
from collections.abc import Mapping
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
from examples.favor.parts import EventTower, is_sharded, items_per_call, pool_patches, scatter


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
        said = (video_mask, qformer_input_ids, qformer_attention_mask)
        patches, tokens, out = self._see(pixel_values_videos, *said, keep_patches=True, **kwargs)
        return BaseModelOutputWithPooling(
            patches, tokens, hidden_states=out.get("hidden_states"), attentions=out.get("attentions")
        )

    def _see(
        self,
        pixels: Tensor,
        video_mask: Tensor | None,
        qformer_input_ids: Tensor | None,
        qformer_attention_mask: Tensor | None,
        *,
        keep_patches: bool,
        **kwargs: Any,
    ) -> tuple[Any, Tensor, Any]:
        """Patches, if they shall be kept, and visual tokens of every real frame; and what the tower gave last.

        The patches of a long clip are many times as large as its tokens, and the connector never sees them.
        """
        if video_mask is None:
            video_mask = torch.ones(pixels.shape[:2], dtype=torch.bool, device=pixels.device)
        clip, frame = video_mask.nonzero(as_tuple=True)
        if not len(clip):  # sharded towers run on every rank: one blank frame, of which nothing is kept
            pixels, clip, frame = pixels.new_zeros(1, 1, *pixels.shape[2:]), clip.new_zeros(1), frame.new_zeros(1)
        asked = None if qformer_input_ids is None else (qformer_input_ids, qformer_attention_mask)
        seeing = _learns(self.vision_tower, pixels)
        asking = seeing or (self.qformer is not None and _learns(self.qformer, self.query_tokens))
        patches: list[Tensor] = []
        tokens: list[Tensor] = []
        out: Any = None
        count = self._per_call(self.config.vision_config, self.vision_tower, self.qformer, learns=asking, wanted=kwargs)
        for clips, frames in zip(clip.split(count), frame.split(count), strict=True):
            shown = pixels[clips, frames].to(_dtype(self.vision_tower))
            with torch.set_grad_enabled(seeing):
                out = self.vision_tower(shown, **{**kwargs, "return_dict": True})
            with torch.set_grad_enabled(asking):
                tokens.append(self._summarise(out.last_hidden_state, clips, asked))
            patches += [out.last_hidden_state] if keep_patches else []
        kept = scatter(torch.cat(patches), video_mask) if keep_patches else None
        return kept, scatter(torch.cat(tokens), video_mask), out

    def _summarise(self, patches: Tensor, clips: Tensor, asked: tuple[Tensor, Tensor | None] | None) -> Tensor:
        """Visual tokens of frames of these clips."""
        if self.qformer is None:
            return pool_patches(patches, self.config.vision_config, self.config.num_query_tokens)
        queries = self.query_tokens.expand(len(patches), -1, -1)
        real, ids = clips.new_ones(queries.shape[:2]), None
        if asked is not None:
            words, said = asked
            said = torch.ones_like(words) if said is None else said
            ids, real = words[clips], torch.cat([real, said[clips].to(real)], 1)
        return self.qformer(
            input_ids=ids, attention_mask=real, query_embeds=queries, encoder_hidden_states=patches
        ).last_hidden_state[:, : queries.shape[1]]

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
        pieces = input_features.reshape(clips, mels, -1, chunk)
        clip, piece = real.nonzero(as_tuple=True)
        if not len(clip):  # as for frames
            pieces, clip, piece = pieces.new_zeros(1, mels, 1, chunk), clip.new_zeros(1), piece.new_zeros(1)
        heard: list[Tensor] = []
        out: Any = None
        learns = _learns(self.audio_tower, input_features)
        count = self._per_call(self.config.audio_config, self.audio_tower, learns=learns, wanted=kwargs)
        for clips_of, pieces_of in zip(clip.split(count), piece.split(count), strict=True):
            sound = pieces[clips_of, :, pieces_of].to(_dtype(self.audio_tower))
            with torch.set_grad_enabled(learns):
                out = self.audio_tower(sound, **{**kwargs, "return_dict": True})
            heard.append(out.last_hidden_state)
        states = scatter(torch.cat(heard), real).flatten(1, 2)
        hidden, attentions = out.get("hidden_states"), out.get("attentions")
        return BaseModelOutputWithPooling(states, states, hidden_states=hidden, attentions=attentions)

    def _per_call(self, config: Any, *towers: Any, learns: bool, wanted: Mapping[str, Any]) -> int:
        """How many frames or chunks go at once through a tower, and through what takes its tokens.

        All of them where parts would save nothing, because a graph is kept or what happens inside is asked for, and
        where every rank must make the same number of calls.
        """
        inside = ("output_hidden_states", "output_attentions")
        if learns or is_sharded(*towers) or any(wanted.get(name, getattr(config, name)) for name in inside):
            return sys.maxsize
        return items_per_call(config, _dtype(towers[0]), self.config.tower_memory)

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
            said = (video_mask, qformer_input_ids, qformer_attention_mask)
            _, seen, _ = self._see(pixel_values_videos, *said, keep_patches=False)
            features |= {"visual_features": seen, "video_mask": video_mask, "video_spans": video_spans}
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
        if pixels is None and is_sharded(self.vision_tower, self.qformer):
            side = self.config.vision_config.image_size
            self.get_video_features(torch.zeros(1, 1, 3, side, side, **like), nothing)
        if mels is None and is_sharded(self.audio_tower):
            length = 2 * self.config.audio_config.max_source_positions
            blank = torch.zeros(1, self.config.audio_config.num_mel_bins, length, **like)
            self.get_audio_features(blank, nothing.expand(1, length))
        if samples is None and self.event_tower is not None and is_sharded(self.event_tower):
            self.event_tower(torch.zeros(1, 1, **like), nothing)


def _dtype(tower: nn.Module) -> torch.dtype:
    """Floating dtype of the parameters."""
    return next(parameter.dtype for parameter in tower.parameters() if parameter.is_floating_point())


def _learns(module: nn.Module, *tensors: Tensor) -> bool:
    """Whether a graph is wanted. A frozen tower has none, whatever hooks make of what is inside it."""
    return torch.is_grad_enabled() and any(one.requires_grad for one in (*tensors, *module.parameters()))

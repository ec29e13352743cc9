"""The pretrained towers: pictures and sound to tokens."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ASTFeatureExtractor, AutoModel, PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.instructblip.modeling_instructblip import InstructBlipQFormerModel, InstructBlipVisionModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import can_return_tuple

from avfusion import InvalidTypeError, InvalidValueError, Waveform
from avfusion.encoders import HFAudioEncoder
from avfusion.functional import cut_chunks, pool_patches, scatter_masked
from avfusion.modules import is_sharded
from examples.favor.configuration_favor import FavorConfig
from examples.favor.streams import (
    SAMPLE_RATE,
    STREAMS,
    Stream,
    feature_names,
    media_inputs,
    microseconds,
    seconds,
    streams_of,
)


class FavorTowers(PreTrainedModel):
    """A tower for each stream that the configuration has one for, and perhaps InstructBLIP's Q-Former."""

    config_class = FavorConfig
    config: FavorConfig

    def __init__(self, config: FavorConfig) -> None:
        super().__init__(config)
        self.streams = streams_of(config)
        self.media_names = frozenset((*media_inputs(), *feature_names()))  # of what forward takes of clips
        for stream in STREAMS.values():
            tower = getattr(config, stream.config, None)
            setattr(self, stream.tower, None if tower is None else _BUILD[stream.kind](tower))
        self.qformer: Any = None
        if config.qformer_config is not None:
            self.qformer = InstructBlipQFormerModel._from_config(config.qformer_config)
            self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size))

    @classmethod
    def is_custom_code(cls) -> bool:
        """Says that ``_init_weights`` spares loaded weights, so that transformers may initialise all others."""
        return False

    @property
    def towers(self) -> dict[str, Any]:
        """The towers by name."""
        names = (*(stream.tower for stream in self.streams.values()), "qformer")
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
        mask = pixel_values_videos.new_ones(pixel_values_videos.shape[:2]) if video_mask is None else video_mask
        said = (mask.bool(), qformer_input_ids, qformer_attention_mask)
        patches, tokens, out = self._see(pixel_values_videos, *said, keep_patches=True, **kwargs)
        return BaseModelOutputWithPooling(
            patches, tokens, hidden_states=out.get("hidden_states"), attentions=out.get("attentions")
        )

    def _see(
        self,
        pixels: Tensor,
        mask: Tensor,
        ids: Tensor | None,
        said: Tensor | None,
        *,
        keep_patches: bool,
        **kwargs: Any,
    ) -> tuple[Any, Tensor, Any]:
        """Patches, if they shall be kept, and visual tokens of every real frame; and what the tower gave last.

        The patches of a long clip are many times as large as its tokens, and the connector never sees them.
        """
        clip, frame = mask.nonzero(as_tuple=True)
        if not len(clip):  # sharded towers run on every rank: one blank frame, of which nothing is kept
            pixels, clip, frame = pixels.new_zeros(1, 1, *pixels.shape[2:]), clip.new_zeros(1), frame.new_zeros(1)
        asked = None if ids is None else (ids, said)
        seeing = _learns(self.vision_tower, pixels)
        asking = seeing or (self.qformer is not None and _learns(self.qformer, self.query_tokens))
        patches: list[Tensor] = []
        tokens: list[Tensor] = []
        out: Any = None
        count = self._per_call(self.config.vision_config, self.vision_tower, self.qformer, learns=asking, wanted=kwargs)
        for clips, frames in _calls(count, clip, frame):
            shown = pixels[clips, frames].to(_dtype(self.vision_tower))
            with torch.set_grad_enabled(seeing):
                out = self.vision_tower(shown, **{**kwargs, "return_dict": True})
            with torch.set_grad_enabled(asking):
                tokens.append(self._summarise(out.last_hidden_state, clips, asked))
            patches += [out.last_hidden_state] if keep_patches else []
        kept = scatter_masked(torch.cat(patches), mask) if keep_patches else None
        return kept, scatter_masked(torch.cat(tokens), mask), out

    def _summarise(self, patches: Tensor, clips: Tensor, asked: tuple[Tensor, Tensor | None] | None) -> Tensor:
        """Visual tokens of frames of these clips."""
        if self.qformer is None:
            side = self.config.vision_config.image_size // self.config.vision_config.patch_size
            return pool_patches(patches[:, -side * side :], (side, side), self.config.num_query_tokens)
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
        size = 2 * self.config.audio_config.max_source_positions
        clips, mels, length = input_features.shape
        if length == 0 or length % size:
            raise InvalidValueError(f"input_features: must hold whole chunks of {size} mel frames, found {length}")
        mask = input_features.new_ones(clips, length) if feature_attention_mask is None else feature_attention_mask
        chunks, real = cut_chunks(input_features.transpose(1, 2), mask.bool().sum(1), size)
        chunks = chunks[real] if real.any() else chunks.new_zeros(1, size, mels)  # as for frames
        heard: list[Tensor] = []
        out: Any = None
        learns = _learns(self.audio_tower, input_features)
        count = self._per_call(self.config.audio_config, self.audio_tower, learns=learns, wanted=kwargs)
        for (sound,) in _calls(count, chunks):
            with torch.set_grad_enabled(learns):
                spectra = sound.transpose(1, 2).to(_dtype(self.audio_tower))
                out = self.audio_tower(spectra, **{**kwargs, "return_dict": True})
            heard.append(out.last_hidden_state)
        states = scatter_masked(torch.cat(heard), real).flatten(1, 2)
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

    def encode(self, **media: Tensor | None) -> dict[str, Tensor]:
        """The towers' tokens, their masks and times, which :meth:`forward` takes instead of what they were made from.

        A frozen tower always gives the same, so they may be kept. What no clip has is left out.

        Args:
            **media: as for :meth:`forward`; masks, times and the question may be left out.

        Raises:
            InvalidTypeError: another name.
        """
        unknown = sorted(set(media) - set(media_inputs()))
        if unknown:
            raise InvalidTypeError(f"encode: must be given {', '.join(media_inputs())}, found {', '.join(unknown)}")
        features: dict[str, Tensor] = {}
        for stream in self.streams.values():
            given = {name: value for name in stream.inputs if (value := media.get(name)) is not None}
            if stream.inputs[0] in given:
                features |= zip(stream.features, self._encode(stream, self._complete(stream, given)), strict=True)
            elif is_sharded(getattr(self, stream.tower), self.qformer if stream.kind == "pictures" else None):
                # Gathered by all ranks at once, so it runs, on a blank, where a batch lacks the modality.
                self._encode(stream, self._complete(stream, self._blank(stream)))
        return features

    def _encode(self, stream: Stream, given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, mask and times."""
        media, mask = given[stream.inputs[0]], given[stream.inputs[1]].bool()
        if stream.kind == "sound":
            start = seconds(given["audio_start"])
            found = getattr(self, stream.tower)(Waveform(media, mask, SAMPLE_RATE, start))
            return found.tokens, found.mask, microseconds(found.timestamps)
        if stream.kind == "speech":
            tokens = self.get_audio_features(media, mask, return_dict=True).last_hidden_state
        else:
            asked = (given.get("qformer_input_ids"), given.get("qformer_attention_mask"))
            _, tokens, _ = self._see(media, mask, *asked, keep_patches=False)
        mask, times = stream.clock(given)
        return tokens, mask.to(tokens.device), times.to(tokens.device)

    def _complete(self, stream: Stream, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A tower's inputs, with what may be left out."""
        media, device = given[stream.inputs[0]], given[stream.inputs[0]].device
        clips, length = media.shape[0], media.shape[2 if stream.kind == "speech" else 1]
        inputs = {stream.inputs[1]: torch.ones(clips, length, dtype=torch.bool, device=device), **given}
        if stream.kind == "pictures" and "video_spans" not in inputs:
            edges = torch.arange(length + 1, device=device) * round(1e6 / self.config.frame_rate)
            inputs["video_spans"] = torch.stack([edges[:-1], edges[1:]], -1).expand(clips, -1, -1)
        if stream.kind != "pictures":
            inputs.setdefault("audio_start", torch.zeros(clips, dtype=torch.int64, device=device))
        return inputs

    def _blank(self, stream: Stream) -> dict[str, Tensor]:
        """A clip of which nothing is kept."""
        config = getattr(self.config, stream.config)
        shape: tuple[int, ...] = (1, 1)
        length = 1
        if stream.kind == "pictures":
            shape = (1, 1, 3, config.image_size, config.image_size)
        elif stream.kind == "speech":
            length = 2 * config.max_source_positions
            shape = (1, config.num_mel_bins, length)
        device = next(getattr(self, stream.tower).parameters()).device
        nothing = torch.zeros(1, length, dtype=torch.bool, device=device)
        return {stream.inputs[0]: torch.zeros(shape, device=device), stream.inputs[1]: nothing}


def items_per_call(config: Any, dtype: torch.dtype, limit: float) -> int:
    """How many pictures or chunks of sound a tower computes within ``limit`` MiB."""
    tokens = getattr(config, "max_source_positions", None) or (config.image_size // config.patch_size) ** 2 + 1
    # At its fullest a layer holds its input, what it was normalised to, and the feed-forward, four times as wide,
    # before and after its non-linearity; attention that is written out holds its weights a few times.
    numbers = 16 * tokens * config.hidden_size
    if config._attn_implementation == "eager":
        numbers += 4 * config.num_attention_heads * tokens * tokens
    return max(1, int(limit * 2**20 / (numbers * dtype.itemsize)))


def _vision_tower(config: Any) -> Any:
    blip = config.model_type == "instructblip_vision_model"
    return InstructBlipVisionModel._from_config(config) if blip else AutoModel.from_config(config)


def _sound_tower(config: Any) -> HFAudioEncoder:
    spectrogram = config.model_type == "audio-spectrogram-transformer"
    extractor = (
        ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length)
        if spectrogram
        else Wav2Vec2FeatureExtractor()
    )
    return HFAudioEncoder(model=AutoModel.from_config(config), feature_extractor=extractor, pool_frequency=spectrogram)


_BUILD: dict[str, Callable[[Any], Any]] = {
    "pictures": _vision_tower,
    "speech": WhisperEncoder._from_config,
    "sound": _sound_tower,
}


def _calls(count: int, *values: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(value.split(count) for value in values), strict=True)


def _dtype(tower: nn.Module) -> torch.dtype:
    """Floating dtype of the parameters."""
    return next(parameter.dtype for parameter in tower.parameters() if parameter.is_floating_point())


def _learns(module: nn.Module, *tensors: Tensor) -> bool:
    """Whether a graph is wanted. A frozen tower has none, whatever hooks make of what is inside it."""
    return torch.is_grad_enabled() and any(one.requires_grad for one in (*tensors, *module.parameters()))

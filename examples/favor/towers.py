"""The pretrained towers, each an encoder of the library, and what they make of media."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import (
    ASTFeatureExtractor,
    InstructBlipConfig,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from avfusion import InvalidTypeError, Video, Waveform
from avfusion.encoders import (
    HFAudioEncoder,
    HFVisionEncoder,
    InstructBlipVisualEncoder,
    TimmVisualEncoder,
    WhisperAudioEncoder,
)
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
    """An encoder for each stream that the configuration has a tower for."""

    config_class = FavorConfig
    config: FavorConfig

    def __init__(self, config: FavorConfig) -> None:
        super().__init__(config)
        self.streams = streams_of(config)
        self.media_names = frozenset((*media_inputs(), *feature_names()))  # of what forward takes of clips
        for stream in STREAMS.values():
            given = getattr(config, stream.config, None) is not None
            setattr(self, stream.tower, _BUILD[stream.kind](config, stream) if given else None)
        # Of what must stay whole on one device, transformers looks no deeper than the children.
        whole = (name for module in self.modules() for name in getattr(module, "_no_split_modules", None) or ())
        self._no_split_modules = {"AudioVisualConnector", "HFAudioEncoder", *whole}

    @classmethod
    def is_custom_code(cls) -> bool:
        """Says that ``_init_weights`` spares loaded weights, so that transformers may initialise all others."""
        return False

    @property
    def towers(self) -> dict[str, Any]:
        """The towers by name."""
        return {stream.tower: getattr(self, stream.tower) for stream in self.streams.values()}

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
            tower = getattr(self, stream.tower)
            given = {name: value for name in stream.inputs if (value := media.get(name)) is not None}
            if stream.inputs[0] in given:
                features |= zip(stream.features, self._encode(stream, tower, given), strict=True)
            elif is_sharded(tower):  # gathered by all ranks at once, so it runs where a batch lacks the modality
                self._encode(stream, tower, self._blank(stream, tower))
        return features

    def _encode(self, stream: Stream, tower: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, mask and times."""
        media = given[stream.inputs[0]]
        clips, length = media.shape[0], media.shape[2 if stream.kind == "speech" else 1]
        mask = given.get(stream.inputs[1], media.new_ones(clips, length)).bool()
        if stream.kind == "pictures":
            edges = torch.arange(length + 1, device=media.device) * round(1e6 / self.config.frame_rate)
            spans = given.get("video_spans", torch.stack([edges[:-1], edges[1:]], -1).expand(clips, -1, -1))
            question = {name: given[name] for name in stream.inputs[3:] if name in given}
            asked = question if isinstance(tower, InstructBlipVisualEncoder) else {}
            frames = tower(Video(media, mask, seconds(spans)), **asked)
            return frames.tokens, frames.mask[..., 0], spans.to(frames.mask.device)
        start = seconds(given.get("audio_start", torch.zeros(clips, dtype=torch.int64, device=media.device)))
        if stream.kind == "speech":
            tokens = tower.encode(media, mask, start)
        else:
            tokens = tower(Waveform(media, mask, SAMPLE_RATE, start))
        return tokens.tokens, tokens.mask, microseconds(tokens.timestamps)

    def _blank(self, stream: Stream, tower: Any) -> dict[str, Tensor]:
        """A clip of which nothing is real."""
        length = 1
        shape: tuple[int, ...] = (1, 1)
        if stream.kind == "pictures":
            shape = (1, 1, 3, *tower.image_size)
        elif stream.kind == "speech":
            length = tower.chunk_samples // tower.feature_extractor.hop_length
            shape = (1, tower.feature_extractor.feature_size, length)
        nothing = torch.zeros(1, length, dtype=torch.bool, device=tower.device)
        return {stream.inputs[0]: torch.zeros(shape, device=tower.device), stream.inputs[1]: nothing}


def _vision_tower(config: FavorConfig, stream: Stream) -> Any:
    options = {"frame_batch_size": config.frame_batch_size, "frozen": False}
    if config.vision_config.model_type == "timm_wrapper":
        size = (config.vision_config.image_size,) * 2
        return TimmVisualEncoder.from_config(
            config.vision_config, image_size=size, pool=config.num_query_tokens, **options
        )
    if config.qformer_config is None:
        return HFVisionEncoder.from_config(config.vision_config, pool=config.num_query_tokens, **options)
    parts = {name: getattr(config, name) for name in ("vision_config", "qformer_config")}
    attention = {name: part._attn_implementation for name, part in parts.items()}
    blip = InstructBlipConfig(**parts, num_query_tokens=config.num_query_tokens, dtype=config.vision_config.dtype)
    blip._attn_implementation = attention  # to put configurations together unsets theirs
    return InstructBlipVisualEncoder.from_config(blip, **options)


def _speech_tower(config: FavorConfig, stream: Stream) -> WhisperAudioEncoder:
    whisper = getattr(config, stream.config)
    extractor = WhisperFeatureExtractor(feature_size=whisper.num_mel_bins)
    return WhisperAudioEncoder.from_config(
        whisper, feature_extractor=extractor, chunk_batch_size=config.chunk_batch_size, frozen=False
    )


def _sound_tower(config: FavorConfig, stream: Stream) -> HFAudioEncoder:
    tower = getattr(config, stream.config)
    spectrogram = tower.model_type == "audio-spectrogram-transformer"
    extractor = (
        ASTFeatureExtractor(num_mel_bins=tower.num_mel_bins, max_length=tower.max_length)
        if spectrogram
        else Wav2Vec2FeatureExtractor()
    )
    options = {"pool_frequency": spectrogram, "chunk_batch_size": config.chunk_batch_size, "frozen": False}
    return HFAudioEncoder.from_config(tower, feature_extractor=extractor, **options)


_BUILD: dict[str, Callable[[FavorConfig, Stream], Any]] = {
    "pictures": _vision_tower,
    "speech": _speech_tower,
    "sound": _sound_tower,
}

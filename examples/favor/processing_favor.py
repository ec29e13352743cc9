"""Conversations with media to what the model takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, BlipImageProcessor, SiglipImageProcessor

from avfusion import FrameSynchroniser, InvalidValueError, Waveform
from avfusion.encoders import TokenGrid, log_mel_chunks, preprocess_videos
from avfusion.functional import cut_windows
from avfusion.models import AudioVisualProcessor, Clip, first_question
from examples.favor.configuration_favor import FavorConfig
from examples.favor.fusion import PICTURES_ONLY
from examples.favor.streams import STREAMS, VISUAL, layout, microseconds, pad_features, sound_grid, streams_of

# The published prompt. The media stand in the first turn that has them; answers end with the end token.
CHAT_TEMPLATE = """{%- for message in messages -%}
{%- if message.role == 'system' -%}
{{ message.content if message.content is string else message.content | map(attribute='text') | join }}{{ ' ' }}
{%- elif message.role == 'user' -%}
{{ 'USER: ' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- if message.content | rejectattr('type', 'equalto', 'text') | list -%}
{{ '<Img>' + media_token + '</Img> ' }}
{%- endif -%}
{{ message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join(' ') }}
{%- endif -%}
{{ '\\n' }}
{%- else -%}
{{ 'ASSISTANT:' }}{{ message.content if message.content is string else message.content | map(attribute='text') | join }}
{{- eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'ASSISTANT:' }}
{%- endif -%}"""


def shared_options(config: FavorConfig) -> dict[str, Any]:
    """What the processor must know of the configuration, to count embeddings."""
    names = ("frame_rate", "slots", "window_frames", "stride_frames", "num_queries", "num_query_tokens", "fusion")
    further = {name: stream for name, stream in streams_of(config).items() if stream.kind == "sound"}
    grids = {name: sound_grid(getattr(config, stream.config)) for name, stream in further.items()}
    return {**{name: getattr(config, name) for name in names}, "sound_grids": {k: list(v) for k, v in grids.items()}}


def image_processor(config: FavorConfig) -> Any:
    """An image processor for a vision tower whose checkpoint brings none; towers of timm normalise by themselves."""
    side = config.vision_config.image_size
    size = {"height": side, "width": side}
    if config.qformer_config is not None:
        return BlipImageProcessor(size=size)
    return SiglipImageProcessor(size=size, do_normalize=config.vision_config.model_type != "timm_wrapper")


class FavorProcessor(AudioVisualProcessor):
    """The library's processor, with what the towers take made here: by the image processor and Whisper's extractor.

    Args:
        tokenizer: the language model's.
        image_processor: the vision tower's; must make every picture one size.
        feature_extractor: Whisper's.
        qformer_tokenizer: of InstructBLIP's Q-Former: each clip is then seen in the light of its first question.
        chat_template: the tokenizer's own without it, or the published prompt if it has none.
        placeholder: a token of the tokenizer that no text has; it keeps a place for each embedding.
        frame_rate: frames a second that are read from videos; as are all below, it must be the model's.
        slots: places for tokens in a frame.
        window_frames: frames a window.
        stride_frames: frames from window to window.
        num_queries: embeddings a window.
        num_query_tokens: visual tokens a frame.
        fusion: the model's.
        sound_grids: when the tokens of further audio towers are, by stream (:class:`~avfusion.encoders.TokenGrid`);
            they are given the sound itself.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        feature_extractor: Any,
        qformer_tokenizer: Any = None,
        chat_template: str | None = None,
        placeholder: str = "<unk>",  # not keyword-only: transformers would not read it back from a file
        frame_rate: float = 2.0,
        slots: int = 32,
        window_frames: int = 10,
        stride_frames: int | None = None,
        num_queries: int = 32,
        num_query_tokens: int = 32,
        fusion: str = "synchronised",
        sound_grids: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        super().__init__(
            tokenizer,
            image_processor=image_processor,
            feature_extractor=feature_extractor,
            chat_template=chat_template or tokenizer.chat_template or CHAT_TEMPLATE,
            placeholder=placeholder,
            frame_rate=frame_rate,
            sample_rate=feature_extractor.sampling_rate,
        )
        self._qformer_tokenizer = qformer_tokenizer
        self.slots = slots
        self.window_frames = window_frames
        self.stride_frames = stride_frames
        self.num_queries = num_queries
        self.num_query_tokens = num_query_tokens
        self.fusion = fusion
        self.sound_grids = {name: list(grid) for name, grid in (sound_grids or {}).items()}

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts that every such processor has."""
        return ["tokenizer", "image_processor", "feature_extractor"]

    @property
    def template_takes_parts(self) -> bool:  # type: ignore[override]
        """Whether the chat template places the media itself, as those of this assembly do."""
        return "media_token" in self.chat_template

    @property
    def qformer_tokenizer(self) -> Any:
        """The tokenizer of InstructBLIP's Q-Former, if there is one."""
        return self._qformer_tokenizer

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "qformer_tokenizer": self.qformer_tokenizer is not None}

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Saves all parts; the Q-Former's tokenizer in ``qformer_tokenizer/``, as InstructBLIP's checkpoints do."""
        if self.qformer_tokenizer is not None:
            self.qformer_tokenizer.save_pretrained(Path(save_directory) / "qformer_tokenizer")
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        return super().from_args_and_dict(args, {**processor_dict, "qformer_tokenizer": None}, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:
        """Loads what :meth:`save_pretrained` wrote."""
        processor: Self = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        stored, _ = cls.get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if stored.get("qformer_tokenizer"):
            name = pretrained_model_name_or_path
            processor._qformer_tokenizer = AutoTokenizer.from_pretrained(name, subfolder="qformer_tokenizer")
        return processor

    def instruction(self, messages: Sequence[Any]) -> str | None:
        """The first question, if there is a Q-Former that reads it."""
        return None if self.qformer_tokenizer is None else first_question(messages)

    def encode_media(self, clips: Sequence[Clip]) -> tuple[dict[str, Tensor], list[int]]:
        """The clips' tensors, and how many embeddings each will give."""
        if self.fusion in PICTURES_ONLY:
            clips = [clip._replace(waveform=None) for clip in clips]
            for number, clip in enumerate(clips):
                if clip.video is None and "visual_features" not in (clip.features or {}):
                    raise InvalidValueError(
                        f"media: must have pictures for fusion={self.fusion!r}, clip {number} has none"
                    )
        return super().encode_media(clips)

    def encode_features(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[dict[str, Tensor], list[int]]:
        data = pad_features(features)
        return data, self._counts(data, len(features))

    def encode_clips(self, clips: Sequence[Clip]) -> tuple[dict[str, Tensor], list[int]]:
        data: dict[str, Tensor] = {}
        seen = any(clip.video is not None and clip.video.mask.any() for clip in clips)
        if seen:
            made = preprocess_videos([clip.video for clip in clips], self.image_processor)
            names = ("pixel_values_videos", "video_mask", "video_spans")
            data |= zip(names, (made.pixels, made.mask, microseconds(made.spans)), strict=True)
        if any(clip.waveform is not None and clip.waveform.mask.any() for clip in clips):
            data |= self._sound([clip.waveform for clip in clips])
        counts = self._counts(data, len(clips))
        if self.qformer_tokenizer is not None and seen:
            data |= self._instructions([clip.instruction or "" for clip in clips])
        return data, counts

    def prepare_for_threads(self) -> None:
        """Sets the tokenizers up, which else the first text does, and which two threads cannot do at once."""
        self.tokenizer("")
        if self.qformer_tokenizer is not None:
            self._instructions([""])

    def _template_options(self) -> dict[str, Any]:
        return {"media_token": self.placeholder}

    def _instructions(self, texts: Sequence[str]) -> dict[str, Tensor]:
        asked = self.qformer_tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return {"qformer_input_ids": asked["input_ids"], "qformer_attention_mask": asked["attention_mask"]}

    def _counts(self, data: Mapping[str, Tensor], clips: int) -> list[int]:
        """How many embeddings the connector gives for each clip of such media or features."""
        grids = {name: TokenGrid(*grid) for name, grid in self.sound_grids.items()}
        streams = layout(data, grids)
        if not streams:
            return [0] * clips
        if self.fusion in PICTURES_ONLY:
            counts: list[int] = (streams[VISUAL].mask[..., 0].sum(1) * self.num_query_tokens).tolist()
            return [min(count, self.num_query_tokens) for count in counts] if self.fusion == "averaged" else counts
        others = {name: 1 for name in STREAMS if name != VISUAL}
        place = FrameSynchroniser(visual_dim=1, stream_dims=others, frame_rate=self.frame_rate, slots=self.slots)
        apart = self.fusion == "separate"
        frames = [place(**{name: stream}) for name, stream in streams.items()] if apart else [place(**streams)]
        windows = [cut_windows(one, self.window_frames, self.stride_frames).window_mask.sum(1) for one in frames]
        return [int(count) for count in torch.stack(windows).sum(0) * self.num_queries]

    def _sound(self, waveforms: Sequence[Waveform | None]) -> dict[str, Tensor]:
        extractor = self.feature_extractor
        for wave in waveforms:
            if wave is not None and wave.sample_rate != extractor.sampling_rate:
                raise InvalidValueError(
                    f"waveform.sample_rate: must be {extractor.sampling_rate}, found {wave.sample_rate}; resample it"
                )
        samples = [torch.zeros(0) if wave is None else wave.samples[wave.mask] for wave in waveforms]
        starts = torch.cat([torch.zeros(1, dtype=torch.float64) if wave is None else wave.start for wave in waveforms])
        spectra = log_mel_chunks(Waveform.from_samples(samples, extractor.sampling_rate, start=starts), extractor)
        data = {
            "input_features": spectra.features,
            "feature_attention_mask": spectra.mask,
            "audio_start": microseconds(spectra.start),
        }
        if self.sound_grids:
            data["input_values"] = pad_sequence(samples, batch_first=True)
            real = [torch.ones(len(wave), dtype=torch.bool) for wave in samples]
            data["input_values_mask"] = pad_sequence(real, batch_first=True)
        return data

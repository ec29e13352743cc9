"""What FAVOR is compared with, behind the same processor and the same ``generate``."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from avfusion import InvalidValueError
from avfusion.encoders import InstructBlipVisualEncoder, WhisperAudioEncoder
from avfusion.models import Clip
from examples.favor.assembling import new_model
from examples.favor.configuration_favor import FavorConfig
from examples.favor.modeling_favor import FavorForConditionalGeneration
from examples.favor.presets import read_preset
from examples.favor.processing_favor import FavorProcessor, shared_options
from examples.favor.tiny import tiny_config, tiny_tokenizer

BASELINES = ("whisper", "instructblip-averaged", "instructblip-concatenated", "video-llama")
PRESET = "favor-vicuna-7b"  # whose parts they are made of

# InstructBLIP's prompt: the pictures' tokens stand before even the begin token.
INSTRUCTBLIP_TEMPLATE = """{%- for message in messages -%}
{%- if message.content is not string and message.content | rejectattr('type', 'equalto', 'text') | list -%}
{{ media_token }}
{%- endif -%}
{%- if loop.first -%}
{{ bos_token }}
{%- endif -%}
{{ message.content if message.content is string else message.content | map(attribute='text') | select | join(' ') }}
{%- if message.role == 'assistant' -%}
{{ eos_token }}
{%- endif -%}
{%- endfor -%}"""


def baseline(
    name: str,
    *,
    tiny: bool = False,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    attn_implementation: str | None = None,
    quantize: str | None = None,
) -> tuple[Any, FavorProcessor]:
    """Model and processor of a baseline, in evaluation mode.

    Args:
        name: one of :data:`BASELINES`. ``"whisper"`` transcribes the sound, whatever is asked.
            ``"instructblip-averaged"`` and ``"instructblip-concatenated"`` are InstructBLIP with its own language
            model, which sees the mean of the frames' tokens or all of them. ``"video-llama"`` has FAVOR's parts and
            sizes and a Q-Former each for pictures and sound, unsynchronised and not yet trained.
        tiny: its small and random twin.
        device: for all of it.
        dtype: of the parameters.
        attn_implementation: of all attention.
        quantize: ``"4bit"`` or ``"8bit"`` for the language model of ``"video-llama"``.

    Raises:
        InvalidValueError: another name, or ``quantize`` for the others.
    """
    if name not in BASELINES:
        raise InvalidValueError(f"baseline: must be one of {', '.join(BASELINES)}, found {name!r}")
    model: Any
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attn_implementation}
    if name == "video-llama":
        # Half the queries for each of the two, so that a window gives as many embeddings.
        queries = tiny_config(PRESET).num_queries if tiny else FavorConfig().num_queries
        changes = {"fusion": "separate", "num_queries": queries // 2}
        model, processor = new_model(
            "tiny" if tiny else PRESET, device=device, quantize=quantize, options=changes, **options
        )
        model = model.eval() if device is None or quantize else model.to(device).eval()
    elif quantize is not None:
        raise InvalidValueError(f"quantize: must be None for {name}, found {quantize!r}")
    else:
        given = {key: value for key, value in options.items() if value is not None}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, processor = _whisper(tiny, given) if name == "whisper" else _instructblip(name, tiny, given)
        model = model.to(device or "cpu").eval()
    model.name_or_path = f"baseline:{name}{':tiny' if tiny else ''}"
    return model, processor


class WhisperBaseline(nn.Module):
    """Whisper's own decoder: writes down what is said.

    It takes what the processor gives for any conversation; of that it uses the sound alone.

    Args:
        whisper: encoder and decoder.
    """

    def __init__(self, whisper: WhisperForConditionalGeneration) -> None:
        super().__init__()
        self.whisper: Any = whisper
        self.config, self.generation_config = self.whisper.config, self.whisper.generation_config

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return torch.device(self.whisper.device)

    @torch.no_grad()
    def generate(
        self,
        *,
        input_ids: Tensor,
        input_features: Tensor | None = None,
        feature_attention_mask: Tensor | None = None,
        media_index: Tensor | None = None,
        max_new_tokens: int | None = None,
        num_beams: int = 1,
        do_sample: bool = False,
        **passed_over: Any,
    ) -> Tensor:
        """The prompt and the transcript of each row, as language models give them.

        Args:
            input_ids: ``(row, length)``: the prompts, which are only handed on.
            input_features: ``(clip, mel, frame)``: whole chunks.
            feature_attention_mask: ``(clip, frame)``.
            media_index: ``(row,)``: the clip of each row.
            max_new_tokens: of each chunk; half of what the decoder can hold at most, as Whisper does by itself.
            num_beams: of beam search.
            do_sample: sample.
            **passed_over: what other models make of the same conversation.

        Raises:
            InvalidValueError: a row without sound.
        """
        rows = torch.arange(len(input_ids)) if media_index is None else media_index.cpu()
        if input_features is None:
            raise InvalidValueError("input_features: must be given, as Whisper takes sound only")
        clips, mels, length = input_features.shape
        chunk = 2 * self.config.max_source_positions
        mask = input_features.new_ones(clips, length) if feature_attention_mask is None else feature_attention_mask
        real = mask.bool().reshape(clips, -1, chunk).any(-1).cpu()
        for row, clip in enumerate(rows.tolist()):
            if not 0 <= clip < clips or not bool(real[clip].any()):
                raise InvalidValueError(f"input_features: must hold sound for every row, row {row} has none")
        chunks = input_features.reshape(clips, mels, -1, chunk).transpose(1, 2)[real.to(input_features.device)]
        longest = self.config.max_target_positions // 2
        out = self.whisper.generate(
            input_features=chunks.to(self.device, self.whisper.dtype),
            max_new_tokens=min(longest, max_new_tokens or longest),
            num_beams=num_beams,
            do_sample=do_sample,
        ).to(input_ids)
        end, pad = self.config.eos_token_id, self.config.pad_token_id
        said = [chunk_ids[(chunk_ids != end) & (chunk_ids != pad)] for chunk_ids in out]
        whole = [torch.cat([*part, input_ids.new_tensor([end])]) for part in _split(said, real.sum(1).tolist())]
        answers = pad_sequence([whole[clip] for clip in rows.tolist()], batch_first=True, padding_value=pad)
        return torch.cat([input_ids, answers], 1)


class SoundProcessor(FavorProcessor):
    """FAVOR's processor for a model without eyes."""

    def encode_media(self, clips: Sequence[Clip]) -> tuple[dict[str, Tensor], list[int]]:
        for number, clip in enumerate(clips):
            if clip.waveform is None:
                raise InvalidValueError(f"media: must have sound for this model, clip {number} has none")
        return super().encode_media([clip._replace(video=None) for clip in clips])


def _whisper(tiny: bool, options: dict[str, Any]) -> tuple[WhisperBaseline, FavorProcessor]:
    if tiny:
        config = tiny_config(PRESET)
        model = WhisperForConditionalGeneration(config.audio_config).to(options.get("dtype"))
        model.generation_config.suppress_tokens = None
        tokenizer, token = tiny_tokenizer(), "<unk>"
        extractor = WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins, chunk_length=1)
    else:
        name = read_preset(PRESET).audio
        model = WhisperForConditionalGeneration.from_pretrained(name, **options)
        tokenizer, token = AutoTokenizer.from_pretrained(name), "<|startoflm|>"  # which no transcript has
        extractor = WhisperFeatureExtractor.from_pretrained(name)
    pictures = BlipImageProcessor(size={"height": 32, "width": 32})  # of which nothing is seen
    return WhisperBaseline(model), SoundProcessor(tokenizer, pictures, extractor, placeholder=token)


def _instructblip(name: str, tiny: bool, options: dict[str, Any]) -> tuple[Any, FavorProcessor]:
    if tiny:
        small = tiny_config(PRESET)
        blip = InstructBlipForConditionalGeneration(
            InstructBlipConfig(
                vision_config=small.vision_config.to_dict(),
                qformer_config=small.qformer_config.to_dict(),
                text_config=small.text_config.to_dict(),
                num_query_tokens=small.num_query_tokens,
            )
        ).to(options.get("dtype"))
        side = small.vision_config.image_size
        tokenizer, asked = tiny_tokenizer(), tiny_tokenizer()
        pictures: Any = BlipImageProcessor(size={"height": side, "width": side})
    else:
        source = read_preset(PRESET).vision
        blip = InstructBlipForConditionalGeneration.from_pretrained(source, **options)
        tokenizer = AutoTokenizer.from_pretrained(source, add_bos_token=False)  # the template has it
        asked = AutoTokenizer.from_pretrained(source, subfolder="qformer_tokenizer")
        pictures = AutoImageProcessor.from_pretrained(source)
    if tokenizer.pad_token in (None, "<unk>"):
        tokenizer.pad_token = tokenizer.eos_token
    model = from_instructblip(blip, fusion=name.partition("-")[2])
    processor = FavorProcessor(
        tokenizer,
        pictures,
        WhisperFeatureExtractor(),
        qformer_tokenizer=asked,
        chat_template=INSTRUCTBLIP_TEMPLATE,
        **shared_options(model.config),
    )
    return model, processor


def from_instructblip(
    blip: InstructBlipForConditionalGeneration, *, fusion: str, media_token_id: int = 0
) -> FavorForConditionalGeneration:
    """InstructBLIP with a causal language model, for clips: its parts in FAVOR's places.

    Args:
        blip: gives its parts, which are shared.
        fusion: ``"averaged"`` or ``"concatenated"``.
        media_token_id: the token that keeps a place.
    """
    # What never hears has an audio tower without layers.
    deaf = {"model_type": "whisper", "encoder_layers": 0, "d_model": 4, "encoder_attention_heads": 1}
    config = FavorConfig(
        text_config=blip.config.text_config,
        vision_config=blip.config.vision_config,
        qformer_config=blip.config.qformer_config,
        audio_config=deaf,
        num_query_tokens=blip.config.num_query_tokens,
        num_queries=blip.config.num_query_tokens,
        fusion=fusion,
        diversity_weight=0.0,
        media_token_id=media_token_id,
    )
    with torch.device("meta"):
        model = FavorForConditionalGeneration(config)
    parts: Any = blip
    model.visual_encoder = InstructBlipVisualEncoder(model=blip, frozen=False)
    ears = WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins)
    model.audio_encoder = WhisperAudioEncoder.from_config(config.audio_config, feature_extractor=ears).to(parts.dtype)
    model.connector.proj = parts.language_projection
    model.language_model = parts.language_model
    model.generation_config = parts.generation_config
    model.generation_config.suppress_tokens = [media_token_id]
    return model.eval()


def _split(values: Sequence[Tensor], counts: Sequence[int]) -> list[Sequence[Tensor]]:
    ends = torch.tensor([0, *counts]).cumsum(0).tolist()
    return [values[start:end] for start, end in pairwise(ends)]

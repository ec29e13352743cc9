"""Named combinations of parts, at full size and as tiny random twins of themselves."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoTokenizer,
    BlipImageProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    WhisperFeatureExtractor,
)

from avfusion.encoders import HFAudioEncoder, HFVisionEncoder, InstructBlipVisualEncoder, WhisperAudioEncoder
from examples.favor.configuration_favor import FavorConfig
from examples.favor.connector import build_connector
from examples.favor.modeling_favor import FavorForConditionalGeneration
from examples.favor.processing_favor import FavorProcessor
from examples.favor.streams import sound_grid, streams_of

CHATML = """{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- if message.content | rejectattr('type', 'equalto', 'text') | list -%}
{{ '<|vision_start|>' + media_token + '<|vision_end|>\\n' }}
{%- endif -%}
{{ message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join(' ') }}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}"""


class Preset(NamedTuple):
    """Where the parts come from, how large they are, and how they are put together.

    Attributes:
        text: the language model's checkpoint.
        audio: Whisper's.
        vision: the vision tower's.
        events: a second audio tower's.
        sizes: the towers' configurations, by name, for use without their checkpoints.
        options: of :class:`FavorConfig`.
        media_token: a token of the language model's vocabulary that no text has.
        media_token_id: its id.
        chat_template: the published prompt without it.
        lora_modules: what LoRA adapts.
    """

    text: str
    audio: str
    vision: str
    events: str | None
    sizes: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]
    media_token: str = "<unk>"
    media_token_id: int = 0
    chat_template: str | None = None
    lora_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


_WHISPER_V2 = {
    "model_type": "whisper",
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "num_mel_bins": 80,
    "decoder_layers": 32,
    "decoder_attention_heads": 20,
    "decoder_ffn_dim": 5120,
    "vocab_size": 51865,
}
_WHISPER_V3 = {**_WHISPER_V2, "num_mel_bins": 128, "vocab_size": 51866}
_VICUNA_7B = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096}
_VICUNA_13B = {
    **_VICUNA_7B,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
}
_EVA = {"model_type": "instructblip_vision_model", "hidden_act": "gelu"}
_QFORMER = {"model_type": "instructblip_qformer", "vocab_size": 30523, "encoder_hidden_size": 1408}
_QWEN3_8B = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
}
_SIGLIP2 = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "vision_use_head": False,
}
_FAVOR: dict[str, Mapping[str, Any]] = {"audio_config": _WHISPER_V2, "vision_config": _EVA, "qformer_config": _QFORMER}

PRESETS = {
    "favor-vicuna-7b": Preset(
        text="lmsys/vicuna-7b-v1.5",
        audio="openai/whisper-large-v2",
        vision="Salesforce/instructblip-vicuna-7b",
        events=None,
        sizes={**_FAVOR, "text_config": _VICUNA_7B},
        options={},
    ),
    "favor-vicuna-13b": Preset(
        text="lmsys/vicuna-13b-v1.5",
        audio="openai/whisper-large-v2",
        vision="Salesforce/instructblip-vicuna-13b",
        events=None,
        sizes={**_FAVOR, "text_config": _VICUNA_13B},
        options={},
    ),
    "video-salmonn-13b": Preset(
        text="lmsys/vicuna-13b-v1.5",
        audio="openai/whisper-large-v2",
        vision="Salesforce/instructblip-vicuna-13b",
        # In BEATs' place, which transformers does not have.
        events="MIT/ast-finetuned-audioset-10-10-0.4593",
        sizes={**_FAVOR, "text_config": _VICUNA_13B, "event_config": {"model_type": "audio-spectrogram-transformer"}},
        options={"num_queries": 30, "fine_window_frames": 1, "fine_num_queries": 3},
    ),
    "modern": Preset(
        text="Qwen/Qwen3-8B",
        audio="openai/whisper-large-v3",
        vision="google/siglip2-so400m-patch14-224",
        events=None,
        sizes={"audio_config": _WHISPER_V3, "vision_config": _SIGLIP2, "text_config": _QWEN3_8B},
        options={},
        media_token="<|video_pad|>",
        media_token_id=151656,
        chat_template=CHATML,
    ),
}


def lora_config(preset: str, **options: Any) -> LoraConfig:
    """LoRA on the language model's attention as published (rank 32), with the connector trained and saved beside it.

    Args:
        preset: name of a preset.
        **options: of peft's ``LoraConfig``, over the published ones.
    """
    modules = "|".join(PRESETS[preset].lora_modules)
    published = {
        "r": 32,
        "lora_alpha": 32,
        "lora_dropout": 0.1,
        "target_modules": rf".*language_model\..*\.({modules})",
        "modules_to_save": ["connector"],
    }
    return LoraConfig(**{**published, **options})


def full_config(preset: str) -> FavorConfig:
    """A preset's configuration without its checkpoints."""
    chosen = PRESETS[preset]
    return FavorConfig(**chosen.sizes, **{"media_token_id": chosen.media_token_id, **chosen.options})


def assemble(
    preset: str, *, quantization_config: Any = None, device_map: Any = None, **options: Any
) -> tuple[FavorForConditionalGeneration, FavorProcessor]:
    """Loads the pretrained parts of a preset, with a new connector.

    Args:
        preset: name of a preset.
        quantization_config: of the language model (bitsandbytes).
        device_map: of the language model; the towers and the connector go where its embeddings are.
        **options: of every part's ``from_pretrained``: ``dtype``, ``attn_implementation``, ….
    """
    chosen = PRESETS[preset]
    llm = AutoModelForCausalLM.from_pretrained(
        chosen.text, quantization_config=quantization_config, device_map=device_map, **options
    )
    whisper = WhisperAudioEncoder.from_pretrained(chosen.audio, **options)
    parts: dict[str, Any] = {"language_model": llm, "audio_tower": whisper.model}
    configs = {"text_config": llm.config, "audio_config": whisper.model.config}
    if "qformer_config" in chosen.sizes:
        blip = InstructBlipVisualEncoder.from_pretrained(chosen.vision, **options)
        parts |= {"vision_tower": blip.vision_model, "qformer": blip.qformer, "query_tokens": blip.query_tokens}
        configs |= {"vision_config": blip.vision_model.config, "qformer_config": blip.qformer.config}
    else:
        parts["vision_tower"] = HFVisionEncoder.from_pretrained(chosen.vision, **options).model
        configs["vision_config"] = parts["vision_tower"].config
    if chosen.events is not None:
        events = HFAudioEncoder.from_pretrained(chosen.events, pool_frequency=True, **options)
        configs["event_config"] = events.model.config
    config = FavorConfig(**configs, **{"media_token_id": chosen.media_token_id, **chosen.options})
    with torch.device("meta"):
        model = FavorForConditionalGeneration(config)
    for name, part in parts.items():
        setattr(model, name, part)
    if chosen.events is not None:
        model.event_tower = events
    model.connector = build_connector(config).to(whisper.dtype)
    model.generation_config = llm.generation_config
    model.generation_config.suppress_tokens = [config.media_token_id]
    where = llm.get_input_embeddings().weight.device
    for name, child in model.named_children():
        if name != "language_model":
            child.to(where)
    if isinstance(getattr(model, "query_tokens", None), nn.Parameter):
        model.query_tokens.data = model.query_tokens.data.to(where)
    return model.eval(), preset_processor(preset, config)


def preset_processor(preset: str, config: FavorConfig) -> FavorProcessor:
    """The processor of a preset's pretrained parts, without their weights."""
    chosen = PRESETS[preset]
    return _processor(
        chosen,
        config,
        AutoTokenizer.from_pretrained(chosen.text),
        AutoImageProcessor.from_pretrained(chosen.vision),
        WhisperFeatureExtractor.from_pretrained(chosen.audio),
        AutoTokenizer.from_pretrained(chosen.vision, subfolder="qformer_tokenizer")
        if "qformer_config" in chosen.sizes
        else None,
    )


def shared_options(config: FavorConfig) -> dict[str, Any]:
    """What the processor must know of the configuration, to count embeddings."""
    names = ("frame_rate", "slots", "window_frames", "stride_frames", "num_queries", "num_query_tokens", "fusion")
    further = {name: stream for name, stream in streams_of(config).items() if stream.kind == "sound"}
    grids = {name: sound_grid(getattr(config, stream.config)) for name, stream in further.items()}
    return {**{name: getattr(config, name) for name in names}, "sound_grids": {k: list(v) for k, v in grids.items()}}


def _processor(
    preset: Preset, config: FavorConfig, tokenizer: Any, image_processor: Any, feature_extractor: Any, qformer: Any
) -> FavorProcessor:
    if tokenizer.pad_token in (None, preset.media_token):
        tokenizer.pad_token = tokenizer.eos_token
    return FavorProcessor(
        tokenizer,
        image_processor,
        feature_extractor,
        qformer_tokenizer=qformer,
        chat_template=preset.chat_template,
        placeholder=preset.media_token,
        **shared_options(config),
    )


_TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 300, "max_position_embeddings": 1024, "d_model": 32,
    "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_layers": 1,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 64, "max_source_positions": 50, "image_size": 28,
    "encoder_hidden_size": 32, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1, "begin_suppress_tokens": None, "num_mel_bins": 80, "max_length": 100,
}  # fmt: skip


def tiny_config(preset: str) -> FavorConfig:
    """A preset's kinds of parts, a few thousand parameters each."""
    chosen = PRESETS[preset]
    sizes = {}
    for name, large in chosen.sizes.items():
        known = CONFIG_MAPPING[large["model_type"]]()
        small = {key: value for key, value in _TINY.items() if hasattr(known, key) or key in large}
        if large["model_type"] != "whisper":
            small.pop("num_mel_bins", None)
        sizes[name] = {**large, **small}
    options = {
        "num_query_tokens": 4,
        "stream_dim": 32,
        "slots": 25,
        "window_frames": 4,
        "num_queries": 4,
        "connector_hidden_size": 32,
        "connector_heads": 2,
        "media_token_id": 0,
    }
    if "fine_window_frames" in chosen.options:
        options |= {"fine_window_frames": 2, "fine_num_queries": 2}
    return FavorConfig(**sizes, **options)


def tiny_tokenizer(end: str = "</s>") -> PreTrainedTokenizerFast:
    """Bytes as tokens, so that any text is known."""
    tokens = ["<unk>", "<s>", end, "<|im_start|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    rule = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    rule.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rule.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=rule, unk_token="<unk>", bos_token="<s>", eos_token=end, pad_token=end,
    )  # fmt: skip


def tiny(preset: str = "favor-vicuna-7b") -> tuple[FavorForConditionalGeneration, FavorProcessor]:
    """A preset's tiny twin with random weights, to try everything without downloads."""
    chosen = PRESETS[preset]._replace(media_token="<unk>")
    config = tiny_config(preset)
    size = {"height": config.vision_config.image_size, "width": config.vision_config.image_size}
    pictures = BlipImageProcessor if config.qformer_config is not None else SiglipImageProcessor
    extractor = WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins, chunk_length=1)
    processor = _processor(
        chosen,
        config,
        tiny_tokenizer("<|im_end|>" if chosen.chat_template else "</s>"),
        pictures(size=size),
        extractor,
        tiny_tokenizer() if config.qformer_config is not None else None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what is trained on top fits the next time too
        return FavorForConditionalGeneration(config).eval(), processor

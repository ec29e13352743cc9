"""Tiny random twins of presets, to try everything without downloads."""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast, WhisperFeatureExtractor

from examples.favor.configuration_favor import FavorConfig
from examples.favor.modeling_favor import FavorForConditionalGeneration
from examples.favor.presets import read_preset, stated_sizes
from examples.favor.processing_favor import CHAT_TEMPLATE, FavorProcessor, image_processor, shared_options

# As small language models of today bring it: the system prompt first, turns that end with a token.
CHATML = """{%- if messages[0].role != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}"""

_TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 300, "max_position_embeddings": 1024, "d_model": 32,
    "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_layers": 1,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 64, "max_source_positions": 50, "image_size": 28,
    "encoder_hidden_size": 32, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1, "begin_suppress_tokens": None, "num_mel_bins": 80, "max_length": 100,
}  # fmt: skip
_TINY_TIMM = {"architecture": "test_efficientnet", "image_size": 64}  # timm's own for tests: 2 × 2 tokens of it


def tiny_config(preset: str) -> FavorConfig:
    """A preset's kinds of parts, a few thousand parameters each."""
    sizes = {}
    for name, large in stated_sizes(preset).items():
        known = CONFIG_MAPPING[large["model_type"]]()
        small = {key: value for key, value in _TINY.items() if hasattr(known, key) or key in large}
        if large["model_type"] != "whisper":
            small.pop("num_mel_bins", None)
        if name == "vision_config":
            small["patch_size"] = 14  # four patches
        sizes[name] = {**large, **(_TINY_TIMM if large["model_type"] == "timm_wrapper" else small)}
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
    if "fine_window_frames" in read_preset(preset).options:
        options |= {"fine_window_frames": 2, "fine_num_queries": 2}
    return FavorConfig(**sizes, **options)


def tiny_tokenizer(end: str = "</s>", chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Bytes as tokens, so that any text is known."""
    tokens = ["<unk>", "<s>", end, "<|im_start|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    rule = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    rule.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rule.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rule, unk_token="<unk>", bos_token="<s>", eos_token=end, pad_token=end,
    )  # fmt: skip
    if chat_template is not None:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
        tokenizer.chat_template = chat_template
    return tokenizer


def tiny(preset: str = "favor-vicuna-7b") -> tuple[FavorForConditionalGeneration, FavorProcessor]:
    """A preset's tiny twin with random weights."""
    config, published = tiny_config(preset), read_preset(preset).prompt == "published"
    own: dict[str, Any] = {} if published else {"end": "<|im_end|>", "chat_template": CHATML}
    processor = FavorProcessor(
        tiny_tokenizer(**own),
        image_processor(config),
        WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins, chunk_length=1),
        qformer_tokenizer=tiny_tokenizer() if config.qformer_config is not None else None,
        chat_template=CHAT_TEMPLATE if published else None,
        placeholder="<unk>",
        **shared_options(config),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what is trained on top fits the next time too
        return FavorForConditionalGeneration(config).eval(), processor

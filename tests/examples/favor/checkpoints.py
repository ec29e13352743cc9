"""Small random checkpoints of every kind of part, as they lie on a disk."""

from pathlib import Path

import timm
import torch
from transformers import (
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipModel,
    LlamaConfig,
    LlamaForCausalLM,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperFeatureExtractor,
    WhisperModel,
)

from examples.favor.tiny import CHATML, tiny_config, tiny_tokenizer

TEMPLATE = CHATML.replace("a helpful assistant", "SmolLM")


def language_model(folder: Path, *, template: str | None = TEMPLATE, tied: bool = True) -> Path:
    """With a table that is as long as the tokenizer's vocabulary, as SmolLM2's is."""
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer("<|im_end|>", template)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def whisper(folder: Path) -> Path:
    torch.manual_seed(2)
    WhisperModel(tiny_config("modern").audio_config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80, chunk_length=1).save_pretrained(folder)
    return folder


def siglip(folder: Path) -> Path:
    """Of 3 × 3 patches."""
    torch.manual_seed(3)
    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=24, patch_size=8
    )
    SiglipVisionModel(config).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 24, "width": 24}).save_pretrained(folder)
    return folder


def timm_model(folder: Path, name: str = "test_efficientnet") -> Path:
    torch.manual_seed(4)
    model = timm.create_model(name, pretrained=False)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return folder


def instructblip(folder: Path) -> Path:
    torch.manual_seed(5)
    small = tiny_config("favor-vicuna-7b")
    model = InstructBlipModel(
        InstructBlipConfig(
            vision_config=small.vision_config.to_dict(),
            qformer_config=small.qformer_config.to_dict(),
            text_config=small.text_config.to_dict(),
            num_query_tokens=4,
            image_token_index=0,
        )
    )
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(folder)
    BlipImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder / "qformer_tokenizer")
    return folder

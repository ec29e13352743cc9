"""The published system on the meta device: Whisper large-v2, InstructBLIP, Vicuna with LoRA, the default connector."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avfusion import AudioVisualConnector, SlidingWindowProjector
from avfusion.encoders import InstructBlipVisualEncoder, WhisperAudioEncoder
from avfusion.models import AudioVisualLanguageModel

VICUNA = {
    "7B": LlamaConfig(vocab_size=32000),
    "13B": LlamaConfig(
        vocab_size=32000, hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40
    ),
}
PARAMETERS = {"7B": 6_738_415_616, "13B": 13_015_864_320}
WHISPER_ENCODER = 636_784_640


def count(module: nn.Module, *, trained: bool = False) -> int:
    chosen = [parameter for parameter in module.parameters() if parameter.requires_grad or not trained]
    assert all(parameter.is_meta for parameter in chosen)
    return sum(parameter.numel() for parameter in chosen)


@pytest.mark.parametrize("size", VICUNA)
def test_the_published_system(size: str) -> None:
    config = VICUNA[size]
    llm_dim, layers = config.hidden_size, config.num_hidden_layers
    whisper = WhisperConfig(d_model=1280, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120)
    tiny = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    with torch.device("meta"):
        llama = LlamaForCausalLM(config)
        instruct = InstructBlipForConditionalGeneration(InstructBlipConfig(text_config=tiny.to_dict()))
        encoder = WhisperEncoder(whisper)
        connector = AudioVisualConnector(projector=SlidingWindowProjector(llm_dim=llm_dim))
        lora = LoraConfig(
            r=32, lora_alpha=32, lora_dropout=0.1, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]
        )
        assert count(llama) == PARAMETERS[size]
        language_model = get_peft_model(llama, lora)
    model = AudioVisualLanguageModel(
        language_model=language_model,
        connector=connector,
        audio_encoders={"audio": WhisperAudioEncoder(model=encoder, feature_extractor=WhisperFeatureExtractor())},
        visual_encoder=InstructBlipVisualEncoder(
            model=instruct, image_processor=BlipImageProcessor(size={"height": 224, "width": 224})
        ),
        placeholder_token_id=32000,
    )
    assert count(model.audio_encoders["audio"]) == WHISPER_ENCODER
    visual = model.visual_encoder
    assert visual is not None
    assert (visual.tokens_per_frame, visual.output_dim) == (32, 768)
    assert count(visual) == pytest.approx(1.17e9, rel=0.02)  # ViT-g and the Q-Former
    adapters = layers * 4 * 2 * 32 * llm_dim
    assert count(model, trained=True) == count(connector) + adapters
    assert connector.num_output_tokens(30.0).item() == 192

"""Qwen2-Audio's encoder × a timm ViT × Gemma 3: an encoder whose configuration tells no rate is given one."""

import timm
from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedTokenizerFast,
    Qwen2AudioEncoder,
    Qwen2AudioEncoderConfig,
    WhisperFeatureExtractor,
)

from avfusion import AudioVisualConnector
from avfusion.encoders import HFAudioEncoder, TimmVisualEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import SMALL, Result, assemble, run


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # model = Qwen2AudioForConditionalGeneration.from_pretrained("Qwen/Qwen2-Audio-7B").model.audio_tower
    # extractor = WhisperFeatureExtractor.from_pretrained("Qwen/Qwen2-Audio-7B"), and chunk_seconds=30
    qwen = Qwen2AudioEncoderConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, max_source_positions=100
    )
    audio = HFAudioEncoder(
        model=Qwen2AudioEncoder(qwen),
        feature_extractor=WhisperFeatureExtractor(feature_size=128, chunk_length=2),
        rate=25.0,  # Whisper's 50, of which it averages pairs
        chunk_seconds=2,  # what the model takes at once; longer sound is cut
    )

    # TimmVisualEncoder.from_pretrained("vit_base_patch16_224")
    vit = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, num_classes=0, img_size=32, patch_size=8, embed_dim=24, depth=2
    )
    vision = TimmVisualEncoder(model=vit)

    # Gemma3ForCausalLM.from_pretrained("google/gemma-3-4b-it")
    gemma = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    lora = LoraConfig(r=4, target_modules="all-linear")

    connector = AudioVisualConnector.from_encoders(visual=vision, audio=audio, llm=gemma.hidden_size, **SMALL)
    llm = get_peft_model(Gemma3ForCausalLM(gemma), lora)
    return assemble(tokenizer, language_model=llm, connector=connector, visual=vision, audio=audio)


def main() -> Result:
    return run(build)


if __name__ == "__main__":
    main()

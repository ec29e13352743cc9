"""Qwen2-Audio's encoder × a timm ViT × Gemma 3: an encoder whose configuration tells no rate is given one."""

import timm
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedTokenizerFast,
    Qwen2AudioEncoder,
    Qwen2AudioEncoderConfig,
    WhisperFeatureExtractor,
)

from avfusion import AudioVisualConnector, CausalQFormer, DiversityLoss, FrameSynchroniser, SlidingWindowProjector
from avfusion.encoders import HFAudioEncoder, TimmVisualEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import train_and_ask, word_tokenizer


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

    connector = AudioVisualConnector(
        synchroniser=FrameSynchroniser(
            visual_dim=vision.output_dim, stream_dims={"audio": audio.output_dim}, frame_rate=2.0, slots=16
        ),
        projector=SlidingWindowProjector(
            window_encoder=CausalQFormer(
                input_dim=vision.output_dim + audio.output_dim,
                hidden_size=32,
                num_heads=4,
                num_queries=4,
                window_frames=4,
                tokens_per_frame=16,  # the ViT's patches; of sound there are 12 or 13
            ),
            window_frames=4,
            llm_dim=gemma.hidden_size,
        ),
    )
    return AudioVisualLanguageModel(
        language_model=get_peft_model(Gemma3ForCausalLM(gemma), lora),
        connector=connector,
        audio_encoders={"audio": audio},
        visual_encoder=vision,
        placeholder_token_id=tokenizer.convert_tokens_to_ids("<av>"),
        diversity_loss=DiversityLoss(weight=0.01),
    )


def main() -> tuple[AudioVisualLanguageModel, Tensor, Tensor]:
    tokenizer = word_tokenizer()
    return train_and_ask(build(tokenizer), tokenizer)


if __name__ == "__main__":
    main()

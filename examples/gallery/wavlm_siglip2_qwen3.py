"""WavLM × SigLIP 2 × Qwen3: the whole language model is trained, and windows overlap."""

from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from avfusion import AudioVisualConnector, CausalQFormer, DiversityLoss, FrameSynchroniser, SlidingWindowProjector
from avfusion.encoders import HFAudioEncoder, HFVisionEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import train_and_ask, word_tokenizer

TOWER = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # HFAudioEncoder.from_pretrained("microsoft/wavlm-base-plus"): 50 tokens a second, read off its convolutions
    wavlm = WavLMConfig(**TOWER, hidden_size=32, conv_dim=(16,) * 7, num_conv_pos_embeddings=8, num_buckets=16)
    audio = HFAudioEncoder(model=WavLMModel(wavlm), feature_extractor=Wav2Vec2FeatureExtractor())

    # HFVisionEncoder.from_pretrained("google/siglip2-base-patch16-224", pool=32)
    siglip = SiglipVisionConfig(**TOWER, hidden_size=24, image_size=32, patch_size=4)
    processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    vision = HFVisionEncoder(model=SiglipVisionModel(siglip), image_processor=processor, pool=32)  # 64 patches to 4 × 8

    # AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-4B")
    qwen = Qwen3Config(**TOWER, vocab_size=len(tokenizer), hidden_size=48, num_key_value_heads=1, head_dim=16)

    connector = AudioVisualConnector(
        synchroniser=FrameSynchroniser(
            visual_dim=vision.output_dim, stream_dims={"audio": audio.output_dim}, frame_rate=2.0, slots=32
        ),
        projector=SlidingWindowProjector(
            window_encoder=CausalQFormer(
                input_dim=vision.output_dim + audio.output_dim,
                hidden_size=32,
                num_heads=4,
                num_queries=4,
                window_frames=4,
                tokens_per_frame=32,
            ),
            window_frames=4,
            stride_frames=2,  # a window each second, of 2 s
            llm_dim=qwen.hidden_size,
        ),
    )
    return AudioVisualLanguageModel(
        language_model=Qwen3ForCausalLM(qwen),
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

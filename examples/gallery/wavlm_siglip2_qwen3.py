"""WavLM × SigLIP 2 × Qwen3: the whole language model is trained, and windows overlap."""

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

from avfusion import AudioVisualConnector
from avfusion.encoders import HFAudioEncoder, HFVisionEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import SMALL, TOWER, Result, assemble, run


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

    # Windows of 2 s, one each second.
    connector = AudioVisualConnector.from_encoders(
        visual=vision, audio=audio, llm=qwen.hidden_size, **SMALL, overlap_seconds=1.0
    )
    return assemble(tokenizer, language_model=Qwen3ForCausalLM(qwen), connector=connector, visual=vision, audio=audio)


def main() -> Result:
    return run(build)


if __name__ == "__main__":
    main()

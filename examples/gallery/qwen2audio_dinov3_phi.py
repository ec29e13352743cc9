"""Qwen2-Audio's encoder × DINOv3 × Phi: two resolutions, one fine and one coarse, as in video-SALMONN."""

from peft import LoraConfig, get_peft_model
from transformers import (
    BitImageProcessor,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2AudioEncoder,
    Qwen2AudioEncoderConfig,
    WhisperFeatureExtractor,
)

from avfusion import AudioVisualConnector, CausalQFormer, FrameSynchroniser, MultiResolutionProjector
from avfusion.encoders import HFAudioEncoder, HFVisionEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import CROP, TOWER, Result, assemble, run


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # model = Qwen2AudioForConditionalGeneration.from_pretrained("Qwen/Qwen2-Audio-7B").model.audio_tower
    # extractor = WhisperFeatureExtractor.from_pretrained("Qwen/Qwen2-Audio-7B"), and chunk_seconds=30
    qwen = Qwen2AudioEncoderConfig(d_model=32, encoder_layers=2, encoder_attention_heads=2, max_source_positions=100)
    audio = HFAudioEncoder(
        model=Qwen2AudioEncoder(qwen),
        feature_extractor=WhisperFeatureExtractor(feature_size=128, chunk_length=2),
        rate=25.0,
        chunk_seconds=2,
    )

    # HFVisionEncoder.from_pretrained("facebook/dinov3-vits16-pretrain-lvd1689m", keep_prefix_tokens=True)
    dino = DINOv3ViTConfig(**TOWER, hidden_size=24, image_size=32, patch_size=8, num_register_tokens=4)
    processor = BitImageProcessor(**CROP)
    vision = HFVisionEncoder(model=DINOv3ViTModel(dino), image_processor=processor, keep_prefix_tokens=True)

    # AutoModelForCausalLM.from_pretrained("microsoft/phi-1_5")
    phi = PhiConfig(**TOWER, vocab_size=len(tokenizer), hidden_size=48)

    # Windows of 4 frames in 8 queries, and each of their frames by itself in 2: as many states of either, side by side.
    connector = AudioVisualConnector(
        synchroniser=FrameSynchroniser(
            visual_dim=vision.output_dim,
            stream_dims={"audio": audio.output_dim},
            slots=vision.tokens_per_frame,
        ),
        projector=MultiResolutionProjector(
            window_encoder=CausalQFormer(
                input_dim=vision.output_dim + audio.output_dim,
                hidden_size=32,
                num_heads=4,
                num_queries=8,
                window_frames=4,
                tokens_per_frame=vision.tokens_per_frame,
            ),
            window_frames=4,
            fine_window_frames=1,
            fine_num_queries=2,
            llm_dim=phi.hidden_size,
        ),
    )
    llm = get_peft_model(PhiForCausalLM(phi), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    return assemble(tokenizer, language_model=llm, connector=connector, visual=vision, audio=audio)


def main() -> Result:
    return run(build)


if __name__ == "__main__":
    main()

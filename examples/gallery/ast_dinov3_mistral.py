"""AST × DINOv3 × Mistral: sounds rather than speech; what is heard stands behind what is seen, not beside it."""

from peft import LoraConfig, get_peft_model
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    BitImageProcessor,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from avfusion import AudioVisualConnector
from avfusion.encoders import HFAudioEncoder, HFVisionEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import CROP, SMALL, TOWER, Result, assemble, run


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # HFAudioEncoder.from_pretrained("MIT/ast-finetuned-audioset-10-10-0.4593", pool_frequency=True): 10 steps a second,
    # the 12 frequency patches of each averaged
    ast = ASTConfig(**TOWER, hidden_size=32, max_length=128)
    audio = HFAudioEncoder(
        model=ASTModel(ast), feature_extractor=ASTFeatureExtractor(max_length=128), pool_frequency=True
    )

    # HFVisionEncoder.from_pretrained("facebook/dinov3-vitb16-pretrain-lvd1689m"): without class and register tokens
    dino = DINOv3ViTConfig(**TOWER, hidden_size=24, image_size=32, patch_size=8, num_register_tokens=4)
    processor = BitImageProcessor(**CROP)
    vision = HFVisionEncoder(model=DINOv3ViTModel(dino), image_processor=processor)

    # AutoModelForCausalLM.from_pretrained("mistralai/Mistral-7B-Instruct-v0.3")
    mistral = MistralConfig(**TOWER, vocab_size=len(tokenizer), hidden_size=48, num_key_value_heads=1)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])

    # Few sounds a frame beside many patches: on the token axis no slot of the sound stays empty. Both get one width.
    connector = AudioVisualConnector.from_encoders(
        visual=vision, audio=audio, llm=mistral.hidden_size, **SMALL, fusion="tokens", stream_dim=32
    )
    llm = get_peft_model(MistralForCausalLM(mistral), lora)
    return assemble(tokenizer, language_model=llm, connector=connector, visual=vision, audio=audio)


def main() -> Result:
    return run(build)


if __name__ == "__main__":
    main()

"""AST × DINOv3 × Mistral: sounds rather than speech; what is heard stands behind what is seen, not beside it."""

from peft import LoraConfig, get_peft_model
from torch import Tensor
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

from avfusion import AudioVisualConnector, CausalQFormer, DiversityLoss, FrameSynchroniser, SlidingWindowProjector
from avfusion.encoders import HFAudioEncoder, HFVisionEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import train_and_ask, word_tokenizer

TOWER = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
DIM = 32  # to which both streams are mapped


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # HFAudioEncoder.from_pretrained("MIT/ast-finetuned-audioset-10-10-0.4593", pool_frequency=True): 10 steps a second,
    # the 12 frequency patches of each averaged
    ast = ASTConfig(**TOWER, hidden_size=32, max_length=128)
    audio = HFAudioEncoder(
        model=ASTModel(ast), feature_extractor=ASTFeatureExtractor(max_length=128), pool_frequency=True
    )

    # HFVisionEncoder.from_pretrained("facebook/dinov3-vitb16-pretrain-lvd1689m"): without class and register tokens
    dino = DINOv3ViTConfig(**TOWER, hidden_size=24, image_size=32, patch_size=8, num_register_tokens=4)
    processor = BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    vision = HFVisionEncoder(model=DINOv3ViTModel(dino), image_processor=processor)

    # AutoModelForCausalLM.from_pretrained("mistralai/Mistral-7B-Instruct-v0.3")
    mistral = MistralConfig(**TOWER, vocab_size=len(tokenizer), hidden_size=48, num_key_value_heads=1)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])

    # Few sounds a frame beside many patches: on the token axis no slot of the sound stays empty.
    slots = {"visual": vision.tokens_per_frame, "audio": 6}
    connector = AudioVisualConnector(
        synchroniser=FrameSynchroniser(visual_dim=DIM, stream_dims={"audio": DIM}, slots=slots, fusion="tokens"),
        projector=SlidingWindowProjector(
            window_encoder=CausalQFormer(
                input_dim=DIM,
                hidden_size=32,
                num_heads=4,
                num_queries=4,
                window_frames=4,
                tokens_per_frame=sum(slots.values()),
            ),
            window_frames=4,
            llm_dim=mistral.hidden_size,
        ),
        input_dims={"visual": vision.output_dim, "audio": audio.output_dim},
    )
    return AudioVisualLanguageModel(
        language_model=get_peft_model(MistralForCausalLM(mistral), lora),
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

"""A third stream: AST, which knows sounds, beside Whisper, which knows speech, as video-SALMONN has BEATs."""

from torch import Tensor
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avfusion import AudioVisualConnector, CausalQFormer, DiversityLoss, FrameSynchroniser, SlidingWindowProjector
from avfusion.encoders import HFAudioEncoder, HFVisionEncoder, WhisperAudioEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import train_and_ask, word_tokenizer

TOWER = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # WhisperAudioEncoder.from_pretrained("openai/whisper-large-v3"): 50 tokens a second
    whisper = WhisperConfig(d_model=32, encoder_layers=2, encoder_attention_heads=2, max_source_positions=100)
    speech = WhisperAudioEncoder(model=WhisperEncoder(whisper), feature_extractor=WhisperFeatureExtractor())

    # HFAudioEncoder.from_pretrained("MIT/ast-finetuned-audioset-10-10-0.4593", pool_frequency=True): 10 a second
    ast = ASTModel(ASTConfig(**TOWER, max_length=128))
    sounds = HFAudioEncoder(model=ast, feature_extractor=ASTFeatureExtractor(max_length=128), pool_frequency=True)

    # HFVisionEncoder.from_pretrained("openai/clip-vit-large-patch14", select_layer=-2, pool=32)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    clip = CLIPVisionModel(CLIPVisionConfig(**TOWER, image_size=32, patch_size=8))
    vision = HFVisionEncoder(model=clip, image_processor=processor)

    # AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.1-8B-Instruct")
    llama = LlamaConfig(**TOWER, vocab_size=len(tokenizer))

    # The streams have names of your choice; each keeps its own clock and rate, and may be absent by itself.
    synchroniser = FrameSynchroniser(
        visual_dim=vision.output_dim,
        stream_dims={"speech": speech.output_dim, "sounds": sounds.output_dim},
        frame_rate=2.0,
        slots=25,
    )
    connector = AudioVisualConnector(
        synchroniser=synchroniser,
        projector=SlidingWindowProjector(
            window_encoder=CausalQFormer(
                input_dim=synchroniser.output_dim,  # all three side by side
                hidden_size=32,
                num_heads=4,
                num_queries=4,
                window_frames=4,
                tokens_per_frame=synchroniser.tokens_per_frame,
            ),
            window_frames=4,
            llm_dim=llama.hidden_size,
        ),
    )
    return AudioVisualLanguageModel(
        language_model=LlamaForCausalLM(llama),
        connector=connector,
        audio_encoders={"speech": speech, "sounds": sounds},  # both hear the same sound
        visual_encoder=vision,
        placeholder_token_id=tokenizer.convert_tokens_to_ids("<av>"),
        diversity_loss=DiversityLoss(weight=0.01),
    )


def main() -> tuple[AudioVisualLanguageModel, Tensor, Tensor]:
    tokenizer = word_tokenizer()
    return train_and_ask(build(tokenizer), tokenizer)


if __name__ == "__main__":
    main()

"""A third stream: AST, which knows sounds, beside Whisper, which knows speech, as video-SALMONN has BEATs."""

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

from avfusion import AudioVisualConnector
from avfusion.encoders import HFAudioEncoder, HFVisionEncoder, WhisperAudioEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import CROP, SMALL, Result, assemble, run

TOWER = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # WhisperAudioEncoder.from_pretrained("openai/whisper-large-v3"): 50 tokens a second
    whisper = WhisperConfig(d_model=32, encoder_layers=2, encoder_attention_heads=2, max_source_positions=100)
    speech = WhisperAudioEncoder(model=WhisperEncoder(whisper), feature_extractor=WhisperFeatureExtractor())

    # HFAudioEncoder.from_pretrained("MIT/ast-finetuned-audioset-10-10-0.4593", pool_frequency=True): 10 a second
    ast = ASTModel(ASTConfig(**TOWER, max_length=128))
    sounds = HFAudioEncoder(model=ast, feature_extractor=ASTFeatureExtractor(max_length=128), pool_frequency=True)

    # HFVisionEncoder.from_pretrained("openai/clip-vit-large-patch14", select_layer=-2, pool=32)
    processor = CLIPImageProcessor(**CROP)
    clip = CLIPVisionModel(CLIPVisionConfig(**TOWER, image_size=32, patch_size=8))
    vision = HFVisionEncoder(model=clip, image_processor=processor)

    # AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.1-8B-Instruct")
    llama = LlamaConfig(**TOWER, vocab_size=len(tokenizer))

    # The streams have names of your choice; each keeps its own clock and rate, and may be absent by itself.
    audio = {"speech": speech, "sounds": sounds}
    connector = AudioVisualConnector.from_encoders(visual=vision, audio=audio, llm=llama.hidden_size, **SMALL)
    return assemble(tokenizer, language_model=LlamaForCausalLM(llama), connector=connector, visual=vision, audio=audio)


def main() -> Result:
    return run(build)


if __name__ == "__main__":
    main()

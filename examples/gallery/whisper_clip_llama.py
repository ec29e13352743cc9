"""Whisper × CLIP × Llama: the parts most people start with, and LoRA on the language model."""

from peft import LoraConfig, get_peft_model
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from avfusion import AudioVisualConnector, DiversityLoss
from avfusion.encoders import HFVisionEncoder, WhisperAudioEncoder
from avfusion.models import AudioVisualLanguageModel, prepare_inputs
from examples.gallery.common import ANSWERS, CROP, QUESTIONS, SMALL, Result, noise_clips, word_tokenizer


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # WhisperAudioEncoder.from_pretrained("openai/whisper-large-v3")
    whisper = WhisperConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=100,
    )
    audio = WhisperAudioEncoder(model=WhisperModel(whisper), feature_extractor=WhisperFeatureExtractor())

    # HFVisionEncoder.from_pretrained("openai/clip-vit-large-patch14", select_layer=-2, pool=32)
    clip = CLIPVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    processor = CLIPImageProcessor(**CROP)
    vision = HFVisionEncoder(model=CLIPVisionModel(clip), image_processor=processor, select_layer=-2)

    # AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.1-8B-Instruct")
    llama = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
    )
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    language_model = get_peft_model(LlamaForCausalLM(llama), lora)

    connector = AudioVisualConnector.from_encoders(visual=vision, audio=audio, llm=llama.hidden_size, **SMALL)
    return AudioVisualLanguageModel(
        language_model=language_model,
        connector=connector,
        audio_encoders={"audio": audio},
        visual_encoder=vision,
        placeholder_token_id=tokenizer.convert_tokens_to_ids("<av>"),
        diversity_loss=DiversityLoss(weight=0.01),
    )


def main() -> Result:
    tokenizer = word_tokenizer()
    model = build(tokenizer).train()
    video, waveform = noise_clips()
    counts = model.num_placeholders(video=video, waveform=waveform)

    taught = prepare_inputs(tokenizer, QUESTIONS, counts, answers=ANSWERS)
    loss = model(**taught, video=video, waveform=waveform).loss
    loss.backward()

    asked = prepare_inputs(tokenizer, QUESTIONS, counts)
    end = tokenizer.eos_token_id  # checkpoints and their tokenizers agree on it
    options = {"max_new_tokens": 5, "eos_token_id": end, "pad_token_id": end}
    prompt, real = asked["input_ids"], asked["attention_mask"]
    ids = model.eval().generate(prompt, real, video=video, waveform=waveform, **options)
    print(counts.tolist(), loss.item(), tokenizer.batch_decode(ids))
    return model, loss, ids


if __name__ == "__main__":
    main()

"""WavLM × a timm ConvNeXt × Mistral: clips that lack a modality, and a learned token that stands for it."""

import timm
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from avfusion import AudioVisualConnector
from avfusion.encoders import HFAudioEncoder, TimmVisualEncoder
from avfusion.models import AudioVisualLanguageModel, prepare_inputs
from examples.gallery.common import (
    ANSWERS,
    QUESTIONS,
    SMALL,
    TOWER,
    Result,
    assemble,
    noise_clips,
    train_and_ask,
    word_tokenizer,
)


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # HFAudioEncoder.from_pretrained("microsoft/wavlm-large")
    wavlm = WavLMConfig(**TOWER, hidden_size=32, conv_dim=(16,) * 7, num_conv_pos_embeddings=8, num_buckets=16)
    audio = HFAudioEncoder(model=WavLMModel(wavlm), feature_extractor=Wav2Vec2FeatureExtractor())

    # TimmVisualEncoder.from_pretrained("convnext_tiny.in12k_ft_in1k")
    sizes = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 24)}
    convnext = timm.create_model("convnext_atto", pretrained=False, num_classes=0, **sizes)
    vision = TimmVisualEncoder(model=convnext, image_size=(64, 64))

    # AutoModelForCausalLM.from_pretrained("mistralai/Ministral-8B-Instruct-2410")
    mistral = MistralConfig(**TOWER, vocab_size=len(tokenizer), hidden_size=48, num_key_value_heads=1)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])

    # Without learned tokens, what is absent is zero, and masked where nothing else is.
    connector = AudioVisualConnector.from_encoders(
        visual=vision, audio=audio, llm=mistral.hidden_size, **SMALL, learn_absent_tokens=True
    )
    llm = get_peft_model(MistralForCausalLM(mistral), lora)
    return assemble(tokenizer, language_model=llm, connector=connector, visual=vision, audio=audio)


def main() -> Result:
    tokenizer = word_tokenizer()
    model = build(tokenizer)
    video, waveform = noise_clips()
    first = torch.tensor([True, False])
    for given in (
        {"video": video},  # no sound in the batch: it is left out
        {"waveform": waveform},  # and so are pictures
        {"video": video._replace(mask=video.mask & first[:, None]), "waveform": waveform},  # one clip has none
    ):
        inputs = prepare_inputs(tokenizer, QUESTIONS, model.num_placeholders(**given), answers=ANSWERS)
        model(**inputs, **given).loss.backward()
    return train_and_ask(model, tokenizer)


if __name__ == "__main__":
    main()

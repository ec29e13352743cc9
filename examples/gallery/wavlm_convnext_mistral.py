"""WavLM × a timm ConvNeXt × Mistral: clips that lack a modality, and a learned token that stands for it."""

import timm
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from avfusion import AudioVisualConnector, CausalQFormer, DiversityLoss, FrameSynchroniser, SlidingWindowProjector
from avfusion.encoders import HFAudioEncoder, TimmVisualEncoder
from avfusion.models import AudioVisualLanguageModel, prepare_inputs
from examples.gallery.common import ANSWERS, QUESTIONS, noise_clips, train_and_ask, word_tokenizer

TOWER = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


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

    connector = AudioVisualConnector(
        synchroniser=FrameSynchroniser(
            visual_dim=vision.output_dim,
            stream_dims={"audio": audio.output_dim},
            slots=26,
            learn_absent_tokens=True,  # without it, what is absent is zero, and masked where nothing else is
        ),
        projector=SlidingWindowProjector(
            window_encoder=CausalQFormer(
                input_dim=vision.output_dim + audio.output_dim,
                hidden_size=32,
                num_heads=4,
                num_queries=4,
                window_frames=4,
                tokens_per_frame=26,
            ),
            window_frames=4,
            llm_dim=mistral.hidden_size,
        ),
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

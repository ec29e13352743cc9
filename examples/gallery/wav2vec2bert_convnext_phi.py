"""Wav2Vec2-BERT × a timm ConvNeXt × Phi: one encoder is given its rate, the other gives a map instead of patches."""

import timm
from torch import Tensor
from transformers import (
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

from avfusion import AudioVisualConnector, CausalQFormer, DiversityLoss, FrameSynchroniser, SlidingWindowProjector
from avfusion.encoders import HFAudioEncoder, TimmVisualEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import train_and_ask, word_tokenizer

TOWER = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # HFAudioEncoder.from_pretrained("facebook/w2v-bert-2.0", rate=50.0, first_centre=0.0175): a step is two spectra of
    # 25 ms, 10 ms apart, so that the first sees 0 to 35 ms
    bert = Wav2Vec2BertConfig(**TOWER, hidden_size=32)
    audio = HFAudioEncoder(
        model=Wav2Vec2BertModel(bert), feature_extractor=SeamlessM4TFeatureExtractor(), rate=50.0, first_centre=0.0175
    )

    # TimmVisualEncoder.from_pretrained("convnext_base.fb_in22k_ft_in1k"): 7 × 7 places of its last map
    convnext = timm.create_model(
        "convnext_atto", pretrained=False, num_classes=0, depths=(1, 1, 1, 1), dims=(8, 8, 16, 24)
    )
    vision = TimmVisualEncoder(model=convnext, image_size=(64, 96))  # wider than high, as films are

    # AutoModelForCausalLM.from_pretrained("microsoft/phi-2")
    phi = PhiConfig(**TOWER, vocab_size=len(tokenizer), hidden_size=48)

    connector = AudioVisualConnector(
        synchroniser=FrameSynchroniser(
            visual_dim=vision.output_dim, stream_dims={"audio": audio.output_dim}, frame_rate=2.0, slots=26
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
            llm_dim=phi.hidden_size,
        ),
    )
    return AudioVisualLanguageModel(
        language_model=PhiForCausalLM(phi),
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

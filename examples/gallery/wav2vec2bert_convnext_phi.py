"""Wav2Vec2-BERT × a timm ConvNeXt × Phi: one encoder is given its rate, the other gives a map instead of patches."""

import timm
from transformers import (
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

from avfusion import AudioVisualConnector
from avfusion.encoders import HFAudioEncoder, TimmVisualEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import SMALL, TOWER, Result, assemble, run


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

    connector = AudioVisualConnector.from_encoders(visual=vision, audio=audio, llm=phi.hidden_size, **SMALL)
    return assemble(tokenizer, language_model=PhiForCausalLM(phi), connector=connector, visual=vision, audio=audio)


def main() -> Result:
    return run(build)


if __name__ == "__main__":
    main()

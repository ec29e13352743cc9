"""Wav2Vec2-BERT × a timm ViT × Llama: another window encoder in the Q-Former's place, checked before it is used."""

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

from avfusion import AudioVisualConnector, FrameSynchroniser, SlidingWindowProjector
from avfusion.encoders import HFAudioEncoder, TimmVisualEncoder
from avfusion.models import AudioVisualLanguageModel
from avfusion.testing import check_window_encoder
from examples.gallery.common import TOWER, Result, assemble, run


class Resampler(nn.Module):
    """A few learned queries read a window: what a :class:`~avfusion.WindowEncoder` is, and no more."""

    def __init__(self, input_dim: int, output_dim: int, num_queries: int) -> None:
        super().__init__()
        self.input_dim, self.output_dim, self.num_queries = input_dim, output_dim, num_queries
        self.queries = nn.Parameter(torch.randn(num_queries, output_dim))
        self.norm = nn.LayerNorm(input_dim)
        self.keys = nn.Linear(input_dim, output_dim)
        self.values = nn.Linear(input_dim, output_dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        inputs, real = self.norm(tokens.flatten(1, 2)), mask.flatten(1)
        real = real | ~real.any(1, keepdim=True)  # a softmax over nothing would be NaN
        queries = self.queries.expand(len(tokens), -1, -1)
        seen = F.scaled_dot_product_attention(queries, self.keys(inputs), self.values(inputs), real[:, None])
        return queries + seen


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # HFAudioEncoder.from_pretrained("facebook/w2v-bert-2.0", rate=50.0, first_centre=0.0175)
    bert = Wav2Vec2BertModel(Wav2Vec2BertConfig(**TOWER, hidden_size=32))
    extractor = SeamlessM4TFeatureExtractor()
    audio = HFAudioEncoder(model=bert, feature_extractor=extractor, rate=50.0, first_centre=0.0175)

    # TimmVisualEncoder.from_pretrained("vit_base_patch14_reg4_dinov2.lvd142m", image_size=(224, 224))
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2}
    vision = TimmVisualEncoder(model=timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes))

    # AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.2-3B-Instruct")
    llama = LlamaConfig(**TOWER, vocab_size=len(tokenizer), hidden_size=48)

    resampler = Resampler(vision.output_dim + audio.output_dim, output_dim=32, num_queries=4)
    print("The resampler fits:", ", ".join(check_window_encoder(resampler)))  # or it says what is wrong

    connector = AudioVisualConnector(
        synchroniser=FrameSynchroniser(
            visual_dim=vision.output_dim, stream_dims={"audio": audio.output_dim}, frame_rate=2.0, slots=26
        ),
        projector=SlidingWindowProjector(window_encoder=resampler, window_frames=4, llm_dim=llama.hidden_size),
    )
    return assemble(tokenizer, language_model=LlamaForCausalLM(llama), connector=connector, visual=vision, audio=audio)


def main() -> Result:
    return run(build)


if __name__ == "__main__":
    main()

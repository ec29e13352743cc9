"""CLAP × CLIP × GPT-2: an audio tower that no class of avfusion covers, behind an adapter of your own."""

import torch
from torch import Tensor, nn
from transformers import (
    ClapAudioConfig,
    ClapAudioModel,
    ClapFeatureExtractor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from avfusion import AudioVisualConnector, TokenStream, Waveform
from avfusion.encoders import HFVisionEncoder
from avfusion.models import AudioVisualLanguageModel
from avfusion.testing import check_token_stream_encoder
from examples.gallery.common import CROP, SMALL, Result, assemble, run


class ClapEncoder(nn.Module):
    """CLAP's last map, averaged over its frequencies: 32 tokens for each piece that it takes at once."""

    def __init__(self, model: ClapAudioModel, extractor: ClapFeatureExtractor) -> None:
        super().__init__()
        self.model, self.extractor = model.eval().requires_grad_(False), extractor
        self.output_dim: int = model.config.hidden_size
        self.sample_rate: int = extractor.sampling_rate
        self.step = extractor.nb_max_samples // 32  # samples of a token
        self.rate, self.tokens_per_step = self.sample_rate / self.step, 1

    def train(self, mode: bool = True) -> "ClapEncoder":
        return super().train(False)

    @torch.no_grad()
    def forward(self, waveform: Waveform) -> TokenStream:
        like = next(self.parameters())
        sounds = zip(waveform.samples.cpu(), waveform.mask.cpu(), strict=True)
        clips = [self.encode(samples[mask]) for samples, mask in sounds]
        tokens = nn.utils.rnn.pad_sequence(clips, batch_first=True).to(like)
        lengths = torch.tensor([len(clip) for clip in clips], device=like.device)
        return TokenStream.from_rate(tokens, self.rate, lengths=lengths, start=waveform.start)

    def encode(self, samples: Tensor) -> Tensor:
        """``(time, dim)`` of one clip: each clip by itself, so that no other can change it."""
        pieces = [piece.float().numpy() for piece in samples.split(self.extractor.nb_max_samples) if len(piece)]
        if not pieces:
            return torch.empty(0, self.output_dim)
        features = self.extractor(pieces, sampling_rate=self.sample_rate, return_tensors="pt")["input_features"]
        maps = self.model(features.to(next(self.parameters()))).last_hidden_state  # (piece, dim, frequency, time)
        return maps.mean(2).transpose(1, 2).flatten(0, 1)[: -(-len(samples) // self.step)]  # not those of silence


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # ClapAudioModel.from_pretrained("laion/clap-htsat-unfused"), 10 s at once, and its ClapFeatureExtractor
    sizes = {"hidden_size": 16, "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [1, 2]}
    clap = ClapAudioModel(ClapAudioConfig(**sizes, num_mel_bins=16, spec_size=64))
    extractor = ClapFeatureExtractor(feature_size=16, max_length_s=2, truncation="rand_trunc", padding="pad")
    audio = ClapEncoder(clap, extractor)
    print("CLAP fits:", ", ".join(check_token_stream_encoder(audio)))  # or it says what is wrong

    # HFVisionEncoder.from_pretrained("openai/clip-vit-base-patch32")
    clip = CLIPVisionConfig(hidden_size=24, intermediate_size=48, num_attention_heads=2, image_size=32, patch_size=8)
    processor = CLIPImageProcessor(**CROP)
    vision = HFVisionEncoder(model=CLIPVisionModel(clip), image_processor=processor)

    # AutoModelForCausalLM.from_pretrained("openai-community/gpt2-medium")
    gpt2 = GPT2Config(vocab_size=len(tokenizer), n_embd=48, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1)
    connector = AudioVisualConnector.from_encoders(visual=vision, audio=audio, llm=gpt2.n_embd, **SMALL)
    return assemble(tokenizer, language_model=GPT2LMHeadModel(gpt2), connector=connector, visual=vision, audio=audio)


def main() -> Result:
    return run(build, sample_rate=48000)


if __name__ == "__main__":
    main()

"""Whisper × SigLIP 2 (NaFlex) × Qwen3: pictures of any aspect ratio, each with as many patches as it needs."""

import torch
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avfusion import AudioVisualConnector, Frames, Video
from avfusion.encoders import WhisperAudioEncoder
from avfusion.models import AudioVisualLanguageModel
from avfusion.testing import check_visual_encoder
from examples.gallery.common import SMALL, TOWER, Result, assemble, run


class NaFlexEncoder(nn.Module):
    """SigLIP 2 at each picture's own aspect ratio; places for which a picture has no patch are masked."""

    def __init__(self, model: Siglip2VisionModel, image_processor: Siglip2ImageProcessor) -> None:
        super().__init__()
        self.model, self.image_processor = model.eval().requires_grad_(False), image_processor
        self.tokens_per_frame: int = image_processor.max_num_patches
        self.output_dim: int = model.config.hidden_size

    def train(self, mode: bool = True) -> "NaFlexEncoder":
        return super().train(False)

    @torch.no_grad()
    def forward(self, video: Video) -> Frames:
        like = next(self.parameters())
        tokens = like.new_zeros(*video.mask.shape, self.tokens_per_frame, self.output_dim)
        mask = torch.zeros(tokens.shape[:3], dtype=torch.bool, device=like.device)
        pixels = video.pixels[video.mask]  # real frames alone
        if len(pixels):
            if pixels.is_floating_point():
                pixels = (pixels * 255).round().to(torch.uint8)
            inputs = self.image_processor(images=list(pixels.cpu()), return_tensors="pt").to(like.device, like.dtype)
            real = video.mask.to(like.device)
            tokens[real] = self.model(**inputs).last_hidden_state
            mask[real] = inputs["pixel_attention_mask"].bool()
        return Frames(tokens, mask, video.spans.to(like.device))


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # WhisperAudioEncoder.from_pretrained("openai/whisper-medium")
    whisper = WhisperConfig(d_model=32, encoder_layers=2, encoder_attention_heads=2, max_source_positions=100)
    audio = WhisperAudioEncoder(model=WhisperEncoder(whisper), feature_extractor=WhisperFeatureExtractor())

    # Siglip2VisionModel and Siglip2ImageProcessor.from_pretrained("google/siglip2-base-patch16-naflex"): 256 patches
    siglip = Siglip2VisionModel(Siglip2VisionConfig(**TOWER, hidden_size=24, patch_size=8, num_patches=16))
    vision = NaFlexEncoder(siglip, Siglip2ImageProcessor(patch_size=8, max_num_patches=16))
    print("NaFlex fits:", ", ".join(check_visual_encoder(vision)))  # or it says what is wrong

    # AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-1.7B")
    qwen = Qwen3Config(**TOWER, hidden_size=48, vocab_size=len(tokenizer), num_key_value_heads=1, head_dim=16)
    connector = AudioVisualConnector.from_encoders(visual=vision, audio=audio, llm=qwen.hidden_size, **SMALL)
    return assemble(tokenizer, language_model=Qwen3ForCausalLM(qwen), connector=connector, visual=vision, audio=audio)


def main() -> Result:
    return run(build)


if __name__ == "__main__":
    main()

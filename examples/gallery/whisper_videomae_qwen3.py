"""Whisper × VideoMAE × Qwen3: a tower that sees films rather than pictures, behind an adapter of your own."""

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    VideoMAEConfig,
    VideoMAEImageProcessor,
    VideoMAEModel,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avfusion import AudioVisualConnector, Frames, Video
from avfusion.encoders import WhisperAudioEncoder
from avfusion.models import AudioVisualLanguageModel
from avfusion.testing import check_visual_encoder
from examples.gallery.common import SMALL, Result, assemble, run


class VideoMAEEncoder(nn.Module):
    """VideoMAE sees some frames at once, in pairs; each frame gets the patches of its pair."""

    def __init__(self, model: VideoMAEModel, image_processor: VideoMAEImageProcessor) -> None:
        super().__init__()
        self.model, self.image_processor = model.eval().requires_grad_(False), image_processor
        self.tokens_per_frame: int = (model.config.image_size // model.config.patch_size) ** 2
        self.output_dim: int = model.config.hidden_size

    def train(self, mode: bool = True) -> "VideoMAEEncoder":
        return super().train(False)

    @torch.no_grad()
    def forward(self, video: Video) -> Frames:
        like, at_once = next(self.parameters()), self.model.config.num_frames
        tokens = like.new_zeros(*video.mask.shape, self.tokens_per_frame, self.output_dim)
        mask = video.mask.to(like.device)
        for clip, real in enumerate(video.mask):  # each clip by itself, so that no other can change it
            for part in real.nonzero().flatten().split(at_once) if real.any() else ():
                held = part[torch.arange(at_once).clamp(max=len(part) - 1)]  # a short part's last frame stays on screen
                tokens[clip, part.to(like.device)] = self.encode(video.pixels[clip, held])[: len(part)]
        return Frames(tokens, mask[..., None].expand(tokens.shape[:3]), video.spans.to(like.device))

    def encode(self, pixels: Tensor) -> Tensor:
        """``(frame, token, dim)`` of as many frames as the model takes."""
        if pixels.is_floating_point():
            pixels = (pixels * 255).round().to(torch.uint8)
        ready = self.image_processor([list(pixels.cpu())], return_tensors="pt")["pixel_values"]
        patches = self.model(ready.to(next(self.parameters()))).last_hidden_state[0]
        return patches.unflatten(0, (-1, self.tokens_per_frame)).repeat_interleave(self.model.config.tubelet_size, 0)


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # WhisperAudioEncoder.from_pretrained("openai/whisper-small")
    whisper = WhisperConfig(d_model=32, encoder_layers=2, encoder_attention_heads=2, max_source_positions=100)
    audio = WhisperAudioEncoder(model=WhisperEncoder(whisper), feature_extractor=WhisperFeatureExtractor())

    # VideoMAEModel and VideoMAEImageProcessor.from_pretrained("MCG-NJU/videomae-base"): 16 frames at once, 196 patches
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    mae = VideoMAEModel(VideoMAEConfig(**sizes, image_size=32, patch_size=8, num_frames=4))
    crop = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    vision = VideoMAEEncoder(mae, VideoMAEImageProcessor(**crop))
    print("VideoMAE fits:", ", ".join(check_visual_encoder(vision)))  # or it says what is wrong

    # AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-8B")
    qwen = Qwen3Config(**{**sizes, "hidden_size": 48}, vocab_size=len(tokenizer), num_key_value_heads=1, head_dim=16)
    connector = AudioVisualConnector.from_encoders(visual=vision, audio=audio, llm=qwen.hidden_size, **SMALL)
    llm = get_peft_model(Qwen3ForCausalLM(qwen), LoraConfig(r=4, target_modules="all-linear"))
    return assemble(tokenizer, language_model=llm, connector=connector, visual=vision, audio=audio)


def main() -> Result:
    return run(build)


if __name__ == "__main__":
    main()

"""A small model with encoders, its processor, and media files; also run as a process that encodes."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from avfusion import AudioVisualConnector, Frames, TokenStream, Video, Waveform
from avfusion.features import save_features
from avfusion.media import write_video
from avfusion.models import AudioVisualLanguageModel, AudioVisualProcessor
from tests.models.templates import tokenizer_of

RATE = 80


class Ear(nn.Module):
    """Eight tokens per second of audio at 80 Hz. Ends its own process when it is called too often."""

    output_dim, sample_rate, rate = 6, RATE, 8.0

    def __init__(self, calls: int | None = None) -> None:
        super().__init__()
        self.proj = nn.Linear(10, 6)
        self.calls, self.most = 0, calls

    def forward(self, waveform: Waveform) -> TokenStream:
        self.calls += 1
        if self.most is not None and self.calls > self.most:
            os.kill(os.getpid(), signal.SIGKILL)
        kept = (waveform.lengths + 9) // 10
        samples = torch.where(waveform.mask, waveform.samples, 0).to(self.proj.weight)
        samples = nn.functional.pad(samples, (0, 10 * int(kept.max())))[:, : 10 * int(kept.max())]
        tokens = self.proj(samples.unflatten(1, (-1, 10)))
        return TokenStream.from_rate(tokens, 8.0, lengths=kept, start=waveform.start)


class Eye(nn.Module):
    """Three tokens per frame."""

    output_dim, tokens_per_frame, image_size = 4, 3, 8

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3, 12)

    def forward(self, video: Video) -> Frames:
        pixels = video.pixels.to(self.proj.weight) / 255
        tokens = self.proj(pixels.mean((-2, -1))).unflatten(-1, (3, 4))
        return Frames(tokens, video.mask[..., None].expand(tokens.shape[:3]), video.spans)


def make(calls: int | None = None, seed: int = 0) -> tuple[AudioVisualLanguageModel, AudioVisualProcessor]:
    torch.manual_seed(seed)
    tokenizer = tokenizer_of("qwen3")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ear, eye = Ear(calls), Eye()
    connector = AudioVisualConnector.from_encoders(
        visual=eye, audio=ear, llm=16, num_queries=2, hidden_size=16, window_seconds=2.0, audio_rate=8.0
    )
    model = AudioVisualLanguageModel(
        language_model=LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)),
        connector=connector,
        audio_encoders={"audio": ear},
        visual_encoder=eye,
        placeholder_token_id=tokenizer.convert_tokens_to_ids("<av>"),
    ).eval()
    return model, AudioVisualProcessor.from_model(model, tokenizer)


def write_files(folder: Path, count: int) -> list[str]:
    """Clips of different lengths, the last one silent."""
    generator = torch.Generator().manual_seed(0)
    paths = []
    for number in range(count):
        path = folder / f"{number}.mp4"
        pixels = torch.randint(0, 256, (10 + 5 * (number % 3), 3, 32, 32), dtype=torch.uint8, generator=generator)
        samples = 0.1 * torch.randn(16000 + 8000 * (number % 3), generator=generator)
        write_video(path, pixels, 10.0, None if number == count - 1 else samples)
        paths.append(str(path))
    return paths


if __name__ == "__main__":
    directory, calls, *files = sys.argv[1:]
    model, processor = make(int(calls) if calls != "-" else None)
    print(save_features(directory, model, processor, files, shard_size=1))

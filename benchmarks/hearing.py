"""What it costs to hear sound in short blocks rather than 30 s at once, at the size of Whisper tiny."""

import torch
from torch import nn
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avfusion import Waveform
from avfusion.encoders import BlockwiseAudioEncoder, WhisperAudioEncoder
from benchmarks.measure import time_in_turns
from benchmarks.suite import Measurement, Settings, times

CONFIG = {
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_layers": 1,
}
SMOKE = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
POLICIES = ((1.0, 3.0, 0.5), (2.0, 4.0, 0.5), (5.0, 0.0, 0.0), (5.0, 5.0, 0.5))
SECONDS, SMOKE_SECONDS = 30, 4


def blocks(settings: Settings) -> list[Measurement]:
    """Every policy on the same sound; the first once more with silence up to 30 s, as Whisper was trained."""
    dtype = torch.bfloat16 if settings.device == "cuda" else torch.float32
    config = WhisperConfig(**(SMOKE if settings.smoke else CONFIG))
    model = WhisperEncoder(config).to(settings.device, dtype).eval()

    def whisper(seconds: float | None = None) -> WhisperAudioEncoder:
        extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        return WhisperAudioEncoder(model=model, feature_extractor=extractor, chunk_seconds=seconds)

    def policy(block: float, left: float, ahead: float, heard: float | None) -> BlockwiseAudioEncoder:
        return BlockwiseAudioEncoder(encoder=whisper(heard), block=block, left_context=left, look_ahead=ahead)

    variants: dict[str, nn.Module] = {"30 s at once": whisper()}
    variants |= {_name(*each): policy(*each, sum(each)) for each in POLICIES[: 1 if settings.smoke else None]}
    variants[f"{_name(*POLICIES[0])}, with silence up to 30 s"] = policy(*POLICIES[0], None)
    seconds = SMOKE_SECONDS if settings.smoke else SECONDS
    sound = Waveform.from_samples(torch.randn(1, seconds * 16000, device=settings.device) * 0.1, 16000)
    calls = {name: lambda encoder=encoder: encoder(sound) for name, encoder in variants.items()}
    with torch.inference_mode():
        timings = time_in_turns(calls, device=settings.device, rounds=settings.rounds, block=settings.block)
    return times(f"{seconds} s of sound through Whisper tiny", timings, "30 s at once")


def _name(block: float, left: float, ahead: float) -> str:
    return f"blocks of {block:g} s, {left:g} s before and {ahead:g} s after"

"""A small Whisper that learns which of the clips' words is being said: no package carries a pretrained one."""

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from avfusion import Waveform
from avfusion.encoders import BlockwiseAudioEncoder, WhisperAudioEncoder
from examples.real_parts.clips import SAMPLE_RATE, VOICES, WORDS, Speech

WIDTH = 128
LONGEST = 2.5  # seconds that the network hears at once: a block and its context
RATE = 50  # tokens per second
SECONDS, BATCH = 3.0, 12  # of training


def blockwise(whisper: WhisperAudioEncoder) -> BlockwiseAudioEncoder:
    """Hears one second at a time with some context, so that a live stream gives the tokens of the whole clip."""
    return BlockwiseAudioEncoder(encoder=whisper, block=1.0, left_context=1.0, look_ahead=0.5, segment_batch_size=64)


def pretrain_audio_encoder(folder: Path, speech: Speech, *, steps: int, seed: int = 0) -> float:
    """Writes ``folder``, and returns the share of the words' tokens that are named rightly at the end."""
    torch.manual_seed(seed)
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    model = WhisperModel(
        WhisperConfig(
            d_model=WIDTH,
            encoder_layers=2,
            encoder_attention_heads=4,
            encoder_ffn_dim=2 * WIDTH,
            decoder_layers=1,
            decoder_attention_heads=4,
            decoder_ffn_dim=WIDTH,
            max_source_positions=round(RATE * LONGEST),
        )
    )
    extractor = WhisperFeatureExtractor()
    encoder = WhisperAudioEncoder(model=model.encoder, feature_extractor=extractor, frozen=False, chunk_batch_size=64)
    listen, naming = blockwise(encoder).train(), nn.Linear(WIDTH, len(WORDS) + 1)
    trained = [*model.encoder.parameters(), *naming.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    right = 0.0
    for _ in (bar := trange(steps, desc="audio_encoder", unit="step")):
        waveform, said = _batch(speech, choose, generator)
        logits = naming(listen(waveform).tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), said.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        share = (logits.argmax(-1) == said)[said > 0].float().mean().item()
        right = 0.9 * right + 0.1 * share
        bar.set_postfix(loss=f"{loss.item():.3f}", right=f"{right:.3f}")
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return right


def _batch(speech: Speech, choose: random.Random, generator: torch.Generator) -> tuple[Waveform, Tensor]:
    """Words one after the other, and the number of the word at each token; 0 between them."""
    rows, said = [], torch.zeros(BATCH, round(RATE * SECONDS), dtype=torch.int64)
    for row in range(BATCH):
        loudness = choose.uniform(0.001, 0.01)
        samples = loudness * torch.randn(round(SECONDS * SAMPLE_RATE), generator=generator)
        now = choose.uniform(0, 0.5)
        while True:
            number = choose.randrange(len(WORDS))
            word = speech[choose.randrange(len(VOICES)), WORDS[number]]
            end = now + len(word) / SAMPLE_RATE
            if end > SECONDS:
                break
            first = round(now * SAMPLE_RATE)
            samples[first : first + len(word)] += choose.uniform(0.5, 1.3) * word
            said[row, round(RATE * now) : round(RATE * end)] = number + 1
            now = end + choose.uniform(0.05, 0.6)
        rows.append(samples)
    return Waveform.from_samples(rows, SAMPLE_RATE), said

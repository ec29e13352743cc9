"""Clips that the tests write."""

from pathlib import Path

import torch

from avfusion.media import write_video


def clip(path: Path, *, seconds: float = 2.0, sound: bool = True, pictures: bool = True, seed: int = 0) -> str:
    """A file of noise at 4 pictures a second; sound that is loud enough to be told from silence."""
    noise = torch.Generator().manual_seed(seed)
    frames = torch.rand(round(4 * seconds), 3, 32, 32, generator=noise)
    samples = 0.1 * torch.randn(round(16000 * seconds), generator=noise) if sound else None
    write_video(path, frames if pictures else frames[:1].expand_as(frames) * 0, frame_rate=4.0, samples=samples)
    return str(path)

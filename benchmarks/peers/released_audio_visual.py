"""The released connector with a trained map of its audio tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.released import ReleasedConnector


class ReleasedAudioVisual(nn.Module):
    """The map, zeros in the slots without audio, both modalities side by side, and the connector.

    Args:
        connector: the connector.
        audio: width of the audio tokens.
        stream: width that they are mapped to.
    """

    def __init__(self, connector: ReleasedConnector, *, audio: int, stream: int) -> None:
        super().__init__()
        self.connector = connector
        self.audio_map = nn.Linear(audio, stream)

    def forward(self, visual: Tensor, audio: Tensor, frame_mask: Tensor) -> Tensor:
        """``visual`` is ``(clip, frame, slot, stream)``, ``audio`` ``(clip, frame, fewer slots, audio)``."""
        mapped = self.audio_map(audio)
        mapped = F.pad(mapped, (0, 0, 0, visual.shape[2] - mapped.shape[2]))
        return self.connector(torch.cat([visual, mapped], -1), frame_mask)

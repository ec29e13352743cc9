"""A projector with the published windows of 320 tokens and heads of 64, and a connector; narrow otherwise."""

from typing import Any

import torch
from torch import Tensor

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    Frames,
    FrameSynchroniser,
    SlidingWindowProjector,
    TokenStream,
)

FRAMES, SLOTS, WIDTH = 10, 32, 128
DENSE, RAGGED = (20, 20), (20, 13, 4)


def projector(stride: int | None = None, **changes: Any) -> SlidingWindowProjector:
    """In float64."""
    torch.manual_seed(0)
    sizes = {"input_dim": WIDTH, "hidden_size": WIDTH, "num_heads": 2, "num_queries": 8, "dropout": 0.0}
    encoder = CausalQFormer(**{**sizes, "window_frames": FRAMES, "tokens_per_frame": SLOTS, **changes})
    whole = SlidingWindowProjector(window_encoder=encoder, window_frames=FRAMES, stride_frames=stride, llm_dim=24)
    return whole.double()


def frames(lengths: tuple[int, ...]) -> Frames:
    tokens = torch.randn(len(lengths), max(lengths), SLOTS, WIDTH, generator=torch.Generator().manual_seed(1))
    return Frames.from_rate(tokens.double(), 2.0, lengths=list(lengths))


def connector(dtype: torch.dtype = torch.float32) -> AudioVisualConnector:
    """In evaluation mode; takes :func:`media`."""
    torch.manual_seed(0)
    encoder = CausalQFormer(
        input_dim=64, hidden_size=64, num_heads=2, num_queries=4, window_frames=4, tokens_per_frame=25
    )
    whole = AudioVisualConnector(
        synchroniser=FrameSynchroniser(visual_dim=32, stream_dims={"audio": 32}, slots=25),
        projector=SlidingWindowProjector(window_encoder=encoder, window_frames=4, llm_dim=24),
        input_dims={"audio": 40},
    )
    return whole.to(dtype).eval()


def media(dtype: torch.dtype = torch.float32, lengths: tuple[int, ...] = (9, 6)) -> dict[str, Any]:
    """Pictures of 16 tokens at 2 a second, and sound that ends before them."""
    draw = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(dtype)

    count, longest = len(lengths), max(lengths)
    return {
        "visual": Frames.from_rate(noise(count, longest, 16, 32), 2.0, lengths=list(lengths)),
        "audio": TokenStream.from_rate(noise(count, 25 * longest - 7, 40), 50.0, lengths=[25 * n - 7 for n in lengths]),
    }

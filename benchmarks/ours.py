"""avfusion's connector at given sizes, and what it is given."""

import inspect
from collections.abc import Sequence
from typing import Any, cast, get_args

import torch
from torch import Tensor

from avfusion import AudioVisualConnector, CausalQFormer, Frames, FrameSynchroniser, SlidingWindowProjector
from avfusion.functional import AttentionImplementation
from benchmarks.sizes import FRAME_RATE, Sizes

NAME = "avfusion"
DEFAULT: AttentionImplementation = inspect.signature(CausalQFormer).parameters["attn_implementation"].default


def implementations(device: str) -> dict[str, AttentionImplementation]:
    """Variants by name: the default under the library's own name, then every other backend that can do the work."""
    found: dict[str, AttentionImplementation] = {NAME: DEFAULT}
    left_out = {"varlen_attn"}  # knows no causal structure
    if device == "cpu":
        left_out.add("flex_attention")  # no gradients there, and not compiled
    for name in get_args(AttentionImplementation):
        if name != DEFAULT and name not in left_out:
            found[f"{NAME}, {name}"] = name
    return found


def qformer(sizes: Sizes, **changes: Any) -> CausalQFormer:
    return CausalQFormer(
        **{
            "input_dim": sizes.width,
            "hidden_size": sizes.hidden,
            "num_layers": sizes.layers,
            "num_heads": sizes.heads,
            "num_queries": sizes.queries,
            "window_frames": sizes.window_frames,
            "tokens_per_frame": sizes.slots,
            "dropout": 0.0,
            **changes,
        }
    )


def projector(
    sizes: Sizes,
    *,
    window_frames: int | None = None,
    stride_frames: int | None = None,
    checkpoint_every: int | None = None,
    **changes: Any,
) -> SlidingWindowProjector:
    """With ``checkpoint_every``, chunks of so many windows are computed again in the backward pass; the rest goes to
    the Q-Former.
    """
    frames = sizes.window_frames if window_frames is None else window_frames
    return SlidingWindowProjector(
        window_encoder=qformer(sizes, window_frames=frames, **changes),
        window_frames=frames,
        stride_frames=stride_frames,
        llm_dim=sizes.llm_dim,
        chunk_windows=checkpoint_every,
        checkpoint_chunks=checkpoint_every is not None,
    )


def encoder_of(projector: SlidingWindowProjector) -> CausalQFormer:
    return cast("CausalQFormer", projector.window_encoder)


def connector(sizes: Sizes, projector: SlidingWindowProjector) -> AudioVisualConnector:
    """With a trained map from the audio encoder's width."""
    return AudioVisualConnector(
        synchroniser=FrameSynchroniser(
            visual_dim=sizes.stream,
            stream_dims={"audio": sizes.stream},
            frame_rate=FRAME_RATE,
            stream_rates={"audio": sizes.audio_per_frame * FRAME_RATE},
            slots=sizes.slots,
        ),
        projector=projector,
        input_dims={"audio": sizes.audio},
    )


def frames(tokens: Tensor, lengths: Sequence[int] | None = None) -> Frames:
    return Frames.from_rate(tokens, FRAME_RATE, lengths=lengths)


def tokens(sizes: Sizes, clips: int, count: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    """Synchronised frames of noise: ``(clip, frame, slot, width)``."""
    return torch.randn(clips, count, sizes.slots, sizes.width, device=device, dtype=dtype)

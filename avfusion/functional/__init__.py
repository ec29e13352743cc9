"""Pure tensor functions: alignment, windows, masks, attention, diversity."""

from avfusion.functional.attention import AttentionImplementation, attention, attention_weights
from avfusion.functional.diversity import query_similarity
from avfusion.functional.frame_grid import frame_grid
from avfusion.functional.frame_layout import FrameGrid
from avfusion.functional.fusion import fuse_streams
from avfusion.functional.masks import FrameCausalMask
from avfusion.functional.placement import Placement, gather_frames, place_tokens, scatter_tokens
from avfusion.functional.pooling import pool_patches
from avfusion.functional.ragged import cut_chunks, scatter_masked
from avfusion.functional.windows import cut_windows, num_windows

__all__ = [
    "AttentionImplementation",
    "FrameCausalMask",
    "FrameGrid",
    "Placement",
    "attention",
    "attention_weights",
    "cut_chunks",
    "cut_windows",
    "frame_grid",
    "fuse_streams",
    "gather_frames",
    "num_windows",
    "place_tokens",
    "pool_patches",
    "query_similarity",
    "scatter_masked",
    "scatter_tokens",
]

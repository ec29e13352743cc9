"""The frames of whole clips, and the tokens in them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from avfusion.functional.frame_grid import lay_frames
from avfusion.functional.frame_layout import FrameGrid, rounding_of_spans
from avfusion.functional.placement import (
    centres_against,
    check_placement,
    gather_frames,
    latest_centres,
    place_latest,
    scatter_tokens,
)
from avfusion.modules.synchroniser.state import VISUAL
from avfusion.modules.synchroniser.stream_table import StreamTable
from avfusion.types import Frames, TokenStream
from avfusion.types.clock import time_dtype


def place_clips(
    table: StreamTable, frames: Frames, streams: Mapping[str, TokenStream], num_frames: int | None
) -> tuple[FrameGrid, dict[str, tuple[Tensor, Tensor]]]:
    """The frames of whole clips, and each stream's tokens and mask in them, by name."""
    grid, times = clip_grid(table, frames, streams, num_frames)
    placed: dict[str, tuple[Tensor, Tensor]] = {}
    if VISUAL in table.dims:
        placed[VISUAL] = gather_frames(frames.tokens, frames.mask, grid.source, table.slots[VISUAL])
    for name in table.rates:
        stream, slots = streams[name], table.slots[name]
        placement = place_latest(times[name], stream.mask, grid)
        check_placement(name, stream.mask, stream.timestamps, placement, slots)
        placed[name] = scatter_tokens(stream.tokens, placement, grid.mask.shape[1], slots)
    return grid, placed


def clip_grid(
    table: StreamTable, frames: Frames, streams: Mapping[str, TokenStream], num_frames: int | None
) -> tuple[FrameGrid, dict[str, Tensor]]:
    """The frames that hold the video and every real token, and each stream's centres as compared with them."""
    batch, device, share = frames.spans.shape[0], frames.spans.device, rounding_of_spans(frames.spans)
    first = torch.full((batch,), torch.inf, dtype=time_dtype(device), device=device)
    last, times = -first, {}
    for name, stream in streams.items():
        real = stream.mask & stream.timestamps.isfinite()
        times[name] = centres_against(latest_centres(stream.timestamps, stream.mask), stream.mask, share)
        if real.shape[1]:
            first = torch.minimum(first, torch.where(real, times[name], torch.inf).amin(1))
            last = torch.maximum(last, torch.where(real, times[name], -torch.inf).amax(1))
    return lay_frames(frames.spans, frames.frame_mask, first, last, table.frame_rate, num_frames), times

"""The frames of whole clips, and the tokens in them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from avfusion.functional.frame_grid import lay_frames
from avfusion.functional.frame_layout import FrameGrid, rounding_of_spans
from avfusion.functional.host import to_device, to_host
from avfusion.functional.placement import (
    centres_against,
    check_placement,
    gather_frames,
    latest_centres,
    place_latest,
    scatter_tokens,
)
from avfusion.functional.stream_table import VISUAL, StreamTable
from avfusion.types import Frames, TokenStream
from avfusion.types.clock import time_dtype


def place_clips(
    table: StreamTable, frames: Frames, streams: Mapping[str, TokenStream], num_frames: int | None
) -> tuple[FrameGrid, dict[str, tuple[Tensor, Tensor]]]:
    """The frames of whole clips, and each stream's tokens and mask in them, by name."""
    device = frames.tokens.device
    spans, mask = to_host(frames.spans), to_host(frames.mask)
    times = {name: (to_host(stream.timestamps), to_host(stream.mask)) for name, stream in streams.items()}
    host, centres = _grid_and_centres(table, spans, mask.any(-1), times, num_frames)
    grid = FrameGrid(*(to_device(value, device) for value in host))
    placed: dict[str, tuple[Tensor, Tensor]] = {}
    if VISUAL in table.dims:
        same = _shows_all(host.source, mask, table.slots[VISUAL])
        placed[VISUAL] = (
            (frames.tokens, frames.mask)
            if same
            else gather_frames(frames.tokens, frames.mask, grid.source, table.slots[VISUAL])
        )
    for name in table.rates:
        (timestamps, real), slots = times[name], table.slots[name]
        placement = place_latest(centres[name], real, host)
        check_placement(name, real, timestamps, placement, slots)
        placed[name] = scatter_tokens(streams[name].tokens, placement, host.mask.shape[1], slots)
    return grid, placed


def _shows_all(source: Tensor, mask: Tensor, slots: int) -> bool:
    """Whether the grid's frames are those of the video, which then need not be copied."""
    if torch.compiler.is_compiling() or source.shape != mask.shape[:2] or mask.shape[2] != slots:
        return False
    return bool(mask.all()) and bool((source == torch.arange(mask.shape[1], device=source.device)).all())


def clip_grid(
    table: StreamTable, frames: Frames, streams: Mapping[str, TokenStream], num_frames: int | None
) -> FrameGrid:
    """The frames that hold the video and every real token of the streams."""
    times = {name: (stream.timestamps, stream.mask) for name, stream in streams.items()}
    return _grid_and_centres(table, frames.spans, frames.frame_mask, times, num_frames)[0]


def _grid_and_centres(
    table: StreamTable,
    spans: Tensor,
    frame_mask: Tensor,
    times: Mapping[str, tuple[Tensor, Tensor]],
    num_frames: int | None,
) -> tuple[FrameGrid, dict[str, Tensor]]:
    """The grid, and each stream's centres as compared with its edges, from timestamps and masks by name."""
    batch, device, share = spans.shape[0], spans.device, rounding_of_spans(spans)
    first = torch.full((batch,), torch.inf, dtype=time_dtype(device), device=device)
    last, centres = -first, {}
    for name, (timestamps, mask) in times.items():
        real = mask & timestamps.isfinite()
        centres[name] = centres_against(latest_centres(timestamps, mask), mask, share)
        if real.shape[1]:
            first = torch.minimum(first, torch.where(real, centres[name], torch.inf).amin(1))
            last = torch.maximum(last, torch.where(real, centres[name], -torch.inf).amax(1))
    return lay_frames(spans, frame_mask, first, last, table.frame_rate, num_frames), centres

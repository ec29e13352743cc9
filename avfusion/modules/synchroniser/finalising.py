"""Frames are finalised when every stream's watermark has passed their end."""

from typing import NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Int
from avfusion.functional.frame_layout import FrameGrid
from avfusion.functional.open_grid import GridAnchor, OpenGrid, anchor_after, open_grid
from avfusion.functional.placement import (
    Placement,
    centres_against,
    check_placement,
    gather_frames,
    place_latest,
    scatter_tokens,
)
from avfusion.functional.stream_table import VISUAL, StreamTable
from avfusion.modules.synchroniser.state import FrameSynchroniserState, PendingFrames
from avfusion.modules.synchroniser.stream_buffers import keep_frames, keep_tokens
from avfusion.types.clock import TICK


class Finalised(NamedTuple):
    """Frames past the watermark, which can no longer change.

    Attributes:
        grid: the frames.
        lengths: ``(batch,)`` int64: number of frames of each clip.
        placed: each stream's tokens and mask in them, by name.
        absent: ``(batch,)`` bool by name: clips without input of that stream so far.
    """

    grid: FrameGrid
    lengths: Int[Tensor, " batch"]
    placed: dict[str, tuple[Tensor, Tensor]]
    absent: dict[str, Bool[Tensor, " batch"]]


def finalise(
    table: StreamTable, state: FrameSynchroniserState, *, end: Tensor, knows_absent: bool
) -> tuple[Finalised, FrameSynchroniserState]:
    """Finalises frames past the watermark; the rest stays pending.

    Args:
        table: the streams.
        state: with all input so far.
        end: ``(batch,)`` bool: clips that end.
        knows_absent: frames wait until it is known of every stream whether a clip lacks it.
    """
    visual = state.visual
    times = [centres_against(each.timestamps, each.mask, visual.rounding[:, None]) for each in state.streams]
    masked = [torch.where(each.mask, when, torch.nan) for each, when in zip(state.streams, times, strict=True)]
    laid = open_grid(
        state.anchor,
        visual.spans,
        visual.mask.any(-1).sum(1),
        torch.cat([visual.spans.new_zeros(len(end), 0), *masked], 1),
        state.max_wait.isfinite(),
        table.frame_rate,
    )
    lengths = _num_final(laid, state, end, knows_absent)
    grid = _first_frames(laid.grid, lengths)
    count = grid.mask.shape[1]

    placed: dict[str, tuple[Tensor, Tensor]] = {}
    absent = {VISUAL: visual.progress.received == 0}
    like = next((each.tokens for each in state.streams if each.tokens.shape[2]), visual.tokens)
    shown = _with_held(visual)
    if VISUAL in table.dims:
        tokens = shown.tokens
        if not tokens.shape[3]:  # no video yet: neither its width nor its dtype is known
            tokens = like.new_zeros(*shown.mask.shape, table.dims[VISUAL])
        placed[VISUAL] = gather_frames(tokens, shown.mask, grid.source, table.slots[VISUAL])
    streams = []
    for name, pending, when in zip(table.rates, state.streams, times, strict=True):
        absent[name] = pending.progress.received == 0
        placement = place_latest(when, pending.mask, laid.grid)
        due = pending.mask & (placement.frame < lengths[:, None])  # those that no frame holds too
        check_placement(name, due, pending.timestamps, placement, table.slots[name])
        placement = Placement(torch.where(due, placement.frame, -1), torch.where(due, placement.slot, -1))
        tokens = pending.tokens if pending.tokens.shape[2] else like.new_zeros(len(due), 0, table.dims[name])
        placed[name] = scatter_tokens(tokens, placement, count, table.slots[name])
        streams.append(keep_tokens(pending, ~due))
    anchor = anchor_after(laid, lengths)
    rest = _pending_frames(shown, laid, lengths, anchor)
    return Finalised(grid, lengths, placed, absent), state._replace(visual=rest, streams=tuple(streams), anchor=anchor)


def _num_final(laid: OpenGrid, state: FrameSynchroniserState, end: Tensor, knows_absent: bool) -> Tensor:
    """``(batch,)`` int64: the number of final frames."""
    progress = [state.visual.progress, *(stream.progress for stream in state.streams)]
    watermarks = torch.stack([each.watermark for each in progress])
    if knows_absent:  # it is not known before a stream begins or ends
        known = torch.stack([each.received > 0 for each in progress]) | (watermarks == torch.inf)
        watermarks = torch.where(known, watermarks, -torch.inf)
    watermark = torch.where(end, torch.inf, watermarks.amin(0))
    newest = torch.stack([each.newest for each in progress]).amax(0)
    waited = torch.where(state.max_wait.isfinite(), newest - state.max_wait, -torch.inf)
    # What a later video frame can change waits for it, unless none will come, or it has been waited for long enough.
    over = end | (state.visual.progress.watermark == torch.inf)
    complete = torch.where(laid.settled | over[:, None], torch.maximum(watermark, waited)[:, None], waited[:, None])
    # Half a tick: what has yet to come is centred, within rounding, a whole one later than this at the earliest.
    return (laid.grid.mask & (laid.grid.spans[..., 1] <= complete + TICK / 2)).sum(1)


def _first_frames(grid: FrameGrid, lengths: Tensor) -> FrameGrid:
    """Each clip's first frames, as many as some clip has."""
    count = int(lengths.max()) if len(lengths) else 0
    real = torch.arange(count, device=lengths.device) < lengths[:, None]
    return FrameGrid(
        source=torch.where(real, grid.source[:, :count], -1),
        spans=torch.where(real[..., None], grid.spans[:, :count], 0.0),
        mask=real,
    )


def _with_held(visual: PendingFrames) -> PendingFrames:
    """The video frames after the held one, as the grid counts them."""
    batch, slots = visual.mask.shape[0], visual.mask.shape[2]
    held, mask = visual.held, visual.held_mask
    if not held.shape[1]:
        held, mask = visual.tokens.new_zeros(batch, 1, slots, visual.tokens.shape[3]), mask.new_zeros(batch, 1, slots)
    return visual._replace(
        tokens=torch.cat([held, visual.tokens], 1) if visual.tokens.shape[1] else held,
        mask=torch.cat([mask, visual.mask], 1),
        spans=torch.cat([visual.spans.new_zeros(batch, 1, 2), visual.spans], 1),
    )


def _pending_frames(shown: PendingFrames, laid: OpenGrid, lengths: Tensor, anchor: GridAnchor) -> PendingFrames:
    """Drops the video frames that are finalised, and keeps the last of them if it is held."""
    place = torch.arange(shown.mask.shape[1], device=lengths.device)
    last = torch.zeros_like(lengths)
    if laid.video_frames.shape[1]:
        last = laid.video_frames.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0].masked_fill(lengths == 0, 0)
    rest = keep_frames(shown, (place > last[:, None]) & (place > 0))
    if not bool(anchor.holds.any()):
        return rest._replace(held=shown.tokens[:, :0], held_mask=shown.mask[:, :0])
    index = last[:, None, None]
    mask = shown.mask.gather(1, index.expand(-1, 1, shown.mask.shape[2])) & anchor.holds[:, None, None]
    held = shown.tokens.gather(1, index[..., None].expand(-1, 1, *shown.tokens.shape[2:]))
    return rest._replace(held=torch.where(mask[..., None], held, 0), held_mask=mask)

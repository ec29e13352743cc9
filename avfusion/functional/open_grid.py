"""The frames of clips that have not ended.

They equal those of :func:`~avfusion.functional.frame_grid` for the whole clip, from the first frame that is not
finalised. Both follow the rule of :mod:`avfusion.functional.frame_layout`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.functional.frame_layout import (
    FrameGrid,
    LeadingFrames,
    VideoSpans,
    frames_after,
    lay_out,
    leading_frames,
    video_spans,
)


class GridAnchor(NamedTuple):
    """Position of each clip's next frame.

    Attributes:
        origin: ``(batch,)`` seconds at which added frame 0 begins: the start of the first video frame until that is
            finalised; then the end of the last finalised video frame; 0 without video.
        number: ``(batch,)`` int64: number of the next added frame; negative before the first video frame.
        end: ``(batch,)`` seconds at which the last finalised frame ends; ``-inf`` before there is one.
        holds: ``(batch,)`` bool: whether the last finalised video frame is held (zero-order hold).
    """

    origin: Float[Tensor, " batch"]
    number: Int[Tensor, " batch"]
    end: Float[Tensor, " batch"]
    holds: Bool[Tensor, " batch"]


class OpenGrid(NamedTuple):
    """The frames that are laid out, and the position after each of them.

    Attributes:
        grid: the frames; ``source`` counts the pending video frames from 1, 0 is the one that was finalised last.
        anchor: position of each clip's first frame, as if it were the next to finalise.
        video_frames: ``(batch, frame)`` int64: video frames among the frames up to and including each.
        holds: ``(batch, frame)`` bool: whether a video frame is held after that frame.
        settled: ``(batch, frame)`` bool: frames that no later video frame can change.
    """

    grid: FrameGrid
    anchor: GridAnchor
    video_frames: Int[Tensor, "batch frame"]
    holds: Bool[Tensor, "batch frame"]
    settled: Bool[Tensor, "batch frame"]


def open_grid(
    anchor: GridAnchor,
    spans: Float[Tensor, "batch video_frame 2"],
    count: Int[Tensor, " batch"],
    times: Float[Tensor, "batch time"],
    fills_gaps: Bool[Tensor, " batch"],
    frame_rate: float,
) -> OpenGrid:
    """Lays out frames for the pending video frames and tokens.

    Args:
        anchor: position of each clip's next frame.
        spans: ``(batch, video_frame, 2)`` seconds of pending video frames, real ones first; only the first may start at
            ``-inf``, and only the last end at ``inf``.
        count: ``(batch,)`` int64: pending video frames.
        times: ``(batch, time)`` seconds of the pending tokens, as :func:`~avfusion.types.clock.latest` returns them, in
            any order; ``nan`` for padding.
        fills_gaps: ``(batch,)`` bool: whether frames are added for tokens between two video frames, even if no frame
            has been added after the earlier one.
        frame_rate: rate of the added frames, in frames per second.
    """
    real = torch.arange(spans.shape[1], device=spans.device) < count[:, None]
    video = video_spans(torch.where(real[..., None], spans, 0.0), count, frame_rate)
    begun, some, holds_last = anchor.end > -torch.inf, count > 0, video.holds_last
    first, last = _bounds(times, video.begin)
    new = leading_frames(video, first, frame_rate)
    old = _leading_frames_after(anchor, video, times, last, fills_gaps, frame_rate)
    leading = LeadingFrames(*(torch.where(begun, *pair) for pair in zip(old, new, strict=True)))
    trailing = torch.where(some | ~begun, frames_after(last, video.end, frame_rate), 0)
    grid, index = lay_out(video, leading, trailing, frame_rate)
    before, past = index < 0, index - count[:, None]
    # The first video frame determines where the grid begins. The next video frame ends one without a known end and,
    # without frames in gaps, determines whether frames may follow the last one.
    settled = some[:, None] & (past < torch.where(holds_last, -1, 0)[:, None])
    settled = settled | (fills_gaps & (some | begun) & ~holds_last)[:, None]
    holds = torch.where(before, (begun & anchor.holds)[:, None], holds_last[:, None] & (past >= -1))
    return OpenGrid(
        grid,
        anchor._replace(origin=leading.origin, number=leading.number),
        (index + 1).clamp(min=0).minimum(count[:, None]),
        holds & grid.mask,
        settled & grid.mask,
    )


def _bounds(times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """``(batch,)`` the earliest and the latest time; ``inf`` and ``-inf`` where there is none."""
    if not times.shape[1]:
        return torch.full_like(like, torch.inf), torch.full_like(like, -torch.inf)
    return times.nan_to_num(nan=torch.inf).amin(1), times.nan_to_num(nan=-torch.inf).amax(1)


def _leading_frames_after(
    anchor: GridAnchor, video: VideoSpans, times: Tensor, last: Tensor, fills_gaps: Tensor, frame_rate: float
) -> LeadingFrames:
    """The added frames before the pending video, or all added frames without video, after the finalised ones."""
    some = video.lengths > 0
    counts_back = some & (anchor.number < 0) & (anchor.origin == video.begin)  # from the first video frame
    fills = (anchor.number != 0) | fills_gaps
    _, last_in_gap = _bounds(torch.where(times < video.begin[:, None], times, torch.nan), last)
    stop_in_gap = torch.where(fills, frames_after(last_in_gap, anchor.origin, frame_rate), anchor.number)
    stop = torch.where(counts_back, 0, stop_in_gap)
    stop = torch.where(some, stop, frames_after(last, anchor.origin, frame_rate))
    source = torch.where(counts_back & video.holds_first, 1, torch.where(anchor.holds, 0, -1))
    return LeadingFrames(anchor.origin, anchor.number, (stop - anchor.number).clamp(min=0), source)


def anchor_after(laid: OpenGrid, finalised: Int[Tensor, " batch"]) -> GridAnchor:
    """The position of each clip's next frame after the finalised ones.

    Args:
        laid: the frames.
        finalised: ``(batch,)`` int64: frames of each clip that are finalised.
    """
    if not laid.grid.mask.shape[1]:
        return laid.anchor
    at = (finalised - 1).clamp(min=0)[:, None]
    some = finalised > 0
    end = laid.grid.spans[..., 1].gather(1, at)[:, 0]
    count = laid.video_frames.gather(1, at)[:, 0]
    # Added frames are numbered from the end of the last finalised video frame.
    numbered = laid.video_frames == count[:, None]
    place = torch.arange(laid.video_frames.shape[1], device=finalised.device)
    since = (numbered & (place <= at)).sum(1)
    last_video_frame = (at[:, 0] - since + 1).clamp(min=0)[:, None]
    had = some & (count > 0)
    video_end = laid.grid.spans[..., 1].gather(1, last_video_frame)[:, 0]
    return GridAnchor(
        origin=torch.where(had, video_end, laid.anchor.origin),
        number=torch.where(had, since - 1, laid.anchor.number + torch.where(some, finalised, 0)),
        end=torch.where(some, end, laid.anchor.end),
        holds=torch.where(some, laid.holds.gather(1, at)[:, 0], laid.anchor.holds),
    )

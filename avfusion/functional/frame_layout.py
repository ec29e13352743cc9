"""The layout of a clip's frames: one rule for whole clips and streams.

A clip has frames added before its video, the video's own frames, and frames added after it. Added frames have integer
numbers relative to one origin, so times do not drift. They show no video, unless a frame is held (zero-order hold).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError
from avfusion.types.clock import latest, rounding, time_dtype


class FrameGrid(NamedTuple):
    """The frames of a batch of clips, real ones first.

    Attributes:
        source: ``(batch, frame)`` int64: which visual frame each frame shows, ``-1`` for none.
        spans: ``(batch, frame, 2)`` seconds ``[start, end)``, finite and increasing; zero where masked.
        mask: ``(batch, frame)`` bool.

    Example:
        >>> import torch
        >>> from avfusion.functional import FrameGrid
        >>> spans = torch.tensor([[[0.0, 0.5], [0.5, 1.0]]], dtype=torch.float64)
        >>> grid = FrameGrid(source=torch.tensor([[0, -1]]), spans=spans, mask=torch.ones(1, 2, dtype=torch.bool))
        >>> int((grid.source < 0).sum())  # frames without video
        1
    """

    source: Int[Tensor, "batch frame"]
    spans: Float[Tensor, "batch frame 2"]
    mask: Bool[Tensor, "batch frame"]


class VideoSpans(NamedTuple):
    """The video's own frames.

    Attributes:
        spans: ``(batch, frame + 1, 2)`` finite seconds, real frames first, then zeros.
        lengths: ``(batch,)`` int64: real frames.
        begin: ``(batch,)`` seconds at which the first starts; 0 without video.
        end: ``(batch,)`` seconds at which the last ends; 0 without video.
        holds_first: ``(batch,)`` bool: the first frame is held back to the beginning of the clip.
        holds_last: ``(batch,)`` bool: the last frame is held to the end of the clip.
    """

    spans: Float[Tensor, "batch frames 2"]
    lengths: Int[Tensor, " batch"]
    begin: Float[Tensor, " batch"]
    end: Float[Tensor, " batch"]
    holds_first: Bool[Tensor, " batch"]
    holds_last: Bool[Tensor, " batch"]


class LeadingFrames(NamedTuple):
    """The frames that are added before the video.

    Attributes:
        origin: ``(batch,)`` seconds: time of frame 0.
        number: ``(batch,)`` int64: number of the first; frame ``n`` starts at ``origin + n / frame_rate``.
        lengths: ``(batch,)`` int64: number of added frames.
        source: ``(batch,)`` int64: the video frame that they show, as in :func:`lay_out`.
    """

    origin: Float[Tensor, " batch"]
    number: Int[Tensor, " batch"]
    lengths: Int[Tensor, " batch"]
    source: Int[Tensor, " batch"]


def video_spans(spans: Tensor, lengths: Tensor, frame_rate: float) -> VideoSpans:
    """Replaces the infinite span of a held frame by a finite one.

    Args:
        spans: ``(batch, frame, 2)`` seconds, real frames first, zero behind them. Only the first may start at ``-inf``,
            and only the last end at ``inf``.
        lengths: ``(batch,)`` int64: real frames.
        frame_rate: a frame that is held lasts ``1 / frame_rate``.
    """
    # Sizes are read from `shape`: in exported code `len` would fix the batch size.
    # One empty row keeps every gather valid for a batch without any frames.
    spans = torch.cat([spans, spans.new_zeros(lengths.shape[0], 1, 2)], 1)
    start, stop = spans[:, 0].unbind(-1)
    holds_first = start == -torch.inf
    # A frame that is held back begins with the clip, or one frame before its own end if that is known.
    begin = torch.where(holds_first, torch.where(stop == torch.inf, 0.0, stop - 1 / frame_rate), start)
    spans = torch.cat([torch.stack([begin, stop], -1)[:, None], spans[:, 1:]], 1)
    newest = torch.arange(lengths.shape[0], device=lengths.device), (lengths - 1).clamp(min=0)
    start, stop = spans[newest].unbind(-1)
    holds_last = stop == torch.inf
    end = torch.where(holds_last, start + 1 / frame_rate, stop)
    spans = spans.index_put(newest, torch.stack([start, end], -1))
    return VideoSpans(spans, lengths, begin, end, holds_first, holds_last)


def leading_frames(video: VideoSpans, first: Tensor, frame_rate: float) -> LeadingFrames:
    """The frames that whole clips need before their video, or before 0, so that ``first`` falls into one."""
    number = frames_before(first, video.begin, frame_rate)
    return LeadingFrames(video.begin, -number, number, torch.where(video.holds_first, 1, -1))


def lay_out(
    video: VideoSpans, leading: LeadingFrames, trailing: Tensor, frame_rate: float, num_frames: int | None = None
) -> tuple[FrameGrid, Int[Tensor, "batch frame"]]:
    """Lays out leading frames, video, and trailing frames.

    Args:
        video: the video's frames.
        leading: the added frames before them.
        trailing: ``(batch,)`` int64: added frames after them, counted from ``video.end``.
        frame_rate: rate of the added frames, in frames per second.
        num_frames: frames of the result; by default the number that the longest clip needs, which synchronises with
            the device.

    Returns:
        The grid, whose ``source`` counts the video's frames from 1, 0 is a frame that is held from before them; and the
        index of each frame in the video, negative before it, ``video.lengths`` or more after it.
    """
    some = video.lengths > 0
    total = leading.lengths + video.lengths + trailing
    place = torch.arange(_grid_width(total, num_frames), device=total.device)
    index = place - leading.lengths[:, None]
    past = index - video.lengths[:, None]
    before, real = index < 0, place < total[:, None]
    own = ~before & (past < 0)
    steps = torch.where(before, leading.number[:, None] + place, past).to(video.begin.dtype)
    origin = torch.where(before, leading.origin[:, None], video.end[:, None])
    stop = origin + (steps + 1) / frame_rate
    stop = torch.where(before & some[:, None], torch.minimum(stop, video.begin[:, None]), stop)
    added = torch.stack([origin + steps / frame_rate, stop], -1)
    given = video.spans.gather(1, index.clamp(0, video.spans.shape[1] - 1)[..., None].expand(-1, -1, 2))
    held = torch.where(video.holds_last, video.lengths, -1)
    source = torch.where(before, leading.source[:, None], torch.where(own, index + 1, held[:, None]))
    grid = FrameGrid(
        source=torch.where(real, source, -1),
        spans=torch.where(real[..., None], torch.where(own[..., None], given, added), 0.0),
        mask=real,
    )
    return grid, index


def _grid_width(total: Tensor, wanted: int | None) -> int:
    if wanted is None:
        return int(total.max()) if total.shape[0] else 0
    if torch.compiler.is_compiling():
        torch._assert_async((total <= wanted).all(), "num_frames: must be at least what the longest clip needs")
    elif total.shape[0] and int(total.max()) > wanted:
        raise InvalidValueError(
            f"num_frames: must be at least {int(total.max())}, which the longest clip needs, found {wanted}"
        )
    return wanted


def rounding_of_spans(spans: Tensor) -> float:
    """The ``edges`` argument of :func:`~avfusion.types.clock.latest` for times that are compared with these edges."""
    return rounding(spans.dtype) if torch.finfo(spans.dtype).eps > torch.finfo(time_dtype(spans.device)).eps else 0.0


def joined_starts(spans: Tensor, ends: Tensor, share: float | Tensor = 0.0) -> Tensor:
    """``(batch, frame)`` starts of frames: exactly the previous frame's end, if both are equal within rounding.

    Args:
        spans: ``(batch, frame, 2)`` seconds, in the dtype of times.
        ends: ``(batch, frame - 1)`` seconds at which the frames before all but the first end; or ``(batch, frame)``.
        share: :func:`~avfusion.types.clock.rounding` of the dtype in which the spans were given, if lower.
    """
    first = spans.shape[1] - ends.shape[1]
    starts, stops = spans[:, first:].unbind(-1)
    slack = latest(ends, share) - ends
    touch = ((starts - ends).abs() <= slack) & (stops > ends)  # never for infinite times
    return torch.cat([spans[:, :first, 0], torch.where(touch, ends, starts)], 1)


# The products below can round across a frame's edge; the comparisons use the edges of the resulting grid.
def frames_before(first: Tensor, begin: Tensor, frame_rate: float) -> Tensor:
    """Frames to add before ``begin`` so that ``first`` falls into one; none for ``inf``."""
    count = ((begin - first) * frame_rate).nan_to_num(neginf=0.0).ceil().clamp(min=0)
    count = count + (first < begin - count / frame_rate)
    return (count - ((count > 0) & (first >= begin - (count - 1) / frame_rate)).to(count.dtype)).long()


def frames_after(last: Tensor, end: Tensor, frame_rate: float) -> Tensor:
    """Frames to add from ``end`` on so that ``last`` falls into one; none for ``-inf``."""
    count = (((last - end) * frame_rate).nan_to_num(neginf=-1.0).floor() + 1).clamp(min=0)
    count = count + (last >= end + count / frame_rate)
    return (count - ((count > 0) & (last < end + (count - 1) / frame_rate)).to(count.dtype)).long()

"""The frames of whole clips."""

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidValueError
from avfusion.functional.frame_layout import (
    FrameGrid,
    frames_after,
    joined_starts,
    lay_out,
    leading_frames,
    rounding_of_spans,
    video_spans,
)
from avfusion.functional.ragged import real_first
from avfusion.types.clock import latest, time_dtype


def frame_grid(
    spans: Float[Tensor, "batch frame 2"],
    mask: Bool[Tensor, "batch frame"],
    first: Float[Tensor, " batch"],
    last: Float[Tensor, " batch"],
    frame_rate: float,
    num_frames: int | None = None,
) -> FrameGrid:
    """Lays out each clip's frames so that every time from ``first`` to ``last`` is in one frame.

    Video frames keep their spans; a frame that begins where the previous one ends, within rounding, begins exactly
    there. Missing frames before and after the video are added at ``frame_rate``; a clip without video gets the regular
    grid ``[k, k + 1) / frame_rate``. A last frame that ends at ``inf``, and a first frame that starts at ``-inf``,
    are held (zero-order hold): the added frames show them again.

    Args:
        spans: ``(batch, frame, 2)`` seconds of the visual frames; increasing over each clip's real ones.
        mask: ``(batch, frame)`` bool: real visual frames, anywhere in the row.
        first: ``(batch,)`` seconds of the earliest token's centre, ``inf`` where a clip has none.
        last: ``(batch,)`` seconds of the latest token's centre, ``-inf`` where a clip has none.
        frame_rate: rate of the added frames, in frames per second.
        num_frames: frames of the grid; by default the number that the longest clip needs, which synchronises with the
            device.

    Returns:
        The grid.

    Raises:
        InvalidValueError: spans that are not increasing, overlap, or are not finite inside the clip; a ``num_frames``
            that is too small. (Compiled code raises a ``RuntimeError`` for the latter and does not check spans.)

    Example:
        >>> import torch
        >>> spans = torch.tensor([[[0.0, 0.5], [0.5, 1.0]]], dtype=torch.float64)
        >>> real = torch.ones(1, 2, dtype=torch.bool)
        >>> first, last = torch.tensor([0.01], dtype=torch.float64), torch.tensor([1.7], dtype=torch.float64)
        >>> grid = frame_grid(spans, real, first, last, frame_rate=2.0)
        >>> grid.source.tolist(), grid.spans[0, -1].tolist()
        ([[0, 1, -1, -1]], [1.5, 2.0])
    """
    share = rounding_of_spans(spans)
    return lay_frames(spans, mask, latest(first, share), latest(last, share), frame_rate, num_frames)


def lay_frames(
    spans: Tensor, mask: Tensor, first: Tensor, last: Tensor, frame_rate: float, num_frames: int | None = None
) -> FrameGrid:
    """As :func:`frame_grid`, with ``first`` and ``last`` as :func:`~avfusion.types.clock.latest` gives them."""
    order = real_first(mask)
    exact = torch.where(mask[..., None], spans, 0.0).to(time_dtype(spans.device))
    video = video_spans(exact.gather(1, order[..., None].expand(-1, -1, 2)), mask.sum(1), frame_rate)
    starts = joined_starts(video.spans, video.spans[:, :-1, 1], rounding_of_spans(spans))
    video = video._replace(spans=torch.stack([starts, video.spans[..., 1]], -1))
    _check_spans(video.spans, video.lengths)
    leading = leading_frames(video, first, frame_rate)
    grid, _ = lay_out(video, leading, frames_after(last, video.end, frame_rate), frame_rate, num_frames)
    order = torch.cat([order.new_full((order.shape[0], 1), -1), order], 1)  # source counts the video's frames from 1
    return grid._replace(source=order.gather(1, grid.source.clamp(min=0)))


def _check_spans(spans: Tensor, count: Tensor) -> None:
    if torch.compiler.is_compiling():
        return
    places = torch.arange(spans.shape[1], device=spans.device)
    real = places < count[:, None]
    bad = real & ~((spans[..., 1] > spans[..., 0]) & spans.isfinite().all(-1))
    overlap = real[:, 1:] & (spans[:, 1:, 0] < spans[:, :-1, 1])
    if bool(bad.any()):
        row, place = bad.nonzero()[0].tolist()
        found = spans[row, place].tolist()
        raise InvalidValueError(
            f"spans: a frame must end after it starts, found {found} for frame {place} of clip {row}"
        )
    if bool(overlap.any()):
        row, place = overlap.nonzero()[0].tolist()
        found = spans[row, place : place + 2].tolist()
        raise InvalidValueError(
            f"spans: frames must not overlap, found {found} for frames {place}, {place + 1} of clip {row}"
        )

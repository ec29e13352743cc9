"""Which frame, and which slot in it, every token belongs to.

A token belongs to the frame whose half-open span holds its centre. A centre on an edge, within rounding, belongs to the
frame that begins there. Where sound begins before the pictures or outlasts them, the frames go on at a regular rate,
without pictures unless the picture is held.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import AlignmentError, InvalidValueError
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
        >>> int((grid.source < 0).sum())  # frames that show no picture
        1
    """

    source: Int[Tensor, "batch frame"]
    spans: Float[Tensor, "batch frame 2"]
    mask: Bool[Tensor, "batch frame"]


class Placement(NamedTuple):
    """Where each token of a stream goes.

    Attributes:
        frame: ``(batch, time)`` int64: index of the frame, ``-1`` where there is no token or no frame holds it.
        slot: ``(batch, time)`` int64: the token's rank, in time, among those of its frame.

    Example:
        >>> import torch
        >>> from avfusion.functional import FrameGrid, place_tokens
        >>> spans = torch.tensor([[[0.0, 0.5], [0.5, 1.0]]], dtype=torch.float64)
        >>> grid = FrameGrid(torch.tensor([[0, 1]]), spans, torch.ones(1, 2, dtype=torch.bool))
        >>> times = torch.tensor([[0.1, 0.3, 0.6]], dtype=torch.float64)
        >>> placement = place_tokens(times, torch.ones(1, 3, dtype=torch.bool), grid)
        >>> placement.frame.tolist(), placement.slot.tolist()
        ([[0, 0, 1]], [[0, 1, 0]])
    """

    frame: Int[Tensor, "batch time"]
    slot: Int[Tensor, "batch time"]


def frame_grid(
    spans: Float[Tensor, "batch frame 2"],
    mask: Bool[Tensor, "batch frame"],
    first: Float[Tensor, " batch"],
    last: Float[Tensor, " batch"],
    frame_rate: float,
    num_frames: int | None = None,
) -> FrameGrid:
    """Lays out each clip's frames so that every time from ``first`` to ``last`` falls into one.

    The clip's own frames keep their spans; one that begins where the one before ends, within rounding, begins exactly
    there. Missing ones before and after them are added at ``frame_rate``; a clip
    without frames gets the regular grid ``[k, k + 1) / frame_rate``. A last frame that ends at ``inf``, and a first one
    that starts at ``-inf``, is held: the added frames show it again.

    Args:
        spans: ``(batch, frame, 2)`` seconds of the visual frames; increasing over each clip's real ones.
        mask: ``(batch, frame)`` bool: real visual frames, anywhere in the row.
        first: ``(batch,)`` seconds of the earliest token's centre, ``inf`` where a clip has none.
        last: ``(batch,)`` seconds of the latest token's centre, ``-inf`` where a clip has none.
        frame_rate: frames a second of what is added.
        num_frames: frames of the grid; as many as its longest clip needs without it, which asks the device.

    Returns:
        The grid.

    Raises:
        InvalidValueError: spans that are not increasing, overlap, or are not finite inside the clip; a ``num_frames``
            that is too small. (In compiled code a ``RuntimeError`` says the latter, and spans are not looked at.)

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
    batch, width = mask.shape
    share = rounding_of_spans(spans)
    order = torch.argsort(mask.to(torch.uint8), dim=1, descending=True, stable=True)
    count = mask.sum(1)
    spans = torch.where(mask[..., None], spans, 0.0).to(time_dtype(spans.device))
    spans = spans.gather(1, order[..., None].expand(-1, -1, 2))
    # One empty row keeps every gather below valid for a batch without any frames.
    spans = torch.cat([spans, spans.new_zeros(batch, 1, 2)], 1)
    rows, newest = torch.arange(batch, device=mask.device), (count - 1).clamp(min=0)
    holds_back, holds_on = spans[:, 0, 0] == -torch.inf, spans[rows, newest, 1] == torch.inf
    begin = torch.where(holds_back, start_of_held(spans[:, 0, 1], frame_rate), spans[:, 0, 0])
    spans = torch.cat([torch.stack([begin, spans[:, 0, 1]], -1)[:, None], spans[:, 1:]], 1)
    end = torch.where(holds_on, spans[rows, newest, 0] + 1 / frame_rate, spans[rows, newest, 1])
    spans[rows, newest, 1] = end
    spans = torch.stack([joined_starts(spans, spans[:, :-1, 1], share), spans[..., 1]], -1)
    _check_spans(spans, count)

    before = frames_before(first, begin, frame_rate)
    after = frames_after(last, end, frame_rate)
    total = before + count + after
    width_of_grid = _grid_width(total, num_frames)
    place = torch.arange(width_of_grid, device=mask.device) - before[:, None]
    past = place - count[:, None]
    inside = (place >= 0) & (past < 0)
    own = spans.gather(1, place.clamp(0, width)[..., None].expand(-1, -1, 2))
    anchor = torch.where(place < 0, begin[:, None], end[:, None])
    steps = torch.where(place < 0, place, past).to(spans.dtype)
    added = torch.stack([anchor + steps / frame_rate, anchor + (steps + 1) / frame_rate], -1)
    shown = torch.where(place < 0, torch.where(holds_back, 0, -1)[:, None], -1)
    shown = torch.where((past >= 0) & (count > 0)[:, None] & holds_on[:, None], newest[:, None], shown)
    shown = torch.where(inside, place, shown)
    order = torch.cat([order, order.new_full((batch, 1), -1)], 1)
    real = past < after[:, None]
    return FrameGrid(
        source=torch.where(real & (shown >= 0), order.gather(1, shown.clamp(0, width)), -1),
        spans=torch.where(real[..., None], torch.where(inside[..., None], own, added), 0.0),
        mask=real,
    )


def rounding_of_spans(spans: Tensor) -> float:
    """What :func:`~avfusion.types.clock.latest` takes for times that are compared with these edges."""
    return rounding(spans.dtype) if torch.finfo(spans.dtype).eps > torch.finfo(time_dtype(spans.device)).eps else 0.0


def joined_starts(spans: Tensor, ends: Tensor, share: float | Tensor = 0.0) -> Tensor:
    """``(batch, frame)`` where frames start: exactly where the one before ends, if that is the same within rounding.

    Args:
        spans: ``(batch, frame, 2)`` seconds, in the dtype of times.
        ends: ``(batch, frame - 1)`` seconds at which the frames before all but the first end; or ``(batch, frame)``.
        share: :func:`~avfusion.types.clock.rounding` of the dtype in which the spans were given, if lower.
    """
    first = spans.shape[1] - ends.shape[1]
    starts, stops = spans[:, first:].unbind(-1)
    slack = latest(ends, share) - ends
    touch = ((starts - ends).abs() <= slack) & (stops > ends)  # never of what is infinite
    return torch.cat([spans[:, :first, 0], torch.where(touch, ends, starts)], 1)


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


def start_of_held(end: Tensor, frame_rate: float) -> Tensor:
    """When a picture that is held back to the beginning starts, if it ends at ``end``."""
    # A picture shown since ever begins with the clip, or one frame before its own end when that is known.
    return torch.where(end == torch.inf, 0.0, end - 1 / frame_rate)


# The products below can round across a frame's edge; the comparisons use the very edges that the grid gets.
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


def place_tokens(
    timestamps: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], grid: FrameGrid
) -> Placement:
    """Finds the frame whose span holds each real token's centre, and the token's rank inside it.

    A centre on an edge, within rounding, belongs to the frame that begins there.

    Args:
        timestamps: ``(batch, time)`` seconds; those of real tokens must not decrease.
        mask: ``(batch, time)`` bool.
        grid: the frames.

    Returns:
        The placement; a real token that no frame holds has frame ``-1``.

    Example:
        >>> import torch
        >>> from avfusion import TokenStream
        >>> stream = TokenStream.from_rate(torch.zeros(1, 5, 1), rate=5.0)
        >>> first, last = stream.timestamps[:, 0], stream.timestamps[:, -1]
        >>> no_frames = torch.zeros(1, 0, dtype=torch.bool)
        >>> grid = frame_grid(torch.zeros(1, 0, 2, dtype=torch.float64), no_frames, first, last, frame_rate=2.0)
        >>> placement = place_tokens(stream.timestamps, stream.mask, grid)
        >>> placement.frame.tolist(), placement.slot.tolist()
        ([[0, 0, 1, 1, 1]], [[0, 1, 0, 1, 2]])
    """
    return place_latest(latest_centres(timestamps, mask), mask, grid)


def latest_centres(timestamps: Tensor, mask: Tensor, share: float | Tensor = 0.0) -> Tensor:
    """The latest moments that centres may stand for, in order; those of tokens that are not real are 0.

    Args:
        timestamps: ``(batch, time)`` seconds.
        mask: ``(batch, time)`` bool.
        share: as for :func:`~avfusion.types.clock.latest`.
    """
    real = mask & timestamps.isfinite()
    times = torch.where(real, latest(timestamps, share), -torch.inf)
    times = times.cummax(1).values if times.shape[1] else times  # what is in order but for rounding stays in order
    return torch.where(real, times, 0.0)


def place_latest(times: Tensor, mask: Tensor, grid: FrameGrid) -> Placement:
    """As :func:`place_tokens`, with the times that :func:`latest_centres` gives."""
    batch, frames = grid.mask.shape
    if frames == 0:
        nowhere = torch.full_like(mask, -1, dtype=torch.int64)
        return Placement(nowhere, nowhere)
    times = torch.where(mask, times, 0.0).to(grid.spans.dtype).contiguous()
    starts = torch.where(grid.mask, grid.spans[..., 0], torch.inf).contiguous()
    frame = torch.searchsorted(starts, times, right=True) - 1
    held = mask & (frame >= 0) & (times < grid.spans[..., 1].gather(1, frame.clamp(min=0)))
    frame = torch.where(held, frame, -1)
    per_frame = torch.zeros(batch, frames + 1, dtype=torch.int64, device=mask.device)
    per_frame = per_frame.scatter_add(1, frame + 1, held.long())  # column 0 collects what has no frame
    earlier = per_frame.cumsum(1) - per_frame
    slot = held.long().cumsum(1) - 1 - earlier.gather(1, frame + 1)
    return Placement(frame, torch.where(held, slot, -1))


def check_placement(name: str, stream_mask: Tensor, timestamps: Tensor, placement: Placement, slots: int) -> None:
    """Raises :class:`~avfusion.AlignmentError` unless every real token has a frame and a slot.

    Args:
        name: the stream's name, for the message.
        stream_mask: ``(batch, time)`` bool.
        timestamps: ``(batch, time)`` seconds.
        placement: from :func:`place_tokens`.
        slots: slots of a frame.

    In compiled code the error is a ``RuntimeError`` that does not name the tokens.
    """
    real_times = torch.where(stream_mask, timestamps, -torch.inf)
    earlier = real_times.cummax(1).values
    backwards = stream_mask & ((latest(timestamps) < earlier) | ~timestamps.isfinite())
    homeless = stream_mask & (placement.frame < 0)
    crowded = stream_mask & (placement.slot >= slots)
    wrong = backwards | homeless | crowded
    if torch.compiler.is_compiling():
        torch._assert_async(~wrong.any(), f"{name}: real tokens must be in time order and fit a frame and a slot")
        return
    if not bool(wrong.any()):
        return
    for found, rule in (
        (backwards, "timestamps of real tokens must be finite and must not decrease"),
        (homeless, "every token must fall into a frame's span, but these lie in gaps between frames"),
        (crowded, f"a frame has {slots} slots, and these tokens are more; raise slots or the frame rate"),
    ):
        if bool(found.any()):
            places = found.nonzero()
            shown = ", ".join(f"clip {b} token {t} at {float(timestamps[b, t]):.3f} s" for b, t in places[:3].tolist())
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            raise AlignmentError(f"{name}: {rule}: {shown}{more}")


def scatter_tokens(
    tokens: Float[Tensor, "batch time dim"], placement: Placement, num_frames: int, slots: int
) -> tuple[Float[Tensor, "batch frame token dim"], Bool[Tensor, "batch frame token"]]:
    """Puts tokens into their slots.

    Args:
        tokens: ``(batch, time, dim)``.
        placement: from :func:`place_tokens`.
        num_frames: frames of the result.
        slots: slots of a frame; every placed token must have one.

    Returns:
        ``(batch, num_frames, slots, dim)`` tokens, zero in empty slots, and their mask. Differentiable in ``tokens``,
        and part of the graph even when there are none.

    Example:
        >>> import torch
        >>> placement = Placement(frame=torch.tensor([[0, 1, 1]]), slot=torch.tensor([[0, 0, 1]]))
        >>> slots, mask = scatter_tokens(torch.tensor([[[1.0], [2.0], [3.0]]]), placement, num_frames=2, slots=2)
        >>> slots.squeeze(-1).tolist(), mask.tolist()
        ([[[1.0, 0.0], [2.0, 3.0]]], [[[True, False], [True, True]]])
    """
    batch, _, dim = tokens.shape
    places = num_frames * slots
    placed = placement.frame >= 0
    # Tokens that are not real go to one spare place at the end, which is then cut off.
    place = torch.where(placed, placement.frame * slots + placement.slot, places)
    filled = tokens.new_zeros(batch, places + 1, dim).scatter_add(1, place[..., None].expand(-1, -1, dim), tokens)
    mask = torch.zeros(batch, places + 1, dtype=torch.bool, device=tokens.device).scatter(1, place, placed)
    return (
        filled[:, :places].reshape(batch, num_frames, slots, dim),
        mask[:, :places].reshape(batch, num_frames, slots),
    )


def gather_frames(
    tokens: Float[Tensor, "batch frame token dim"],
    mask: Bool[Tensor, "batch frame token"],
    source: Int[Tensor, "batch shown"],
    slots: int,
) -> tuple[Float[Tensor, "batch shown slot dim"], Bool[Tensor, "batch shown slot"]]:
    """Takes the visual frames that a grid shows.

    Args:
        tokens: ``(batch, frame, token, dim)`` with ``token`` at most ``slots``.
        mask: ``(batch, frame, token)`` bool.
        source: ``(batch, shown)`` int64 index of a frame, ``-1`` for none.
        slots: slots of a frame of the result.

    Returns:
        ``(batch, shown, slots, dim)`` tokens, zero in empty slots, and their mask.

    Example:
        >>> import torch
        >>> frames, mask = torch.tensor([[[[1.0]], [[2.0]]]]), torch.ones(1, 2, 1, dtype=torch.bool)
        >>> shown, real = gather_frames(frames, mask, torch.tensor([[1, 1, -1]]), slots=1)
        >>> shown.flatten().tolist(), real.flatten().tolist()
        ([2.0, 2.0, 0.0], [True, True, False])
    """
    batch, frames, width, dim = tokens.shape
    clean = torch.where(mask[..., None], tokens, 0)
    clean = torch.cat([clean, clean.new_zeros(batch, 1, width, dim)], 1)  # what -1 shows
    mask = torch.cat([mask, mask.new_zeros(batch, 1, width)], 1)
    index = torch.where(source >= 0, source, frames)[..., None]
    mask = mask.gather(1, index.expand(-1, -1, width))
    clean = clean.gather(1, index[..., None].expand(-1, -1, width, dim))
    pad = slots - width
    return torch.nn.functional.pad(clean, (0, 0, 0, pad)), torch.nn.functional.pad(mask, (0, pad))

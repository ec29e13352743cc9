"""The frames of clips that are still going on.

They are those that :func:`~avfusion.functional.frame_grid` lays out for the whole clip, from the first that is not
closed yet. Added frames are counted from an anchor in whole numbers, so that times do not drift.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.functional.alignment import FrameGrid, frames_after, frames_before, start_of_held


class GridAnchor(NamedTuple):
    """Where the frames of each clip go on.

    Attributes:
        time: ``(batch,)`` seconds that added frames are counted from: where the first picture begins, until it is
            closed; then where the last closed picture ends; 0 without pictures.
        number: ``(batch,)`` int64: the next added frame, counted from there; negative before the first picture.
        closed: ``(batch,)`` seconds at which the last closed frame ends; ``-inf`` before there is one.
        held: ``(batch,)`` bool: whether the last closed picture is shown on.
    """

    time: Float[Tensor, " batch"]
    number: Int[Tensor, " batch"]
    closed: Float[Tensor, " batch"]
    held: Bool[Tensor, " batch"]


class OpenGrid(NamedTuple):
    """What is laid out, and where it leads.

    Attributes:
        grid: the frames; ``source`` counts the last closed picture as 0 and the pictures given from 1, ``-1`` is none.
        anchor: of each clip's first frame, as it would be if that were the next one to close.
        pictures: ``(batch, frame)`` int64: pictures among the frames up to and including each.
        ends_held: ``(batch, frame)`` bool: whether a picture is shown on after that frame.
        settled: ``(batch, frame)`` bool: frames that no later picture can change.
    """

    grid: FrameGrid
    anchor: GridAnchor
    pictures: Int[Tensor, "batch frame"]
    ends_held: Bool[Tensor, "batch frame"]
    settled: Bool[Tensor, "batch frame"]


def open_grid(
    anchor: GridAnchor,
    spans: Float[Tensor, "batch picture 2"],
    count: Int[Tensor, " batch"],
    times: Float[Tensor, "batch time"],
    fills_gaps: Bool[Tensor, " batch"],
    frame_rate: float,
) -> OpenGrid:
    """Lays out the frames that are needed for the pictures and tokens which wait.

    Args:
        anchor: where the clips go on.
        spans: ``(batch, picture, 2)`` seconds of the waiting pictures, real ones first; only the first may start at
            ``-inf``, and only the last end at ``inf``.
        count: ``(batch,)`` int64: waiting pictures.
        times: ``(batch, time)`` seconds of the waiting tokens, as :func:`~avfusion.types.clock.latest` gives them, in
            any order; ``nan`` where there is none.
        fills_gaps: ``(batch,)`` bool: whether tokens between two pictures get frames of their own, even if no frame
            has been added after the earlier one.
        frame_rate: frames a second of what is added.
    """
    batch, width = spans.shape[:2]
    begun = anchor.closed > -torch.inf
    some, rows, newest = count > 0, torch.arange(batch, device=count.device), (count - 1).clamp(min=0)
    spans = torch.cat([spans, spans.new_zeros(batch, 1, 2)], 1)
    spans = torch.where((torch.arange(width + 1, device=count.device) < count[:, None])[..., None], spans, 0.0)
    back, on = spans[:, 0, 0] == -torch.inf, spans[rows, newest, 1] == torch.inf
    begin = torch.where(back, start_of_held(spans[:, 0, 1], frame_rate), spans[:, 0, 0])
    spans = torch.cat([torch.stack([begin, spans[:, 0, 1]], -1)[:, None], spans[:, 1:]], 1)
    end = torch.where(on, spans[rows, newest, 0] + 1 / frame_rate, spans[rows, newest, 1])
    spans = spans.index_put((rows, newest), torch.stack([spans[rows, newest, 0], end], -1))

    def latest(below: Tensor) -> Tensor:
        chosen = torch.where(times < below[:, None], times, -torch.inf)  # nan is below nothing
        return chosen.amax(1) if times.shape[1] else chosen.new_full((batch,), -torch.inf)

    first = times.nan_to_num(nan=torch.inf).amin(1) if times.shape[1] else begin.new_full((batch,), torch.inf)
    last = latest(torch.full_like(begin, torch.inf))
    time = torch.where(begun, anchor.time, begin)  # begin is 0 without pictures
    number = torch.where(begun, anchor.number, -frames_before(first, begin, frame_rate))

    leads = some & (number < 0) & (time == begin)  # counted back from the first picture
    fills = begun & ((anchor.number != 0) | fills_gaps)
    in_gap = torch.where(fills, frames_after(latest(begin), time, frame_rate), number)
    until = torch.where(some, torch.where(leads | ~begun, 0, in_gap), frames_after(last, time, frame_rate))
    lead = (until - number).clamp(min=0)
    after = torch.where(some, frames_after(last, end, frame_rate), 0)
    total = lead + count + after

    place = torch.arange(int(total.max()) if batch else 0, device=count.device)
    place = place.expand(batch, -1)
    picture, past = place - lead[:, None], place - (lead + count)[:, None]
    shown, real = (picture >= 0) & (past < 0), place < total[:, None]
    steps = torch.where(picture < 0, number[:, None] + place, past).to(time.dtype)
    origin = torch.where(picture < 0, time[:, None], end[:, None])
    stop = origin + (steps + 1) / frame_rate
    stop = torch.where((picture < 0) & some[:, None], torch.minimum(stop, begin[:, None]), stop)
    added = torch.stack([origin + steps / frame_rate, stop], -1)
    own = spans.gather(1, picture.clamp(0, width)[..., None].expand(-1, -1, 2))
    held_before = torch.where(begun & anchor.held, 0, torch.where(~begun & back & some, 1, -1))
    held_before = torch.where(leads & back, 1, held_before)
    source = torch.where(picture < 0, held_before[:, None], torch.where(on & some, count, -1)[:, None])
    source = torch.where(shown, picture + 1, source)
    # The first picture decides where the grid begins; the next one, how long a picture is shown whose end is not known,
    # and, without frames in gaps, whether frames may follow the last one at all.
    settled = some[:, None] & (past < torch.where(on, -1, 0)[:, None])
    settled = settled | (fills_gaps & (some | begun) & ~(some & on))[:, None]
    closing_held = torch.where(picture < 0, (begun & anchor.held)[:, None], (on & some)[:, None] & (past >= -1))
    return OpenGrid(
        FrameGrid(
            source=torch.where(real, source, -1),
            spans=torch.where(real[..., None], torch.where(shown[..., None], own, added), 0.0),
            mask=real,
        ),
        GridAnchor(time, number, anchor.closed, anchor.held),
        (picture + 1).clamp(min=0).minimum(count[:, None]),
        closing_held & real,
        settled & real,
    )


def close_frames(laid: OpenGrid, closed: Int[Tensor, " batch"]) -> GridAnchor:
    """Where the clips go on after so many frames.

    Args:
        laid: the frames.
        closed: ``(batch,)`` int64: frames of each clip that are closed.
    """
    if not laid.grid.mask.shape[1]:
        return laid.anchor
    at = (closed - 1).clamp(min=0)[:, None]
    some = closed > 0
    end = laid.grid.spans[..., 1].gather(1, at)[:, 0]
    pictures = laid.pictures.gather(1, at)[:, 0]
    # Added frames go on being counted from where the last picture that is closed ends.
    numbered = laid.pictures == pictures[:, None]
    place = torch.arange(laid.pictures.shape[1], device=closed.device)
    since = (numbered & (place <= at)).sum(1)
    last_picture = (at[:, 0] - since + 1).clamp(min=0)[:, None]
    had = some & (pictures > 0)
    picture_end = laid.grid.spans[..., 1].gather(1, last_picture)[:, 0]
    return GridAnchor(
        time=torch.where(had, picture_end, laid.anchor.time),
        number=torch.where(had, since - 1, laid.anchor.number + torch.where(some, closed, 0)),
        closed=torch.where(some, end, laid.anchor.closed),
        held=torch.where(some, laid.ends_held.gather(1, at)[:, 0], laid.anchor.held),
    )

"""The frame and the slot of every token.

A token belongs to the frame whose half-open span contains its centre. A centre on a boundary, within rounding, belongs
to the frame that begins there.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import AlignmentError
from avfusion.functional.frame_layout import FrameGrid
from avfusion.functional.host import to_device
from avfusion.types.clock import later, latest


class Placement(NamedTuple):
    """The frame and slot of each token of a stream.

    Attributes:
        frame: ``(batch, time)`` int64: index of the frame; ``-1`` for padding and for tokens outside all frames.
        slot: ``(batch, time)`` int64: the token's rank by time within its frame.

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


def place_tokens(
    timestamps: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], grid: FrameGrid
) -> Placement:
    """Finds the frame whose span contains each real token's centre, and the token's rank within it.

    A centre on a boundary, within rounding, belongs to the frame that begins there.

    Args:
        timestamps: ``(batch, time)`` seconds; those of real tokens must not decrease.
        mask: ``(batch, time)`` bool.
        grid: the frames.

    Returns:
        The placement; a real token outside all frames has frame ``-1``.

    Example:
        >>> import torch
        >>> from avfusion import TokenStream
        >>> from avfusion.functional import frame_grid
        >>> stream = TokenStream.from_rate(torch.zeros(1, 5, 1), rate=5.0)
        >>> first, last = stream.timestamps[:, 0], stream.timestamps[:, -1]
        >>> no_frames = torch.zeros(1, 0, dtype=torch.bool)
        >>> grid = frame_grid(torch.zeros(1, 0, 2, dtype=torch.float64), no_frames, first, last, frame_rate=2.0)
        >>> placement = place_tokens(stream.timestamps, stream.mask, grid)
        >>> placement.frame.tolist(), placement.slot.tolist()
        ([[0, 0, 1, 1, 1]], [[0, 1, 0, 1, 2]])
    """
    return place_latest(latest_centres(timestamps, mask), mask, grid)


def latest_centres(timestamps: Tensor, mask: Tensor) -> Tensor:
    """The latest times that the centres may represent, sorted; 0 for padding.

    Args:
        timestamps: ``(batch, time)`` seconds.
        mask: ``(batch, time)`` bool.
    """
    real = mask & timestamps.isfinite()
    return _in_order(latest(timestamps), real)


def centres_against(centres: Tensor, mask: Tensor, share: float | Tensor) -> Tensor:
    """:func:`latest_centres` for comparison with edges that are rounded themselves.

    Args:
        centres: ``(batch, time)`` from :func:`latest_centres`.
        mask: ``(batch, time)`` bool.
        share: :func:`~avfusion.types.clock.rounding` of the edges, if their dtype is lower than that of times; 0.0, or
            broadcast against ``centres``.
    """
    if not isinstance(share, Tensor) and share == 0.0:
        return centres
    return _in_order(later(centres, share), mask)


def _in_order(times: Tensor, real: Tensor) -> Tensor:
    """Sorts times that are sorted up to rounding; 0 for padding."""
    times = torch.where(real, times, -torch.inf)
    times = times.cummax(1).values if times.shape[1] else times
    return torch.where(real, times, 0.0)


def place_latest(times: Tensor, mask: Tensor, grid: FrameGrid) -> Placement:
    """As :func:`place_tokens`, for times from :func:`latest_centres`."""
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
    per_frame = per_frame.scatter_add(1, frame + 1, held.long())  # column 0 collects tokens without a frame
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
    """Scatters tokens into their slots.

    Args:
        tokens: ``(batch, time, dim)``.
        placement: from :func:`place_tokens`, on the device of ``tokens`` or on the CPU.
        num_frames: frames of the result.
        slots: slots per frame; every placed token must have one.

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
    # Padding goes to one extra position at the end, which is then removed.
    place = torch.where(placed, placement.frame * slots + placement.slot, places)
    mask = torch.zeros(batch, places + 1, dtype=torch.bool, device=place.device).scatter(1, place, placed)
    place = to_device(place, tokens.device)
    filled = tokens.new_zeros(batch, places + 1, dim).scatter_add(1, place[..., None].expand(-1, -1, dim), tokens)
    return (
        filled[:, :places].reshape(batch, num_frames, slots, dim),
        to_device(mask[:, :places].reshape(batch, num_frames, slots), tokens.device),
    )


def gather_frames(
    tokens: Float[Tensor, "batch frame token dim"],
    mask: Bool[Tensor, "batch frame token"],
    source: Int[Tensor, "batch shown"],
    slots: int,
) -> tuple[Float[Tensor, "batch shown slot dim"], Bool[Tensor, "batch shown slot"]]:
    """Gathers the visual frames that a grid shows.

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
    clean = torch.cat([clean, clean.new_zeros(batch, 1, width, dim)], 1)  # for source -1
    mask = torch.cat([mask, mask.new_zeros(batch, 1, width)], 1)
    index = torch.where(source >= 0, source, frames)[..., None]
    mask = mask.gather(1, index.expand(-1, -1, width))
    clean = clean.gather(1, index[..., None].expand(-1, -1, width, dim))
    pad = slots - width
    return torch.nn.functional.pad(clean, (0, 0, 0, pad)), torch.nn.functional.pad(mask, (0, pad))

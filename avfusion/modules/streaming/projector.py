"""The projector's side of a stream: frames in, embeddings of the windows that they finish out."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError
from avfusion.functional.windows import num_frames_of
from avfusion.modules.streaming.at_hand import frames_at_hand, gathered
from avfusion.modules.streaming.fresh import Given, compute_fresh
from avfusion.modules.streaming.growing import OpenWindows, empty_windows, grow
from avfusion.modules.streaming.outputs import WindowOutputs
from avfusion.modules.streaming.plan import Clip, make_plan
from avfusion.types import Frames, StreamedEmbeddings
from avfusion.types.clock import time_dtype
from avfusion.types.state import map_state

if TYPE_CHECKING:
    from avfusion.modules.sliding_window_projector import SlidingWindowProjector


class ProjectorState(NamedTuple):
    """Frames that wait, and windows that are open.

    Attributes:
        tokens: ``(batch, frame, token, dim)``: frames that wait, each clip's first.
        mask: ``(batch, frame, token)`` bool.
        spans: ``(batch, frame, 2)`` seconds.
        first: ``(batch,)`` int64: number in the clip of the first frame that waits.
        num_frames: ``(batch,)`` int64: frames so far.
        num_real: ``(batch,)`` int64: frames so far up to the last one in which something is real.
        next_window: ``(batch,)`` int64: the first window that is not finished.
        windows: those that are open.
    """

    tokens: Float[Tensor, "batch frame token dim"]
    mask: Bool[Tensor, "batch frame token"]
    spans: Float[Tensor, "batch frame 2"]
    first: Int[Tensor, " batch"]
    num_frames: Int[Tensor, " batch"]
    num_real: Int[Tensor, " batch"]
    next_window: Int[Tensor, " batch"]
    windows: OpenWindows


def nothing_seen(projector: "SlidingWindowProjector", batch: int) -> ProjectorState:
    """Clips of which no frame has come."""
    like, slots = projector.proj.weight, -(-projector.window_frames // projector.stride_frames)
    count = torch.zeros(batch, dtype=torch.int64, device=like.device)
    real = count.new_zeros(batch, 0, 0, dtype=torch.bool)
    seconds = torch.zeros(batch, 0, 2, dtype=time_dtype(like.device), device=like.device)
    windows = map_state(lambda value: value.unflatten(0, (batch, slots)), empty_windows(projector, batch * slots))
    return ProjectorState(like.new_zeros(batch, 0, 0, 0), real, seconds, count, count, count, count, windows)


def take_step(
    projector: "SlidingWindowProjector",
    frames: Frames,
    state: ProjectorState,
    *,
    lengths: Tensor | None,
    end: Tensor,
    unfinished: bool,
    given: Given,
) -> tuple[StreamedEmbeddings, ProjectorState]:
    """A step; arguments as for :meth:`avfusion.SlidingWindowProjector.step`."""
    clips, firsts = _stand(frames, state, lengths, end)
    plan = make_plan(
        clips, projector.window_frames, projector.stride_frames, grows=projector._grows, unfinished=unfinished
    )
    at_hand = frames_at_hand(frames, state)
    batch, most = len(clips), max(plan.finished, default=0)
    out = WindowOutputs(projector, batch, most, at_hand)
    shown = WindowOutputs(projector, batch, 1, at_hand) if unfinished else None
    windows = grow(projector, plan, clips, firsts, at_hand, state.windows, given, out, shown)
    compute_fresh(projector, plan, clips, firsts, at_hand, given, out, shown)

    rows = [range(first, real) for first, real in zip(plan.first_kept, plan.num_real, strict=True)]
    kept = gathered(at_hand, clips, firsts, rows)
    device = state.first.device
    counts = (plan.first_kept, plan.num_frames, plan.num_real, plan.next_window)
    first, num_frames, num_real, next_window = torch.tensor(counts, dtype=torch.int64, device=device).view(4, batch)
    late = state.first.new_zeros(batch, 0)
    result = StreamedEmbeddings(out.collect(), None if shown is None else shown.collect(), late)
    return result, ProjectorState(*kept, first, num_frames, num_real, next_window, windows)


def _stand(frames: Frames, state: ProjectorState, lengths: Tensor | None, end: Tensor) -> tuple[list[Clip], list[int]]:
    """Where the clips stand, and the first frame that waits of each; brought to the host at once."""
    batch, new = frames.mask.shape[:2]
    if lengths is None:
        lengths, mask = torch.full_like(state.first, new), frames.mask
    else:
        mask = frames.mask & (torch.arange(new, device=lengths.device) < lengths[:, None])[..., None]
        if lengths.shape != (batch,) or bool(((lengths < 0) | (lengths > new)).any()):
            raise InvalidValueError(
                f"lengths: must be (batch,) = ({batch},) numbers from 0 to {new}, found {lengths.tolist()}"
            )
    parts = (state.num_frames, state.num_real, state.next_window, state.first, lengths, num_frames_of(mask), end.long())
    table = torch.cat([torch.stack(parts, 1), state.windows.num_frames], 1).tolist()
    clips = [Clip(row[0], row[1], row[2], row[7:], row[4], row[5], bool(row[6])) for row in table]
    return clips, [row[3] for row in table]

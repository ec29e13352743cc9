"""The state of a projector's stream: pending frames and open windows."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.functional.window_schedule import ClipProgress
from avfusion.functional.windows import num_frames_of
from avfusion.types import Frames
from avfusion.types.clock import time_dtype
from avfusion.types.lengths import within_lengths
from avfusion.types.state import map_state


class OpenWindows(NamedTuple):
    """Windows that the window encoder has started.

    Attributes:
        memory: the window encoder's states; ``()`` for encoders that get whole windows.
        num_frames: ``(batch, place)`` int64: encoded frames.
        spans: ``(batch, place, 2)`` seconds from the first to the last real one of them.
    """

    memory: Any
    num_frames: Int[Tensor, "batch place"]
    spans: Float[Tensor, "batch place 2"]


class ProjectorState(NamedTuple):
    """Frames that are pending, and windows that are open.

    Attributes:
        tokens: ``(batch, frame, token, dim)``: pending frames, each clip's first.
        mask: ``(batch, frame, token)`` bool.
        spans: ``(batch, frame, 2)`` seconds.
        first: ``(batch,)`` int64: number in the clip of the first pending frame.
        num_frames: ``(batch,)`` int64: frames so far.
        num_real: ``(batch,)`` int64: frames up to the last one with real tokens.
        next_window: ``(batch,)`` int64: the first window that is not finished.
        windows: those that are open; window ``w`` of a clip has place ``w`` modulo the number of places.
    """

    tokens: Float[Tensor, "batch frame token dim"]
    mask: Bool[Tensor, "batch frame token"]
    spans: Float[Tensor, "batch frame 2"]
    first: Int[Tensor, " batch"]
    num_frames: Int[Tensor, " batch"]
    num_real: Int[Tensor, " batch"]
    next_window: Int[Tensor, " batch"]
    windows: OpenWindows


def empty_windows(memory: Any, rows: int, device: torch.device) -> OpenWindows:
    """Windows without frames, one a row, whose encoder's state is ``memory``."""
    edges = torch.tensor([torch.inf, -torch.inf], dtype=time_dtype(device), device=device)
    return OpenWindows(memory, torch.zeros(rows, dtype=torch.int64, device=device), edges.repeat(rows, 1))


def empty_state(memory: Any, batch: int, places: int, like: Tensor) -> ProjectorState:
    """Clips without frames.

    Args:
        memory: the window encoder's state of ``batch * places`` windows without frames.
        batch: clips.
        places: windows of a clip that are open at a time, at most.
        like: a tensor of the module's dtype and device.
    """
    count = torch.zeros(batch, dtype=torch.int64, device=like.device)
    mask = count.new_zeros(batch, 0, 0, dtype=torch.bool)
    spans = torch.zeros(batch, 0, 2, dtype=time_dtype(like.device), device=like.device)
    windows = empty_windows(memory, batch * places, like.device)
    windows = map_state(lambda value: value.unflatten(0, (batch, places)), windows)
    return ProjectorState(like.new_zeros(batch, 0, 0, 0), mask, spans, count, count, count, count, windows)


def clip_progress(frames: Frames, state: ProjectorState, lengths: Tensor | None, end: Tensor) -> list[ClipProgress]:
    """How far clips are, in one transfer from the device; arguments as for ``SlidingWindowProjector.step``."""
    batch, new = frames.mask.shape[:2]
    mask = frames.mask
    if lengths is None:
        lengths = torch.full_like(state.first, new)
    else:
        mask = mask & within_lengths(lengths, batch, new)[..., None]
    parts = (
        state.num_frames,
        state.num_real,
        state.next_window,
        state.first,
        lengths,
        num_frames_of(mask.any(-1)),
        end.long(),
    )
    table = torch.cat([torch.stack(parts, 1), state.windows.num_frames], 1).tolist()
    return [ClipProgress(row[0], row[1], row[2], row[3], row[4], row[5], bool(row[6]), row[7:]) for row in table]

"""The state of a frame synchroniser's stream: pending tokens and video frames."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.functional.open_grid import GridAnchor
from avfusion.functional.stream_table import VISUAL


class Progress(NamedTuple):
    """The progress of a stream.

    Attributes:
        watermark: ``(batch,)`` seconds up to which the stream is complete; ``inf`` where it has ended.
        newest: ``(batch,)`` seconds of the newest token, video frame or watermark; ``-inf`` before.
        received: ``(batch,)`` int64: real tokens or video frames so far.
        late: ``(batch,)`` int64: those that arrived after their frame was finalised, and were dropped.
    """

    watermark: Float[Tensor, " batch"]
    newest: Float[Tensor, " batch"]
    received: Int[Tensor, " batch"]
    late: Int[Tensor, " batch"]


class PendingTokens(NamedTuple):
    """Tokens of a stream whose frames are not finalised, real ones first.

    Attributes:
        tokens: ``(batch, time, dim)``.
        mask: ``(batch, time)`` bool.
        timestamps: ``(batch, time)`` seconds, as :func:`~avfusion.types.clock.latest` gives them.
        progress: of the stream.
    """

    tokens: Float[Tensor, "batch time dim"]
    mask: Bool[Tensor, "batch time"]
    timestamps: Float[Tensor, "batch time"]
    progress: Progress


class PendingFrames(NamedTuple):
    """Video frames that are not finalised, real ones first, and the one before them if it is held.

    Attributes:
        tokens: ``(batch, frame, token, dim)``.
        mask: ``(batch, frame, token)`` bool.
        spans: ``(batch, frame, 2)`` seconds.
        held: ``(batch, 1 or 0, token, dim)``: the video frame that was finalised last, where it is held (zero-order
            hold).
        held_mask: ``(batch, 1 or 0, token)`` bool.
        rounding: ``(batch,)``: of the spans so far, as :func:`~avfusion.types.clock.latest` takes it for edges.
        progress: of the video.
    """

    tokens: Float[Tensor, "batch frame token dim"]
    mask: Bool[Tensor, "batch frame token"]
    spans: Float[Tensor, "batch frame 2"]
    held: Float[Tensor, "batch held token dim"]
    held_mask: Bool[Tensor, "batch held token"]
    rounding: Float[Tensor, " batch"]
    progress: Progress


class FrameSynchroniserState(NamedTuple):
    """Pending input, and where the next frames begin.

    Attributes:
        visual: video frames.
        streams: tokens of each further stream, in the order of the synchroniser's ``dims``.
        anchor: where each clip's next frame begins.
        max_wait: ``(batch,)`` seconds that a frame waits for a stream that is behind; ``inf``: without limit.
        expected: ``(batch, stream)`` bool: which streams a clip has, in the order of the synchroniser's ``dims``.
    """

    visual: PendingFrames
    streams: tuple[PendingTokens, ...]
    anchor: GridAnchor
    max_wait: Float[Tensor, " batch"]
    expected: Bool[Tensor, "batch stream"]

    @property
    def late(self) -> Tensor:
        """``(batch, stream)`` int64: late input since the beginning of each clip."""
        counts = [stream.progress.late for stream in self.streams]
        if len(counts) < self.expected.shape[1]:
            counts = [self.visual.progress.late, *counts]
        return torch.stack(counts, 1)


def initial_state(names: Iterable[str], slots: int, expected: Tensor, max_wait: Tensor) -> FrameSynchroniserState:
    """The state before any input.

    Args:
        names: of the streams, in the synchroniser's order.
        slots: of a video frame.
        expected: ``(batch, stream)`` bool, as in the state.
        max_wait: ``(batch,)`` seconds, as in the state.
    """
    zeros, never = torch.zeros_like(max_wait), torch.full_like(max_wait, -torch.inf)
    no, none = torch.zeros_like(zeros, dtype=torch.bool), torch.zeros_like(zeros, dtype=torch.int64)
    tokens, mask = zeros.new_zeros(len(zeros), 0, 0, dtype=torch.get_default_dtype()), no.new_zeros(len(zeros), 0)
    frames, frame_mask = tokens[:, :, None].expand(-1, -1, slots, -1), mask[..., None].expand(-1, -1, slots)
    progress = {
        name: Progress(torch.where(comes, never, torch.inf), never, none, none)
        for name, comes in zip(names, expected.unbind(1), strict=True)
    }
    return FrameSynchroniserState(
        visual=PendingFrames(
            tokens=frames,
            mask=frame_mask,
            spans=zeros.new_zeros(len(zeros), 0, 2),
            held=frames,
            held_mask=frame_mask,
            rounding=zeros,
            progress=progress.pop(VISUAL, Progress(-never, never, none, none)),
        ),
        streams=tuple(PendingTokens(tokens, mask, zeros.new_zeros(len(zeros), 0), each) for each in progress.values()),
        anchor=GridAnchor(origin=zeros, number=none, end=never, holds=no),
        max_wait=max_wait,
        expected=expected,
    )

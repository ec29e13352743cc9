"""The frames that a step can use: pending ones and new ones."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from avfusion.functional.window_schedule import ClipProgress, Schedule
from avfusion.modules.projector.state import OpenWindows, ProjectorState
from avfusion.types import Frames


class FrameBuffer(NamedTuple):
    """Pending and new frames of all clips in one table, after a blank row.

    Attributes:
        tokens: ``(row, token, dim)``.
        mask: ``(row, token)`` bool.
        spans: ``(row, 2)`` seconds.
        pending: rows of each clip's pending frames; the new frames of all clips follow.
        new: rows of each clip's new frames.
        clips: how far the clips are.
    """

    tokens: Tensor
    mask: Tensor
    spans: Tensor
    pending: int
    new: int
    clips: Sequence[ClipProgress]

    @classmethod
    def of(cls, frames: Frames, state: ProjectorState, clips: Sequence[ClipProgress]) -> "FrameBuffer":
        """The pending frames of ``state``, and ``frames``."""
        parts = []
        for pending, new in (
            (state.tokens, frames.tokens),
            (state.mask, frames.mask),
            (state.spans, frames.spans),
        ):
            blank, rows = new.new_zeros(1, *new.shape[2:]), new.flatten(0, 1)
            parts.append(torch.cat([blank, pending.flatten(0, 1), rows] if pending.shape[1] else [blank, rows]))
        tokens, mask, spans = parts
        return cls(tokens, mask, spans, state.tokens.shape[1], frames.tokens.shape[1], clips)

    def gather(self, clips: Sequence[int], wanted: Sequence[range]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, mask and spans ``(wanted, frame, ...)`` of some frames of clips, padded with blanks.

        Args:
            clips: the clip of each range.
            wanted: ranges of frame numbers.
        """
        longest = max(map(len, wanted), default=0)
        rows = []
        for clip, numbers in zip(clips, wanted, strict=True):
            rows += [self._row(clip, number) for number in numbers] + [0] * (longest - len(numbers))
        index = torch.tensor(rows, dtype=torch.int64, device=self.tokens.device)
        tokens, mask, spans = (
            value.index_select(0, index).unflatten(0, (len(wanted), longest))
            for value in (self.tokens, self.mask, self.spans)
        )
        return tokens, mask, spans

    def state_after(self, schedule: Schedule, windows: OpenWindows) -> ProjectorState:
        """The state after a step: the frames that are still pending, the counts, and the open windows.

        Args:
            schedule: of the step.
            windows: those that are open after it.
        """
        pending = [range(*pair) for pair in zip(schedule.first, schedule.num_real, strict=True)]
        tokens, mask, spans = self.gather(range(len(pending)), pending)
        numbers = (schedule.first, schedule.num_frames, schedule.num_real, schedule.next_window)
        counts = torch.tensor(numbers, dtype=torch.int64, device=windows.num_frames.device).view(4, len(pending))
        first, num_frames, num_real, next_window = counts.unbind()
        return ProjectorState(tokens, mask, spans, first, num_frames, num_real, next_window, windows)

    def _row(self, clip: int, number: int) -> int:
        """The row of a clip's frame; frames without real tokens between two real ones are not stored."""
        progress = self.clips[clip]
        if number < progress.num_real:
            return 1 + clip * self.pending + number - progress.first
        if number < progress.num_frames:
            return 0
        return 1 + len(self.clips) * self.pending + clip * self.new + number - progress.num_frames

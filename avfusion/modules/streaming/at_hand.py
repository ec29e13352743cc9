"""The frames that a step can use: those that waited, and those that have come."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from avfusion.modules.streaming.plan import Clip
from avfusion.types import Frames

if TYPE_CHECKING:
    from avfusion.modules.streaming.projector import ProjectorState


class FramesAtHand(NamedTuple):
    """Every frame at hand, one after the other, behind one in which nothing is real."""

    tokens: Tensor
    mask: Tensor
    spans: Tensor
    waiting: int
    new: int

    def row(self, clip: int, clips: int, number: int, state: Clip, first: int) -> int:
        """Where a clip's frame is."""
        if number < state.num_real:
            return 1 + clip * self.waiting + number - first
        if number < state.num_frames:
            return 0
        return 1 + clips * self.waiting + clip * self.new + number - state.num_frames


def frames_at_hand(frames: Frames, state: "ProjectorState") -> FramesAtHand:
    """What waited in ``state``, and ``frames``."""
    parts = []
    for waiting, new in zip((state.tokens, state.mask, state.spans), frames, strict=True):
        rows = new.flatten(0, 1)
        blank = new.new_zeros(1, *new.shape[2:])
        parts.append(torch.cat([blank, waiting.flatten(0, 1), rows] if waiting.shape[1] else [blank, rows]))
    return FramesAtHand(parts[0], parts[1], parts[2], state.tokens.shape[1], frames.tokens.shape[1])


def gathered(
    at_hand: FramesAtHand, clips: list[Clip], firsts: list[int], wanted: list[range], rows: list[int] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Some frames of each clip (or of those whose numbers are ``rows``), each clip's first, blank ones behind them."""
    longest = max(map(len, wanted), default=0)
    index = []
    for place, numbers in enumerate(wanted):
        clip = place if rows is None else rows[place]
        found = [at_hand.row(clip, len(clips), number, clips[clip], firsts[clip]) for number in numbers]
        index += found + [0] * (longest - len(found))
    at = torch.tensor(index, dtype=torch.int64, device=at_hand.tokens.device)
    tokens, mask, spans = (value.index_select(0, at).unflatten(0, (len(wanted), longest)) for value in at_hand[:3])
    return tokens, mask, spans

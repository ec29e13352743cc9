"""Windows of which the window encoder has nothing yet when they are asked for: computed whole."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avfusion.functional.windows import lay_windows
from avfusion.modules.streaming.at_hand import FramesAtHand, gathered
from avfusion.modules.streaming.outputs import WindowOutputs
from avfusion.modules.streaming.plan import Clip, Plan
from avfusion.types import Frames

if TYPE_CHECKING:
    from avfusion.modules.sliding_window_projector import SlidingWindowProjector

Given = tuple[Tensor | None, Tensor | None]  # instruction and its mask


def compute_fresh(
    projector: "SlidingWindowProjector",
    plan: Plan,
    clips: list[Clip],
    firsts: list[int],
    at_hand: FramesAtHand,
    given: Given,
    out: WindowOutputs,
    shown: WindowOutputs | None,
) -> None:
    """Windows of which the encoder has nothing yet: computed as :meth:`forward` does."""
    rows = [clip for clip, (_, count) in enumerate(plan.fresh) if count]
    if not rows:
        return
    stride, length = projector.stride_frames, projector.window_frames
    most = max(plan.fresh[clip][1] for clip in rows)
    wanted = []
    for clip in rows:
        start, count = plan.fresh[clip]
        stop = min(plan.num_real[clip], (start + count - 1) * stride + length)
        wanted.append(range(start * stride, stop))
    frames = Frames(*gathered(at_hand, clips, firsts, wanted, rows))
    missing = (most - 1) * stride + 1 - frames.tokens.shape[1]
    if missing > 0:
        frames = Frames(*(torch.nn.functional.pad(value, (0, 0) * (value.ndim - 2) + (0, missing)) for value in frames))
    counts = torch.tensor([plan.fresh[clip][1] for clip in rows], device=frames.mask.device)
    layout = lay_windows(frames, length, stride, wanted=counts)
    at = torch.tensor(rows, device=frames.mask.device)
    instruction, mask = (None if value is None else value.index_select(0, at.to(value.device)) for value in given)
    states, embeddings = projector._encode_real(frames, layout, instruction, mask)
    total = layout.mask.shape[1]
    for to, places in ((out, _finished_places(plan, rows)), (shown, _shown_places(plan, rows))):
        if to is None or not places:
            continue
        chosen = torch.tensor([place * total + window for place, window, _ in places], device=states.device)
        to.put(
            [rows[place] for place, _, _ in places],
            [target for _, _, target in places],
            states.index_select(0, chosen),
            embeddings.index_select(0, chosen),
            layout.spans.flatten(0, 1).index_select(0, chosen),
        )


def _finished_places(plan: Plan, rows: list[int]) -> list[tuple[int, int, int]]:
    """Among the fresh windows of ``rows``, the finished ones: the row's place, the window's, and where it goes."""
    places = []
    for place, clip in enumerate(rows):
        start, count = plan.fresh[clip]
        finish, begun = plan.next_window[clip], plan.next_window[clip] - plan.finished[clip]
        places += [(place, window - start, window - begun) for window in range(start, min(start + count, finish))]
    return places


def _shown_places(plan: Plan, rows: list[int]) -> list[tuple[int, int, int]]:
    places = []
    for place, clip in enumerate(rows):
        (start, count), window = plan.fresh[clip], plan.unfinished[clip]
        if window is not None and start <= window < start + count:
            places.append((place, window - start, 0))
    return places

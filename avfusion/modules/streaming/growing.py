"""Windows that the window encoder takes frame by frame."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Float, Int
from avfusion.modules.streaming.at_hand import FramesAtHand, gathered
from avfusion.modules.streaming.fresh import Given
from avfusion.modules.streaming.outputs import WindowOutputs
from avfusion.modules.streaming.plan import Clip, Growth, Plan
from avfusion.types.clock import time_dtype
from avfusion.types.state import map_state, put_rows, take_rows

if TYPE_CHECKING:
    from avfusion.modules.sliding_window_projector import SlidingWindowProjector

Guide = dict[str, Tensor]


class OpenWindows(NamedTuple):
    """Windows that the window encoder has seen a part of.

    Attributes:
        memory: the window encoder's states.
        num_frames: ``(batch, slot)`` int64: frames that it has seen.
        spans: ``(batch, slot, 2)`` seconds from the first to the last real one of them.
    """

    memory: Any
    num_frames: Int[Tensor, "batch slot"]
    spans: Float[Tensor, "batch slot 2"]


def grow(
    projector: "SlidingWindowProjector",
    plan: Plan,
    clips: list[Clip],
    firsts: list[int],
    at_hand: FramesAtHand,
    windows: OpenWindows,
    given: Given,
    out: WindowOutputs,
    shown: WindowOutputs | None,
) -> OpenWindows:
    """Appends frames to windows, reads those that are asked for, and forgets the finished ones."""
    if not plan.growths:
        return windows
    slots = windows.num_frames.shape[1]
    before: OpenWindows = map_state(lambda value: value.flatten(0, 1), windows)
    after = before
    groups: dict[tuple[int, int], list[Growth]] = {}
    for growth in plan.growths:
        groups.setdefault((growth.new, projector._growth_kind(growth.absorbed)), []).append(growth)
    gone = sorted({growth.clip * slots + growth.slot for growth in plan.growths if growth.finished})
    if gone:
        after = _replaced(after, gone, empty_windows(projector, len(gone)))
    for (count, _), group in groups.items():
        rows = [growth.clip * slots + growth.slot for growth in group]
        grown = _chosen(before, rows)
        begun = [place for place, growth in enumerate(group) if not growth.absorbed]
        if begun:  # what is there is of a window that this step finishes
            grown = _replaced(grown, begun, empty_windows(projector, len(begun)))
        clip_of = torch.tensor([growth.clip for growth in group], device=at_hand.mask.device)
        guide = projector._guide(clip_of, *given)
        if count:
            numbers = [range(growth.first, growth.first + count) for growth in group]
            grown = _appended(
                projector, grown, gathered(at_hand, clips, firsts, numbers, [g.clip for g in group]), guide
            )
        asked = [place for place, growth in enumerate(group) if growth.read]
        if asked:
            _read(projector, plan, group, asked, grown, guide, out, shown)
        stay = [place for place, growth in enumerate(group) if not growth.finished]
        if stay:
            after = _replaced(after, [rows[place] for place in stay], _chosen(grown, stay))
    return map_state(lambda value: value.unflatten(0, tuple(windows.num_frames.shape)), after)


def _appended(
    projector: "SlidingWindowProjector", windows: OpenWindows, new: tuple[Tensor, Tensor, Tensor], guide: Guide
) -> OpenWindows:
    tokens, mask, spans = new
    real = mask.any(-1)
    begin = torch.where(real, spans[..., 0], torch.inf).amin(1).to(windows.spans.dtype)
    stop = torch.where(real, spans[..., 1], -torch.inf).amax(1).to(windows.spans.dtype)
    begin, stop = torch.minimum(begin, windows.spans[:, 0]), torch.maximum(stop, windows.spans[:, 1])
    whole = None if bool(mask.all()) else mask
    memory = projector._append(windows.memory, tokens, whole, int(windows.num_frames[0]), guide)
    return OpenWindows(memory, windows.num_frames + tokens.shape[1], torch.stack([begin, stop], -1))


def _read(
    projector: "SlidingWindowProjector",
    plan: Plan,
    group: list[Growth],
    asked: list[int],
    grown: OpenWindows,
    guide: Guide,
    out: WindowOutputs,
    shown: WindowOutputs | None,
) -> None:
    wanted = _chosen(grown, asked)
    at = torch.tensor(asked, device=wanted.num_frames.device)
    guide = {name: value.index_select(0, at.to(value.device)) for name, value in guide.items()}
    states = projector._read(wanted.memory, int(wanted.num_frames[0]), guide)
    embeddings = projector.proj(states)
    for to, finished in ((out, True), (shown, False)):
        places = [place for place, one in enumerate(asked) if group[one].finished == finished]
        if to is None or not places:
            continue
        growths = [group[asked[place]] for place in places]
        target = [g.window - plan.next_window[g.clip] + plan.finished[g.clip] if finished else 0 for g in growths]
        index = torch.tensor(places, device=states.device)
        chosen = [value.index_select(0, index) for value in (states, embeddings, wanted.spans)]
        to.put([growth.clip for growth in growths], target, chosen[0], chosen[1], chosen[2])


def empty_windows(projector: "SlidingWindowProjector", rows: int) -> OpenWindows:
    """Rows of which nothing has been seen."""
    device = projector.proj.weight.device
    edges = torch.tensor([torch.inf, -torch.inf], dtype=time_dtype(device), device=device)
    count = torch.zeros(rows, dtype=torch.int64, device=device)
    return OpenWindows(projector._empty_memory(rows), count, edges.repeat(rows, 1))


def _chosen(windows: OpenWindows, rows: list[int]) -> OpenWindows:
    if rows == list(range(len(windows.num_frames))):
        return windows
    return take_rows(windows, torch.tensor(rows, device=windows.num_frames.device))


def _replaced(windows: OpenWindows, rows: list[int], values: OpenWindows) -> OpenWindows:
    if rows == list(range(len(windows.num_frames))):
        return values
    return put_rows(windows, torch.tensor(rows, device=windows.num_frames.device), values)

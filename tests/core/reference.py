"""What the time side must compute, in plain Python: one clip at a time, loops, no tensors of the library's making."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tests.core.strategies import Clip, token_values

NANOSECOND = 1e-9  # a centre that lies no further before an edge lies on it, within rounding


class Laid(list[tuple[int, float, float]]):
    """A clip's frames: which visual frame each shows (-1: none), its start and its end."""


def lay_frames(clip: Clip, frame_rate: float) -> Laid:
    frames = [(index, *span) for index, span in enumerate(clip.spans)]
    holds_back = holds_on = False
    if frames:
        holds_back, holds_on = frames[0][1] == -torch.inf, frames[-1][2] == torch.inf
        if holds_back:
            end = frames[0][2]
            frames[0] = (0, 0.0 if end == torch.inf else end - 1 / frame_rate, end)
        if holds_on:
            index, start, _ = frames[-1]
            frames[-1] = (index, start, start + 1 / frame_rate)
    begin, end = (frames[0][1], frames[-1][2]) if frames else (0.0, 0.0)
    times = [time + NANOSECOND for stream in clip.streams.values() for time in stream]
    before, after = [], []
    while times and min(times) < begin - len(before) / frame_rate:
        k = len(before) + 1
        before.append((0 if holds_back else -1, begin - k / frame_rate, begin - (k - 1) / frame_rate))
    while times and max(times) >= end + len(after) / frame_rate:
        k = len(after)
        after.append((len(frames) - 1 if holds_on else -1, end + k / frame_rate, end + (k + 1) / frame_rate))
    return Laid([*reversed(before), *frames, *after])


def tokens_of_frame(times: Sequence[float], start: float, end: float) -> list[int]:
    return [index for index, time in enumerate(times) if start <= time + NANOSECOND < end]


def synchronise(
    clip: Clip, row: int, dims: Mapping[str, int], frame_rate: float, slots: int, visual_tokens: int, fusion: str
) -> tuple[Tensor, Tensor, Laid]:
    """``(frame, slot, dim)`` tokens and ``(frame, slot)`` mask of one clip, in either fusion."""
    laid = lay_frames(clip, frame_rate)
    parts, masks = [], []
    for name, dim in dims.items():
        tokens = torch.zeros(len(laid), slots, dim, dtype=torch.float64)
        mask = torch.zeros(len(laid), slots, dtype=torch.bool)
        for frame, (shown, start, end) in enumerate(laid):
            if name == "visual":
                if shown >= 0:
                    tokens[frame, :visual_tokens] = token_values(row, name, shown, visual_tokens * dim).view(-1, dim)
                    mask[frame, :visual_tokens] = True
                continue
            for slot, index in enumerate(tokens_of_frame(clip.streams[name], start, end)):
                tokens[frame, slot] = token_values(row, name, index, dim)
                mask[frame, slot] = True
        parts.append(tokens)
        masks.append(mask)
    if fusion == "features":
        return torch.cat(parts, -1), torch.stack(masks).any(0), laid
    return torch.cat(parts, 1), torch.cat(masks, 1), laid

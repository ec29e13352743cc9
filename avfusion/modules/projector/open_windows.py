"""Windows that are encoded incrementally, frame by frame."""

from collections.abc import Sequence

import torch
from torch import Tensor

from avfusion.functional.window_schedule import Advance
from avfusion.modules.projector.computed_windows import ComputedWindows
from avfusion.modules.projector.frame_buffer import FrameBuffer
from avfusion.modules.projector.state import OpenWindows, empty_windows
from avfusion.modules.projector.window_encoding import WindowEncoding
from avfusion.types.state import map_state, put_rows, take_rows


def advance_windows(
    encoding: WindowEncoding,
    advances: Sequence[Advance],
    buffer: FrameBuffer,
    windows: OpenWindows,
) -> tuple[list[ComputedWindows], OpenWindows]:
    """Appends frames to open windows, and reads the requested ones.

    Args:
        encoding: of the windows, whose encoder is a :class:`~avfusion.StreamingWindowEncoder`.
        advances: what to do.
        buffer: the frames.
        windows: those that are open; not changed.

    Returns:
        The windows that were read, and those that are open, without those that are finished.
    """
    if not advances:
        return [], windows
    shape, device = windows.num_frames.shape, windows.num_frames.device

    def empty(rows: int) -> OpenWindows:
        return empty_windows(encoding.encoder.initial_state(rows), rows, device)

    before: OpenWindows = map_state(lambda value: value.flatten(0, 1), windows)
    groups: dict[int, list[Advance]] = {}  # windows with equally many new frames
    for advance in advances:
        groups.setdefault(advance.new, []).append(advance)
    gone = sorted({advance.clip * shape[1] + advance.place for advance in advances if advance.finished})
    after = _replace(before, gone, empty(len(gone))) if gone else before
    computed = []
    for count, group in groups.items():
        rows = [advance.clip * shape[1] + advance.place for advance in group]
        some = _select(before, rows)
        begun = [at for at, advance in enumerate(group) if not advance.encoded]
        if begun:  # these places still hold a window that this step finishes
            some = _replace(some, begun, empty(len(begun)))
        if count:
            numbers = [range(advance.first, advance.first + count) for advance in group]
            some = _append(encoding, some, *buffer.gather([advance.clip for advance in group], numbers))
        read = [at for at, advance in enumerate(group) if advance.read]
        if read:
            computed.append(_read(encoding, [group[at] for at in read], _select(some, read)))
        stay = [at for at, advance in enumerate(group) if not advance.finished]
        if stay:
            after = _replace(after, [rows[at] for at in stay], _select(some, stay))
    return computed, map_state(lambda value: value.unflatten(0, tuple(shape)), after)


def _append(encoding: WindowEncoding, windows: OpenWindows, tokens: Tensor, mask: Tensor, spans: Tensor) -> OpenWindows:
    real = mask.any(-1)
    begin = torch.where(real, spans[..., 0], torch.inf).amin(1).to(windows.spans.dtype)
    stop = torch.where(real, spans[..., 1], -torch.inf).amax(1).to(windows.spans.dtype)
    begin, stop = torch.minimum(begin, windows.spans[:, 0]), torch.maximum(stop, windows.spans[:, 1])
    _, memory = encoding.encoder.step(tokens, windows.memory, mask=None if bool(mask.all()) else mask)
    return OpenWindows(memory, windows.num_frames + tokens.shape[1], torch.stack([begin, stop], -1))


def _read(encoding: WindowEncoding, advances: Sequence[Advance], windows: OpenWindows) -> ComputedWindows:
    clips = [advance.clip for advance in advances]
    conditioning = encoding.conditioning(torch.tensor(clips, device=windows.num_frames.device))
    states = encoding.encoder.flush(windows.memory, **conditioning)
    numbers = [advance.window for advance in advances]
    real = windows.spans[:, 0] <= windows.spans[:, 1]  # an empty window's span is (inf, -inf)
    spans = windows.spans.masked_fill(~real[:, None], 0)
    states, embeddings = (value.masked_fill(~real[:, None, None], 0) for value in (states, encoding.proj(states)))
    return ComputedWindows(clips, numbers, states, embeddings, spans, real)


def _select(windows: OpenWindows, rows: list[int]) -> OpenWindows:
    if rows == list(range(len(windows.num_frames))):
        return windows
    return take_rows(windows, torch.tensor(rows, device=windows.num_frames.device))


def _replace(windows: OpenWindows, rows: list[int], values: OpenWindows) -> OpenWindows:
    if rows == list(range(len(windows.num_frames))):
        return values
    return put_rows(windows, torch.tensor(rows, device=windows.num_frames.device), values)

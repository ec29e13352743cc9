"""Real windows in the chunks in which they are encoded, and their results back in place."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from avfusion.functional.host import to_device
from avfusion.functional.packing import HostFrames, WindowGroup, group_mask, group_windows
from avfusion.functional.windows import WindowLayout
from avfusion.types import Frames

# Elements of the tokens of a chunk, where no gradients are wanted: four published windows on a CPU, whose intermediate
# results then stay in its cache; enough on other devices to fill them.
_CHUNK_ELEMENTS = {"cpu": 4 * 320 * 1536}
_MANY_ELEMENTS = 64 * 320 * 1536


class WindowBatch(NamedTuple):
    """Windows that are encoded at once.

    Attributes:
        windows: ``(window,)`` int64, on the CPU: their places among all windows of the batch.
        tokens: ``(window, frame, token, dim)``; or ``(row, token, dim)``, the frames that the windows share.
        mask: ``(window, frame, token)`` bool, or ``None``: all real.
        frame_index: ``(window, frame)`` int64: rows of shared ``tokens``; ``None`` if each window has its own.
    """

    windows: Tensor
    tokens: Tensor
    mask: Tensor | None
    frame_index: Tensor | None


class WindowRows:
    """Results of some windows, scattered to their places among all windows; zero elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._parts: list[tuple[Tensor, Tensor]] = []
        self._rows: Tensor | None = None

    def put(self, windows: Tensor, values: Tensor) -> None:
        """Adds ``values`` ``(window, ...)`` for ``windows`` ``(window,)`` on the CPU, each of which comes once."""
        if torch.is_grad_enabled():
            self._parts.append((windows, values))
        elif self._are_all(windows):
            self._rows = values
        else:
            if self._rows is None:
                self._rows = values.new_zeros(self._total, *values.shape[1:])
            self._rows[to_device(windows, values.device)] = values

    def collect(self) -> Tensor:
        """``(total, ...)``."""
        if self._rows is not None:
            return self._rows
        windows, values = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        if self._are_all(windows):
            return values
        rows = values.new_zeros(self._total, *values.shape[1:])
        return rows.index_copy(0, to_device(windows, values.device), values)

    def _are_all(self, windows: Tensor) -> bool:
        """Whether these are all windows in order, so that nothing need be copied."""
        return len(windows) == self._total and torch.equal(windows, torch.arange(self._total, device="cpu"))


def window_batches(
    frames: Frames,
    host: HostFrames,
    layout: WindowLayout,
    *,
    multiple: int,
    chunk_windows: int | None,
    share_frames: bool,
    fixed_shape: bool = False,
) -> Iterator[WindowBatch]:
    """The real windows of a batch, in chunks that are encoded at once; at least one chunk, which may be empty.

    Args:
        frames: the batch.
        host: the same frames on the CPU.
        layout: its windows, on the CPU.
        multiple: frames of a window are a multiple of this, or all.
        chunk_windows: windows of a chunk; without it, what is fastest where no gradients are wanted, else all that have
            equally many frames.
        share_frames: whether the encoder gets frames that windows share.
        fixed_shape: whether all chunks must have the same shape but for the number of their windows.
    """
    flat, device = frames.tokens.flatten(0, 1), frames.tokens.device
    groups = group_windows(host, layout, multiple=multiple, fixed_shape=fixed_shape)
    if not groups:  # parameters get their (zero) gradients from windows that are not there
        none = torch.zeros(0, dtype=torch.int64, device="cpu")
        tokens = flat[:0].unsqueeze(1).expand(-1, layout.frames.shape[1], -1, -1)
        yield WindowBatch(none, tokens, frames.mask.flatten(0, 1)[:0, None].expand(tokens.shape[:3]), None)
    for group in groups:
        size = _chunk_size(flat, group) if chunk_windows is None else chunk_windows
        # Cut from one gathered tensor, gradients come back in one piece rather than one of full size for each chunk.
        gathered = _gather(flat, group) if flat.requires_grad and not (share_frames or fixed_shape) else None
        start = 0
        for part in group.chunks(size):
            mask = group_mask(frames, layout, part)
            index = None
            if share_frames:
                tokens, index = _share(frames, layout, part)
            elif gathered is not None:
                tokens = gathered[start : start + len(part.windows)]
                start += len(part.windows)
            elif fixed_shape:  # compiled code would tell views of different tensors apart
                tokens = flat[to_device(part.frames, device)]
            else:
                tokens = _gather(flat, part)
            yield WindowBatch(part.windows, tokens, mask, index)


def _share(frames: Frames, layout: WindowLayout, group: WindowGroup) -> tuple[Tensor, Tensor]:
    """The frames of a group, each once, and the rows of each window's; what a window lacks is a row of zeros."""
    device, count = frames.tokens.device, group.frames.shape[1]
    there = layout.mask.flatten(0, 1)[group.windows, :count]
    rows, index = torch.unique(torch.where(there, group.frames, -1), return_inverse=True)
    rows = to_device(rows, device)
    real = frames.mask.flatten(0, 1)[rows.clamp(min=0)] & (rows >= 0)[:, None]
    tokens = frames.tokens.flatten(0, 1).index_select(0, rows.clamp(min=0))
    return torch.where(real[..., None], tokens, 0), to_device(index, device)


def _gather(flat: Tensor, group: WindowGroup) -> Tensor:
    if group.run is not None:
        return flat[group.run].unflatten(0, tuple(group.frames.shape))
    rows = to_device(group.frames, flat.device)
    return flat.index_select(0, rows.flatten()).unflatten(0, tuple(rows.shape))


def _chunk_size(flat: Tensor, group: WindowGroup) -> int:
    count, length = group.frames.shape
    if torch.is_grad_enabled():
        return count
    elements = length * flat.shape[1] * flat.shape[2]
    return max(_CHUNK_ELEMENTS.get(flat.device.type, _MANY_ELEMENTS) // max(elements, 1), 1)

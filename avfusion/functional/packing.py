"""Which windows of a batch are real, and how they go through a window encoder without padding."""

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.functional.host import to_device, to_host
from avfusion.functional.windows import WindowLayout, lay_windows
from avfusion.types import Frames

# What a round of kernels costs on an accelerator: it waits milliseconds for their launches, in which it encodes about
# so many frames of padding; and masks about so many windows that would need none.
_SPARE_FRAMES = 640
_SPARE_WINDOWS = 64


class HostFrames(NamedTuple):
    """A batch's frames without their tokens, on the CPU, where windows are planned without launching kernels.

    Attributes:
        real: ``(batch, frame)`` bool: frames with a real token.
        whole: ``(batch, frame)`` bool: frames whose tokens are all real.
        spans: ``(batch, frame, 2)`` seconds.
        device: where the tokens are.

    Example:
        >>> import torch
        >>> host = HostFrames.of(Frames.from_rate(torch.randn(2, 5, 4, 8), frame_rate=2.0, lengths=[5, 3]))
        >>> host.windows(3).mask.any(-1).tolist()
        [[True, True], [True, False]]
    """

    real: Bool[Tensor, "batch frame"]
    whole: Bool[Tensor, "batch frame"]
    spans: Float[Tensor, "batch frame 2"]
    device: torch.device

    @classmethod
    def of(cls, frames: Frames) -> Self:
        """Copies what is known of the frames to the CPU."""
        mask = to_host(frames.mask)
        return cls(mask.any(-1), mask.all(-1), to_host(frames.spans), frames.tokens.device)

    def windows(
        self, window_frames: int, stride_frames: int | None = None, *, wanted: Int[Tensor, " batch"] | None = None
    ) -> WindowLayout:
        """The windows, on the CPU; arguments as for :func:`~avfusion.functional.windows.lay_windows`."""
        return lay_windows(self.real, self.spans, window_frames, stride_frames, wanted=wanted)


class WindowGroup(NamedTuple):
    """Real windows with equally many frames.

    Attributes:
        windows: ``(window,)`` int64: their places among all windows of the batch, clip after clip.
        frames: ``(window, frame)`` int64: rows of ``frames.tokens.flatten(0, 1)``.
        whole: whether every token of theirs is real, so that no mask is needed.
    """

    windows: Int[Tensor, " window"]
    frames: Int[Tensor, "window frame"]
    whole: bool

    def chunks(self, size: int) -> Iterator["WindowGroup"]:
        """The group in parts of at most ``size`` windows."""
        size = max(min(size, self.windows.shape[0]), 1)  # split takes no number above 64 bits
        for windows, frames in zip(self.windows.split(size), self.frames.split(size), strict=True):
            yield WindowGroup(windows, frames, self.whole)

    @property
    def run(self) -> slice | None:
        """The rows as a slice, if they follow each other without gap or overlap."""
        first, count = int(self.frames[0, 0]), self.frames.numel()
        return (
            slice(first, first + count)
            if torch.equal(self.frames.flatten(), torch.arange(first, first + count, device="cpu"))
            else None
        )


def group_windows(
    frames: HostFrames, layout: WindowLayout, *, multiple: int = 1, fixed_shape: bool = False
) -> list[WindowGroup]:
    """Sorts the real windows of a batch by the frames they hold; what is not real is in no group.

    Args:
        frames: the batch.
        layout: its windows, on the CPU.
        multiple: numbers of frames are rounded up to a multiple of this; on accelerators, where many small calls cost
            more than some padding, further, to a power of two times it, and few windows to as many frames as the
            longest has.
        fixed_shape: one group of whole length, with a mask whether it is needed or not, so that compiled code
            meets one shape.

    Returns:
        Groups whose tensors are on the CPU, those with the most frames first; masked places among the frames of a
        group are any rows.

    Example:
        >>> import torch
        >>> frames = HostFrames.of(Frames.from_rate(torch.randn(2, 5, 4, 8), frame_rate=2.0, lengths=[5, 3]))
        >>> for group in group_windows(frames, frames.windows(3)):
        ...     print(group.windows.tolist(), group.frames.tolist(), group.whole)
        [0, 2] [[0, 1, 2], [5, 6, 7]] True
        [1] [[3, 4]] True
    """
    batch, total = frames.real.shape
    width = layout.frames.shape[1]
    places = torch.arange(1, width + 1, device="cpu")
    used = torch.where(layout.mask, places, 0).amax(-1)
    wholly = frames.whole[:, layout.frames.clamp(max=max(total - 1, 0))] & layout.mask
    whole = (wholly | (places > used[..., None])).all(-1).flatten()
    used = used.flatten()

    step = torch.where(used > 0, -(-used // multiple), 0)
    if frames.device.type != "cpu":
        step = torch.where(step > 0, 2 ** step.clamp(min=1).double().log2().ceil().long(), 0)
    rounded = (step * multiple).clamp(max=width)
    if fixed_shape:
        rounded = torch.where(used > 0, width, 0)
    whole = whole & (used == rounded) & (not fixed_shape)
    if frames.device.type != "cpu":
        rounded, whole = join_small_groups(rounded, whole)
    starts = torch.arange(batch, device="cpu") * total
    rows = layout.frames.clamp(max=max(total - 1, 0)) + starts[:, None, None]
    rows = rows.flatten(0, 1)
    groups = []
    for count in sorted(set(rounded.tolist()) - {0}, reverse=True):
        for state in (True, False):
            chosen = ((rounded == count) & (whole == state)).nonzero().flatten()
            if len(chosen):
                groups.append(WindowGroup(chosen, rows[chosen, :count], state))
    return groups


def join_small_groups(rounded: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """One group where several would cost an accelerator more: each is a round of kernels, whatever it holds.

    Args:
        rounded: ``(window,)`` int64, on the CPU: frames that each window is given; 0 where there is nothing.
        whole: ``(window,)`` bool: whether a window then needs no mask.

    Returns:
        Both, as they are; or with the most frames for every real window, and masks for all unless none needs one.
    """
    real = rounded > 0
    longest = rounded.max() if len(rounded) else 0
    padding, masked = (longest - rounded)[real].sum(), int((real & ~whole).sum())
    if padding > _SPARE_FRAMES or (masked and int(real.sum()) - masked > _SPARE_WINDOWS):
        return rounded, whole
    joined = torch.where(real, longest, 0)
    whole = whole & (joined == rounded)
    return joined, whole if whole[real].all() else torch.zeros_like(whole)


def group_mask(frames: Frames, layout: WindowLayout, group: WindowGroup) -> Bool[Tensor, "window frame token"] | None:
    """``(window, frame, token)`` bool: what is real in a group; ``None`` where everything is."""
    if group.whole:
        return None
    device, count = frames.mask.device, group.frames.shape[1]
    real = to_device(layout.mask.flatten(0, 1)[group.windows, :count], device)
    return frames.mask.flatten(0, 1)[to_device(group.frames, device)] & real[..., None]

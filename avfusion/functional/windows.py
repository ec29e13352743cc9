"""Sliding windows over frames."""

from typing import NamedTuple, overload

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError
from avfusion.types import Frames, Windows


def check_window(window_frames: int, stride_frames: int) -> None:
    """Raises :class:`~avfusion.InvalidValueError` unless ``1 <= stride_frames <= window_frames``."""
    if window_frames < 1:
        raise InvalidValueError(f"window_frames: must be at least 1, found {window_frames}")
    if not 1 <= stride_frames <= window_frames:
        raise InvalidValueError(
            f"stride_frames: must be between 1 and window_frames = {window_frames}, so that no frame is left out, "
            f"found {stride_frames}"
        )


@overload
def num_windows(num_frames: int, window_frames: int, stride_frames: int | None = None) -> int: ...
@overload
def num_windows(
    num_frames: Int[Tensor, "*batch"], window_frames: int, stride_frames: int | None = None
) -> Int[Tensor, "*batch"]: ...
def num_windows(
    num_frames: int | Int[Tensor, "*batch"], window_frames: int, stride_frames: int | None = None
) -> int | Int[Tensor, "*batch"]:
    r"""Number of windows of a clip: the fewest that cover it, so no window contains only padding.

    .. math:: W = \begin{cases} 0 & T = 0 \\ 1 + \lceil \max(T - K, 0) / s \rceil & T > 0 \end{cases}

    Args:
        num_frames: real frames :math:`T` of each clip: an int64 tensor of any shape, or one number.
        window_frames: frames per window, :math:`K`.
        stride_frames: frames from one window's start to the next's, :math:`s`; ``window_frames`` by default.

    Returns:
        Windows of each clip, in the form of ``num_frames``.

    Example:
        >>> import torch
        >>> num_windows(torch.tensor([0, 1, 10, 11, 60]), window_frames=10).tolist()
        [0, 1, 1, 2, 6]
        >>> num_windows(torch.tensor([10, 11, 60]), window_frames=10, stride_frames=5).tolist()
        [1, 2, 11]
    """
    stride = window_frames if stride_frames is None else stride_frames
    check_window(window_frames, stride)
    if not isinstance(num_frames, Tensor):  # an int, or the tracer's stand-in for one
        return 1 + -(-max(num_frames - window_frames, 0) // stride) if num_frames > 0 else 0
    beyond = (num_frames - window_frames).clamp(min=0)
    return torch.where(num_frames > 0, 1 + (beyond + stride - 1) // stride, 0)


def num_frames_of(frame_mask: Bool[Tensor, "batch frame"]) -> Int[Tensor, " batch"]:
    """Number of frames of each clip up to its last real one.

    Args:
        frame_mask: ``(batch, frame)`` bool.

    Example:
        >>> import torch
        >>> num_frames_of(torch.tensor([[True, False, True, False]])).tolist()
        [3]
    """
    batch, total = frame_mask.shape
    places = torch.arange(1, total + 1, device=frame_mask.device)
    return torch.where(frame_mask, places, 0).amax(1) if total else frame_mask.new_zeros(batch).long()


class WindowLayout(NamedTuple):
    """The frames of each window of a batch, before they are cut.

    Attributes:
        frames: ``(windows, frame)`` int64: index of each window's frames in a clip; may exceed the end of the batch.
        mask: ``(batch, windows, frame)`` bool: frames with real tokens, in windows that the clip alone would
            have.
        spans: ``(batch, windows, 2)`` seconds from the first to the last real frame; zero without real frames.

    Example:
        >>> import torch
        >>> from avfusion import Frames
        >>> frames = Frames.from_rate(torch.randn(1, 5, 4, 8), frame_rate=2.0)
        >>> layout = lay_windows(frames.frame_mask, frames.spans, window_frames=3)
        >>> layout.frames.tolist(), layout.mask[0].tolist()
        ([[0, 1, 2], [3, 4, 5]], [[True, True, True], [True, True, False]])
    """

    frames: Int[Tensor, "windows frame"]
    mask: Bool[Tensor, "batch windows frame"]
    spans: Float[Tensor, "batch windows 2"]


def lay_windows(
    frame_mask: Bool[Tensor, "batch frame"],
    spans: Float[Tensor, "batch frame 2"],
    window_frames: int,
    stride_frames: int | None = None,
    *,
    wanted: Int[Tensor, " batch"] | None = None,
) -> WindowLayout:
    """Lays windows over each clip's frames.

    Args:
        frame_mask: ``(batch, frame)`` bool: frames with real tokens.
        spans: ``(batch, frame, 2)`` seconds, on the same device.
        window_frames: as for :func:`cut_windows`.
        stride_frames: as for :func:`cut_windows`.
        wanted: ``(batch,)`` int64: windows of each clip; by default as many as cover its real frames.
    """
    stride = window_frames if stride_frames is None else stride_frames
    total, device = frame_mask.shape[1], frame_mask.device
    wanted = num_windows(num_frames_of(frame_mask), window_frames, stride) if wanted is None else wanted
    place = torch.arange(num_windows(total, window_frames, stride), device=device)
    index = place[:, None] * stride + torch.arange(window_frames, device=device)

    inside = index < total
    held = index.clamp(max=max(total - 1, 0))
    mask = frame_mask[:, held] & inside & (place < wanted[:, None])[..., None]
    begin = torch.where(mask, spans[:, held, 0], torch.inf).amin(-1)
    end = torch.where(mask, spans[:, held, 1], -torch.inf).amax(-1)
    return WindowLayout(index, mask, torch.where(mask.any(-1)[..., None], torch.stack([begin, end], -1), 0.0))


def cut_windows(frames: Frames, window_frames: int, stride_frames: int | None = None) -> Windows:
    """Cuts each clip's frames into windows; the last one's missing frames are masked.

    Args:
        frames: tokens ``(batch, frame, token, dim)``; each clip's frames start at index 0.
        window_frames: frames per window.
        stride_frames: frames from one window's start to the next's; ``window_frames`` by default.

    Returns:
        As many windows per clip as ``frame`` frames need; windows that the clip alone would not have are masked.

    Example:
        >>> import torch
        >>> from avfusion import Frames
        >>> windows = cut_windows(Frames.from_rate(torch.randn(2, 7, 4, 8), 2.0, lengths=[7, 3]), window_frames=3)
        >>> windows.tokens.shape, windows.window_mask.tolist()
        (torch.Size([6, 3, 4, 8]), [[True, True, True], [True, False, False]])
    """
    layout = lay_windows(frames.frame_mask, frames.spans, window_frames, stride_frames)
    batch, total, slots, dim = frames.tokens.shape
    count = layout.frames.shape[0]
    missing = max((count - 1) * (stride_frames or window_frames) + window_frames - total, 0) if count else 0
    mask = torch.nn.functional.pad(frames.mask, (0, 0, 0, missing))[:, layout.frames] & layout.mask[..., None]
    tokens = torch.nn.functional.pad(frames.tokens, (0, 0, 0, 0, 0, missing))[:, layout.frames]
    return Windows(
        tokens=torch.where(mask[..., None], tokens, 0).reshape(batch * count, window_frames, slots, dim),
        mask=mask.reshape(batch * count, window_frames, slots),
        spans=layout.spans,
        window_mask=layout.mask.any(-1),
    )


def spread_over_positions(
    windows: Float[Tensor, "batch windows 2"] | Bool[Tensor, "batch windows"], num_queries: int
) -> Tensor:
    """Repeats a value of each window for each of its query positions.

    Args:
        windows: ``(batch, windows, ...)``.
        num_queries: positions per window.

    Returns:
        ``(batch, windows * num_queries, ...)``.

    Example:
        >>> import torch
        >>> spread_over_positions(torch.tensor([[True, False]]), num_queries=2).tolist()
        [[True, True, False, False]]
    """
    return windows.repeat_interleave(num_queries, dim=1)

"""The windows of a clip."""

from typing import Any

from matplotlib.patches import Rectangle

from avfusion.functional import cut_windows
from avfusion.types import Frames
from avfusion.viz._canvas import MASKED, STREAMS, VISUAL, axes_for, check_row, faded, only_left_and_bottom


def plot_windows(
    frames: Frames,
    *,
    window_frames: int,
    stride_frames: int | None = None,
    num_queries: int | None = None,
    clip: int = 0,
    ax: Any = None,
) -> Any:
    """Draws a clip's frames and, under them, the windows of :func:`~avfusion.functional.cut_windows`.

    Args:
        frames: ``(batch, frame, token, dim)``; only their spans and masks are used.
        window_frames: frames per window.
        stride_frames: frames from one window's start to the next's; ``window_frames`` by default.
        num_queries: embeddings per window, shown beside each window.
        clip: row of the batch.
        ax: axes to draw on; a new figure by default.

    Returns:
        The axes, with one lane for frames and one per window, in which missing frames are dashed.

    Raises:
        InvalidValueError: no such clip, a stride that leaves frames out.

    Example:
        >>> import torch
        >>> from avfusion import Frames
        >>> from avfusion.viz import plot_windows
        >>> frames = Frames.from_rate(torch.empty(1, 7, 1, 0), frame_rate=2.0)
        >>> ax = plot_windows(frames, window_frames=4, stride_frames=2)
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['frames', 'window 0', 'window 1', 'window 2']
    """
    check_row(clip, len(frames.mask), "clip")
    stride = window_frames if stride_frames is None else stride_frames
    windows = cut_windows(frames._replace(tokens=frames.tokens[..., :0]), window_frames, stride)
    per_clip = windows.window_mask.shape[1]
    mask = windows.mask.any(-1).unflatten(0, (-1, per_clip))[clip]
    count = int(windows.window_mask[clip].sum())
    ax = axes_for(ax, 9, 1.1 + 0.38 * count)
    spans = frames.spans[clip].tolist()
    real = frames.frame_mask[clip].tolist()
    length = next((end - start for (start, end), here in zip(spans, real, strict=True) if here), 1.0)
    for frame, ((start, end), here) in enumerate(zip(spans, real, strict=True)):
        if here:
            _box(ax, start, end, 0, VISUAL, 0.5)
            ax.text((start + end) / 2, 0, str(frame), ha="center", va="center", fontsize=8)
    for window in range(count):
        colour = STREAMS[window % len(STREAMS)]
        last = 0.0
        for place in range(window_frames):
            frame = window * stride + place
            held = bool(mask[window, place])
            start, end = spans[frame] if held else (last, last + length)
            _box(ax, start, end, window + 1, colour if held else MASKED, 0.6 if held else None)
            last = end
        if num_queries is not None:
            ax.text(last + 0.15 * length, window + 1, f"{num_queries} embeddings", va="center", fontsize=8)
    ax.set_yticks(range(count + 1), ["frames", *(f"window {window}" for window in range(count))])
    ax.set_ylim(count + 0.6, -0.6)
    ax.margins(x=0.02)
    ax.set_xlabel("seconds")
    ax.spines[["left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    only_left_and_bottom(ax)
    return ax


def _box(ax: Any, start: float, end: float, lane: int, colour: str, alpha: float | None) -> None:
    gap = 0.03 * (end - start)
    style: dict[str, Any] = {"fill": False, "linestyle": ":"} if alpha is None else {"facecolor": faded(colour, alpha)}
    ax.add_patch(Rectangle((start + gap, lane - 0.3), end - start - 2 * gap, 0.6, edgecolor=colour, **style))
    ax.autoscale_view()

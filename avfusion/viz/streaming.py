"""The state of a stream."""

from typing import Any

from matplotlib.patches import Rectangle

from avfusion.modules import AudioVisualConnector
from avfusion.modules.audio_visual_connector import ConnectorState
from avfusion.types import state_tensors
from avfusion.viz._canvas import (
    MASKED,
    STREAMS,
    VISUAL,
    axes_for,
    check_row,
    colours_of,
    faded,
    numbers,
    only_left_and_bottom,
)


def plot_streaming_state(
    connector: AudioVisualConnector, state: ConnectorState, *, row: int = 0, since: float = 0.0, ax: Any = None
) -> Any:
    """Draws a connector's state for one clip: pending tokens and frames, and open windows.

    Everything to the left has been processed and is no longer stored.

    Args:
        connector: the connector of the state.
        state: a state from :meth:`avfusion.AudioVisualConnector.step`.
        row: row of the batch.
        since: seconds at which the axis begins.
        ax: axes to draw on; a new figure by default.

    Returns:
        The axes, with one lane per stream for pending tokens, one for pending frames, and one per open window.

    Raises:
        InvalidValueError: no such row.

    Example:
        >>> import torch
        >>> from avfusion import AudioVisualConnector, CausalQFormer, FrameSynchroniser, SlidingWindowProjector
        >>> from avfusion.viz import plot_streaming_state
        >>> qformer = CausalQFormer(
        ...     input_dim=16, hidden_size=8, num_heads=2, num_queries=2, window_frames=4, tokens_per_frame=6
        ... )
        >>> connector = AudioVisualConnector(
        ...     synchroniser=FrameSynchroniser(
        ...         visual_dim=8, stream_dims={"audio": 8}, stream_rates={"audio": 12.0}, slots=6
        ...     ),
        ...     projector=SlidingWindowProjector(window_encoder=qformer, window_frames=4, llm_dim=8),
        ... )
        >>> chunk = {"visual": torch.randn(1, 7, 6, 8), "audio": torch.randn(1, 33, 8)}  # 3.5 s and 2.75 s
        >>> _, state = connector.step(chunk, connector.initial_state())
        >>> ax = plot_streaming_state(connector, state)
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['pending visual', 'pending audio', 'pending frames', 'open window']
    """
    synchroniser, projector = state.synchroniser, state.projector
    check_row(row, len(projector.first), "row")
    names = list(connector.synchroniser.stream_rates)
    colours = colours_of(names)
    expected = ["visual"] * ("visual" in connector.synchroniser.dims) + names
    absorbed = projector.windows.num_frames[row]
    open_windows = absorbed.nonzero().flatten().tolist()
    lanes = [f"pending {name}" for name in [*expected, "frames"]] + ["open window"] * max(len(open_windows), 1)
    ax = axes_for(ax, 9, 1.3 + 0.42 * len(lanes))

    kept: list[float] = []
    for start, end in synchroniser.visual.spans[row, synchroniser.visual.mask[row].any(-1)].tolist():
        kept += _box(ax, start, end, lanes.index("pending visual"), VISUAL)
    for name, stream in zip(names, synchroniser.streams, strict=True):
        times = numbers(stream.timestamps[row, stream.mask[row]])
        ax.scatter(times, [lanes.index(f"pending {name}")] * len(times), s=24, color=colours[name])
        kept += times.tolist()
    for start, end in projector.spans[row, projector.mask[row].any(-1)].tolist():
        kept += _box(ax, start, end, lanes.index("pending frames"), VISUAL)
    for lane, slot in enumerate(open_windows, start=lanes.index("open window")):
        start, end = projector.windows.spans[row, slot].tolist()
        seen = f"{int(absorbed[slot])} of {connector.projector.window_frames} frames"
        kept += _box(ax, start, end, lane, STREAMS[1], seen)

    first = min(kept, default=since)
    if first > since:
        ax.axvspan(since, first, color=MASKED, alpha=0.18, linewidth=0)
        middle = (len(lanes) - 1) / 2
        ax.text((since + first) / 2, middle, "processed, no longer stored", ha="center", va="center", color=MASKED)
    finalised = synchroniser.anchor.end[row].item()
    if finalised > since:
        ax.axvline(finalised, color=MASKED, linestyle="--", linewidth=1)
        ax.text(finalised, -0.7, "finalised up to here", ha="right", va="bottom", fontsize=8, color=MASKED)
    size = sum(value[row].numel() * value.element_size() for value in state_tensors(state).values())
    ax.set_title(f"kept: {_bytes(size)}", loc="left", fontsize=9)
    ax.set_yticks(range(len(lanes)), lanes)
    ax.set_ylim(len(lanes) - 0.4, -0.6)
    ax.set_xlim(since, max(kept, default=since + 1) + 0.02 * (max(kept, default=since + 1) - since))
    ax.set_xlabel("seconds")
    ax.tick_params(axis="y", length=0)
    ax.spines[["left"]].set_visible(False)
    only_left_and_bottom(ax)
    return ax


def _box(ax: Any, start: float, end: float, lane: int, colour: str, text: str = "") -> list[float]:
    """Draws an interval and returns its ends; a held frame ends with the second in which it begins."""
    end = min(end, start + 1.0) if end == float("inf") else end
    box = Rectangle((start, lane - 0.3), end - start, 0.6, facecolor=faded(colour, 0.5), edgecolor=colour)
    ax.add_patch(box)
    ax.text((start + end) / 2, lane, text, ha="center", va="center", fontsize=8)
    return [start, end]


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"

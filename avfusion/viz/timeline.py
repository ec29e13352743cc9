"""The frame of each token."""

from typing import Any

from matplotlib.patches import Rectangle

from avfusion.modules import FrameSynchroniser
from avfusion.viz._canvas import MASKED, axes_for, check_row, colours_of, faded, numbers, only_left_and_bottom
from avfusion.viz._layout import Streams, lay_out


def plot_timeline(synchroniser: FrameSynchroniser, streams: Streams, *, clip: int = 0, ax: Any = None) -> Any:
    """Draws the tokens of each stream on a time axis, in the shade of the frame that contains their centre.

    Frames that the synchroniser adds, because a stream begins before the video or outlasts it, are dashed. Tokens
    outside all frames, for which the synchroniser would raise an error, are crosses.

    Args:
        synchroniser: assigns the tokens to frames.
        streams: its input by name: ``"visual"`` frames, and token streams.
        clip: row of the batch.
        ax: axes to draw on; a new figure by default.

    Returns:
        The axes, with one lane per stream and one for frames.

    Raises:
        InvalidValueError: no such clip, or unknown streams.

    Example:
        >>> import torch
        >>> from avfusion import Frames, FrameSynchroniser, TokenStream
        >>> from avfusion.viz import plot_timeline
        >>> synchronise = FrameSynchroniser(visual_dim=8, stream_dims={"audio": 8}, slots=6)
        >>> video = Frames.from_rate(torch.randn(1, 4, 6, 8), frame_rate=2.0)
        >>> audio = TokenStream.from_rate(torch.randn(1, 30, 8), rate=12.0)  # 2.5 s
        >>> ax = plot_timeline(synchronise, {"visual": video, "audio": audio})
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['audio', 'frames']
    """
    layout = lay_out(synchroniser, streams)
    check_row(clip, len(layout.grid.mask), "clip")
    ax = axes_for(ax, 9, 1.1 + 0.55 * len(layout.streams))
    colours, below = colours_of(layout.streams), len(layout.streams)
    for frame in layout.grid.mask[clip].nonzero().flatten().tolist():
        start, end = layout.grid.spans[clip, frame].tolist()
        own = bool(layout.grid.source[clip, frame] >= 0)
        colour = colours["visual"] if own else MASKED
        style: dict[str, Any] = {"facecolor": _shade(colour, frame)} if own else {"fill": False, "linestyle": "--"}
        ax.add_patch(Rectangle((start, below - 0.3), end - start, 0.6, edgecolor=colour, **style))
        ax.text((start + end) / 2, below, str(frame), ha="center", va="center", fontsize=9)
        for edge in (start, end):
            ax.axvline(edge, color=MASKED, linewidth=0.7, alpha=0.6, zorder=0)
    for lane, (name, stream) in enumerate(layout.streams.items()):
        times, frame_of = stream.timestamps[clip], layout.placements[name].frame[clip]
        placed = frame_of >= 0
        shades = [_shade(colours[name], frame) for frame in frame_of[placed].tolist()]
        lanes = [lane] * len(shades)
        ax.scatter(numbers(times[placed]), lanes, s=26, c=shades, edgecolors=colours[name], linewidths=0.6, label=name)
        lost = numbers(times[stream.mask[clip] & ~placed])
        ax.scatter(lost, [lane] * len(lost), marker="x", color=MASKED)
    ax.set_yticks(range(below + 1), [*layout.streams, "frames"])
    ax.set_ylim(below + 0.6, -0.6)
    ax.set_xlabel("seconds")
    ax.spines[["left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    only_left_and_bottom(ax)
    return ax


def _shade(colour: str, frame: int) -> Any:
    """A shade that differs between neighbouring frames."""
    return faded(colour, 0.9 if frame % 2 else 0.4)

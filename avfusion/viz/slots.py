"""The slots of a clip's frames."""

from typing import Any

from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from avfusion.modules import FrameSynchroniser
from avfusion.viz._canvas import MASKED, axes_for, check_row, colours_of, faded, only_left_and_bottom
from avfusion.viz._layout import Layout, Streams, lay_out


def plot_slots(synchroniser: FrameSynchroniser, streams: Streams, *, clip: int = 0, ax: Any = None) -> Any:
    """Draws the slots of a clip's frames: one box per slot, with a part per stream, filled if it has a token there.

    Args:
        synchroniser: assigns the tokens to frames.
        streams: its input by name: ``"visual"`` frames, and token streams.
        clip: row of the batch.
        ax: axes to draw on; a new figure by default.

    Returns:
        The axes, with seconds to the right and slots downwards.

    Raises:
        InvalidValueError: no such clip, or unknown streams.

    Example:
        >>> import torch
        >>> from avfusion import FrameSynchroniser, TokenStream
        >>> from avfusion.viz import plot_slots
        >>> synchronise = FrameSynchroniser(visual_dim=8, stream_dims={"audio": 8}, slots=6)
        >>> ax = plot_slots(synchronise, {"audio": TokenStream.from_rate(torch.randn(1, 24, 8), rate=12.0)})
        >>> [float(edge) for edge in ax.get_xlim()], ax.get_ylabel()
        ([0.0, 2.0], 'slot')
    """
    layout = lay_out(synchroniser, streams)
    check_row(clip, len(layout.grid.mask), "clip")
    ax = axes_for(ax, 9, 2.9)
    draw_slots(ax, layout, clip)
    return ax


def draw_slots(ax: Any, layout: Layout, clip: int) -> None:
    """Draws the slots of a layout."""
    colours, share = colours_of(layout.held), 1 / len(layout.held)
    slots = max(held.shape[2] for held in layout.held.values())
    for frame in layout.grid.mask[clip].nonzero().flatten().tolist():
        start, end = layout.grid.spans[clip, frame].tolist()
        begin, width = start + 0.04 * (end - start), 0.92 * (end - start)
        for place, (name, held) in enumerate(layout.held.items()):
            left = begin + place * share * width
            for real, colour in ((True, colours[name]), (False, faded(MASKED, 0.15))):
                here = (held[clip, frame] == real).nonzero().flatten().tolist()
                ax.barh(here, share * width, 0.84, [left] * len(here), color=colour, label=f"{name} {real}")
    ax.set_ylim(slots - 0.4, -0.6)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("slot")
    handles = [Patch(color=colours[name], label=name) for name in layout.held]
    ax.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=len(handles), frameon=False, fontsize=8
    )
    spans = layout.grid.spans[clip, layout.grid.mask[clip]]
    if len(spans):
        ax.set_xlim(float(spans[:, 0].min()), float(spans[:, 1].max()))
    ax.set_xlabel("seconds")
    only_left_and_bottom(ax)

"""Plots of clips, windows, masks, attention, streaming states and budgets.

Each function takes values of the library and draws them on the given axes, or on a new figure. No global state of
matplotlib is modified, and no display is needed. Text and lines have the colours of matplotlib's style, light or dark.

Example:
    >>> import matplotlib.style, torch
    >>> from avfusion import Frames
    >>> from avfusion.viz import plot_windows
    >>> frames = Frames.from_rate(torch.empty(1, 25, 1, 0), frame_rate=2.0)
    >>> with matplotlib.style.context("dark_background"):
    ...     figure = plot_windows(frames, window_frames=10).figure  # figure.savefig("windows.svg")
"""

try:
    import matplotlib as _mpl  # noqa: F401, ICN001
except ImportError as error:
    raise ImportError("avfusion.viz needs matplotlib: pip install 'avfusion[viz]'") from error

from avfusion.viz.attention import plot_attention, plot_query_similarity
from avfusion.viz.budget import plot_budget
from avfusion.viz.clip import plot_clip
from avfusion.viz.mask import plot_mask
from avfusion.viz.slots import plot_slots
from avfusion.viz.streaming import plot_streaming_state
from avfusion.viz.timeline import plot_timeline
from avfusion.viz.windows import plot_windows

__all__ = [
    "plot_attention",
    "plot_budget",
    "plot_clip",
    "plot_mask",
    "plot_query_similarity",
    "plot_slots",
    "plot_streaming_state",
    "plot_timeline",
    "plot_windows",
]

"""Axes to draw on, and colours with the same meaning in every plot."""

from typing import Any

import matplotlib as mpl
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from avfusion.errors import InvalidValueError

# Legible on light and dark backgrounds.
VISUAL = "#3d7ab8"
STREAMS = ("#e0782f", "#3f9c6b", "#a767b5", "#b8952b")
MASKED = "#8c929c"


def new_figure(width: float, height: float) -> Any:
    """A figure of ``width`` × ``height`` inches that pyplot does not manage."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))


def axes_for(ax: Any, width: float, height: float) -> Any:
    """The given axes, or those of a new figure."""
    return new_figure(width, height).subplots() if ax is None else ax


def ink() -> str:
    """The text colour of the style."""
    return str(mpl.rcParams["text.color"])


def paper() -> str:
    """The background colour of the style."""
    return str(mpl.rcParams["axes.facecolor"])


def shades(*colours: str) -> Any:
    """A colour map that interpolates between colours."""
    return LinearSegmentedColormap.from_list("avfusion", colours)


def faded(colour: str, alpha: float) -> tuple[float, float, float, float]:
    """A transparent colour."""
    return to_rgba(colour, alpha)


def colours_of(names: Any) -> dict[str, str]:
    """A colour for each stream, ``"visual"`` included."""
    others = [name for name in names if name != "visual"]
    colours = {name: STREAMS[place % len(STREAMS)] for place, name in enumerate(others)}
    return {"visual": VISUAL, **colours}


def only_left_and_bottom(ax: Any) -> None:
    """Hides the other spines."""
    ax.spines[["top", "right"]].set_visible(False)


def check_row(row: int, batch: int, name: str) -> None:
    """Raises an error for a clip outside the batch."""
    if not 0 <= row < batch:
        raise InvalidValueError(f"{name}: must be from 0 to {batch - 1}, found {row}")


def numbers(values: Tensor) -> Any:
    """A tensor as a NumPy array for matplotlib."""
    return values.detach().double().cpu().numpy()

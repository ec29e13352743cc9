"""The causal attention mask of a window."""

from typing import Any

import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from torch import Tensor

from avfusion._shapes import Bool
from avfusion.errors import InvalidValueError
from avfusion.functional import FrameCausalMask
from avfusion.viz._canvas import MASKED, VISUAL, axes_for, faded, ink, paper


def plot_mask(mask: FrameCausalMask, key_mask: Bool[Tensor, " token"] | None = None, *, ax: Any = None) -> Any:
    """Draws a window's frame-block-causal mask: one row per query token, one column per key token.

    Args:
        mask: the description of the mask.
        key_mask: ``(token,)`` bool: the window's real tokens; the others are never attended to.
        ax: axes to draw on; a new figure by default.

    Returns:
        The axes. Their image has 1 for visible pairs, 0 for masked pairs and -1 for padding.

    Raises:
        InvalidValueError: a ``key_mask`` for another number of tokens.

    Example:
        >>> from avfusion.functional import FrameCausalMask
        >>> from avfusion.viz import plot_mask
        >>> ax = plot_mask(FrameCausalMask(num_frames=3, tokens_per_frame=2))
        >>> int((ax.images[0].get_array() == 1).sum())
        24
    """
    allowed = mask.dense()
    count, size = len(allowed), mask.tokens_per_frame
    shown = allowed.long()
    if key_mask is not None:
        if key_mask.shape != (count,):
            raise InvalidValueError(f"key_mask: must be (token,) = ({count},), found shape {tuple(key_mask.shape)}")
        shown = torch.where(key_mask.cpu(), shown, -1)
    ax = axes_for(ax, 5.2, 4.4)
    colours = [faded(MASKED, 0.55), paper(), VISUAL]
    ax.imshow(shown.numpy(), cmap=ListedColormap(colours), vmin=-1, vmax=1)
    for place in range(count + 1):
        edge = place % size == 0
        style = {"color": ink(), "linewidth": 1.0} if edge else {"color": MASKED, "linewidth": 0.3}
        ax.axhline(place - 0.5, **style)
        ax.axvline(place - 0.5, **style)
    middles = [frame * size + (size - 1) / 2 for frame in range(mask.num_frames)]
    names = [f"frame {frame}" for frame in range(mask.num_frames)]
    ax.set_xticks(middles, names)
    ax.set_yticks(middles, names)
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel("… may look at a token of")
    ax.set_ylabel("a token of …")
    labels = [Patch(facecolor=colours[2], label="may"), Patch(facecolor=colours[1], edgecolor=MASKED, label="may not")]
    if key_mask is not None and not bool(key_mask.all()):
        labels.append(Patch(facecolor=colours[0], label="padding"))
    ax.legend(handles=labels, loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return ax

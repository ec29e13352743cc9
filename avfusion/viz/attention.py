"""Attention of queries to frames, and similarity of queries."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from avfusion._shapes import Float
from avfusion.errors import InvalidValueError
from avfusion.functional import query_similarity
from avfusion.viz._canvas import MASKED, STREAMS, VISUAL, axes_for, check_row, numbers, paper, shades


def plot_attention(
    maps: Float[Tensor, "layer window head query frame token"],
    *,
    spans: Float[Tensor, "frame 2"] | None = None,
    stride_frames: int | None = None,
    groups: Mapping[str, Sequence[int] | slice] | None = None,
    layer: int | None = None,
    head: int | None = None,
    ax: Any = None,
) -> Any:
    """Draws each query's attention to each frame: one row per query and window of a clip.

    Args:
        maps: ``(layer, window, head, query, frame, token)`` from :meth:`avfusion.CausalQFormer.attention_maps`
            for the windows of one clip.
        spans: ``(frame, 2)`` seconds of the clip's consecutive frames; the axis shows frame numbers by default. Frames
            beyond them are padding.
        stride_frames: frames from one window's start to the next's; the window length by default.
        groups: slots of each modality in a frame, by name, such as ``{"visual": slice(0, 32), "audio": slice(32, 57)}``
            for a synchroniser with ``fusion="tokens"``; the modalities are drawn side by side.
        layer: only this layer; the mean of all by default.
        head: only this head; the mean of all by default.
        ax: axes to draw on; a new figure by default.

    Returns:
        The axes. The array of their mesh is ``(window × query, group × frame)``.

    Raises:
        InvalidValueError: maps of another shape, both ``spans`` and ``groups``.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer
        >>> from avfusion.viz import plot_attention
        >>> qformer = CausalQFormer(
        ...     input_dim=8, hidden_size=8, num_heads=2, num_queries=3, window_frames=5, tokens_per_frame=4
        ... )
        >>> maps = qformer.eval().attention_maps(torch.randn(2, 5, 4, 8))  # two windows of a clip
        >>> plot_attention(maps).collections[0].get_array().shape
        (6, 10)
    """
    if maps.ndim != 6:
        raise InvalidValueError(
            f"maps: must be (layer, window, head, query, frame, token), found shape {tuple(maps.shape)}"
        )
    if spans is not None and groups is not None:
        raise InvalidValueError("spans, groups: give one of them, found both")
    chosen = maps if layer is None else maps[layer : layer + 1] if layer >= 0 else maps[layer:][:1]
    chosen = chosen if head is None else chosen[:, :, head : head + 1] if head >= 0 else chosen[:, :, head:][:, :, :1]
    looks = chosen.detach().double().mean((0, 2))  # (window, query, frame, token)
    if groups is None:
        parts = {"": _placed(looks.sum(-1), stride_frames)}
    else:
        parts = {name: _placed(looks[..., places].sum(-1), stride_frames) for name, places in groups.items()}
    frames = next(iter(parts.values())).shape[1]
    if spans is not None:
        frames = min(frames, len(spans))
    table = torch.cat([part[:, :frames] for part in parts.values()], 1)
    rows = len(table)
    ax = axes_for(ax, 7, 1 + 0.22 * rows)
    edges = (
        torch.arange(table.shape[1] + 1)
        if spans is None
        else torch.cat([spans[:frames, 0], spans[frames - 1 : frames, 1]])
    )
    mesh = ax.pcolormesh(
        numbers(edges),
        range(rows + 1),
        numbers(table),
        cmap=shades(paper(), VISUAL),
        vmin=0,
        vmax=max(float(table.max()), 1e-9),
    )
    for edge in numbers(edges)[1:-1]:
        ax.axvline(edge, color=MASKED, linewidth=0.5, alpha=0.5)
    queries = looks.shape[1]
    for first in range(queries, rows, queries):
        ax.axhline(first, color=MASKED, linewidth=1.0)
    ax.set_ylim(rows, 0)
    ax.set_yticks([row + 0.5 for row in range(rows)], [str(row) for row in range(rows)])
    ax.set_ylabel("embedding" if len(looks) > 1 else "query")
    ax.tick_params(axis="y", length=0, labelsize=7)
    _label_frames(ax, list(parts), frames, spans is not None)
    ax.figure.colorbar(mesh, ax=ax, label="attention", fraction=0.05, pad=0.02)
    return ax


def _placed(looks: Tensor, stride_frames: int | None) -> Tensor:
    """Maps ``(window, query, frame)`` to the clip's frames: ``(window × query, frame of the clip)``."""
    windows, queries, length = looks.shape
    stride = length if stride_frames is None else stride_frames
    placed = looks.new_zeros(windows, queries, (windows - 1) * stride + length)
    for window in range(windows):
        placed[window, :, window * stride : window * stride + length] = looks[window]
    return placed.flatten(0, 1)


def _label_frames(ax: Any, names: list[str], frames: int, timed: bool) -> None:
    if timed:
        ax.set_xlabel("seconds")
        return
    step = max(1, frames // 12)
    marks = [(group * frames + frame, frame) for group in range(len(names)) for frame in range(0, frames, step)]
    ax.set_xticks([place + 0.5 for place, _ in marks], [str(frame) for _, frame in marks], fontsize=7)
    ax.set_xlabel("frame")
    for group, name in enumerate(names):
        if name:
            ax.text((group + 0.5) * frames, -0.2, name, ha="center", va="bottom")
            ax.axvline(group * frames, color=MASKED, linewidth=2)


def plot_query_similarity(
    query_states: Float[Tensor, "window query hidden"], *, window: int = 0, ax: Any = None
) -> Any:
    """Draws the cosine similarity of all pairs of queries of a window; the title has the mean, which the loss reduces.

    Args:
        query_states: ``(window, query, hidden)`` from :class:`~avfusion.LLMEmbeddings`.
        window: index of the window.
        ax: axes to draw on; a new figure by default.

    Returns:
        The axes. Their image has the ``(query, query)`` similarities; those of a zero vector are 0.

    Raises:
        InvalidValueError: states of another shape, no such window.

    Example:
        >>> import torch
        >>> from avfusion.viz import plot_query_similarity
        >>> ax = plot_query_similarity(torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]))
        >>> ax.images[0].get_array().tolist(), ax.get_title()
        ([[1.0, 0.0], [0.0, 1.0]], 'mean of different queries: 0.00')
    """
    if query_states.ndim != 3:
        raise InvalidValueError(
            f"query_states: must be (window, query, hidden), found shape {tuple(query_states.shape)}"
        )
    check_row(window, len(query_states), "window")
    states = query_states[window].detach().double().cpu()
    unit = torch.nn.functional.normalize(states, dim=-1)
    ax = axes_for(ax, 4.6, 3.8)
    image = ax.imshow(numbers(unit @ unit.T), cmap=shades(VISUAL, paper(), STREAMS[0]), vmin=-1, vmax=1)
    ax.set_title(f"mean of different queries: {query_similarity(states).item():.2f}", fontsize=10)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
        axis.set_label_text("query")
    ax.figure.colorbar(image, ax=ax, label="cosine similarity")
    return ax

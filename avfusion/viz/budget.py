"""Cost against frame rate, window and queries."""

from collections.abc import Sequence
from typing import Any

from avfusion import Budget, ConnectorSize, LanguageModelSize, estimate_budget
from avfusion.errors import InvalidValueError
from avfusion.viz._canvas import MASKED, STREAMS, VISUAL, new_figure, only_left_and_bottom

_COLOURS = (VISUAL, *STREAMS)
_LINES = ("-", "--", ":", "-.")


def plot_budget(
    duration: float = 60.0,
    *,
    frame_rates: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0),
    window_frames: Sequence[int] = (5, 10, 20),
    num_queries: Sequence[int] = (32,),
    connector: ConnectorSize | None = None,
    language_model: LanguageModelSize | None = None,
    prompt_tokens: int = 0,
    figure: Any = None,
) -> Any:
    """Draws tokens, FLOPs and KV-cache size against the frame rate, by :func:`~avfusion.estimate_budget`.

    Colours are window lengths; line styles are numbers of queries.

    Args:
        duration: seconds of the clip.
        frame_rates: frames per second.
        window_frames: frames per window, without overlap.
        num_queries: queries per window.
        connector: all other sizes of the connector; the paper's by default.
        language_model: its sizes; Vicuna-7B's by default.
        prompt_tokens: text tokens in addition to the clip's embeddings.
        figure: figure or subfigure to draw on; a new one by default.

    Returns:
        The figure, with axes for embeddings, for FLOPs of connector and language model, and for the KV cache.

    Raises:
        InvalidValueError: an empty list; values that :func:`~avfusion.estimate_budget` does not take.

    Example:
        >>> from avfusion.viz import plot_budget
        >>> figure = plot_budget(30.0, frame_rates=[1.0, 2.0], window_frames=[10])
        >>> figure.axes[0].lines[0].get_ydata().tolist()
        [96, 192]
    """
    for name, values in (("frame_rates", frame_rates), ("window_frames", window_frames), ("num_queries", num_queries)):
        if not len(values):
            raise InvalidValueError(f"{name}: must hold at least one number, found none")
    figure = new_figure(10.5, 3.4) if figure is None else figure
    axes = figure.subplots(1, 3)
    sizes = ConnectorSize() if connector is None else connector
    for place, frames in enumerate(window_frames):
        for kind, queries in enumerate(num_queries):
            size = sizes._replace(window_frames=frames, num_queries=queries, stride_frames=None)
            costs = [
                estimate_budget(
                    duration,
                    frame_rate=rate,
                    connector=size,
                    language_model=language_model,
                    prompt_tokens=prompt_tokens,
                )
                for rate in frame_rates
            ]
            label = f"{frames} frames" + (f", {queries} queries" if len(num_queries) > 1 else "")
            style = {"color": _COLOURS[place % len(_COLOURS)], "linestyle": _LINES[kind % len(_LINES)], "label": label}
            for ax, values in zip(axes, _curves(costs), strict=True):
                ax.plot(list(frame_rates), values, marker="o", markersize=3.5, **style)
    minute = "a minute" if duration == 60 else f"{duration:g} s"
    for ax, title, unit in zip(
        axes,
        (f"embeddings for {minute}", "to embed and to read them", "in the language model's cache"),
        ("tokens", "TFLOP", "MiB"),
        strict=True,
    ):
        ax.set_title(title, fontsize=10)
        ax.set_ylabel(unit)
        ax.set_xlabel("frames a second")
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(frame_rates), [f"{rate:g}" for rate in frame_rates])
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        ax.grid(color=MASKED, alpha=0.25, linewidth=0.6)
        only_left_and_bottom(ax)
    axes[0].legend(title="windows of", frameon=False, fontsize=8, title_fontsize=8)
    return figure


def _curves(costs: list[Budget]) -> tuple[list[float], ...]:
    return (
        [cost.num_tokens for cost in costs],
        [(cost.connector_flops + cost.prefill_flops) / 1e12 for cost in costs],
        [cost.cache_bytes / 2**20 for cost in costs],
    )

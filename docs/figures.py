"""Draws the pictures of the pages, from the library's own functions: ``python docs/figures.py``.

The build of the site runs it, so that they cannot go stale. Each is made for light pages, ``NAME.svg``, and for dark
ones, ``NAME-dark.svg``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    Frames,
    FrameSynchroniser,
    SlidingWindowProjector,
    TokenStream,
)
from avfusion.functional import FrameCausalMask
from avfusion.viz import plot_budget, plot_mask, plot_slots, plot_streaming_state, plot_timeline, plot_windows

FOLDER = Path(__file__).parent / "_static" / "figures"
STYLES: dict[str, dict[str, Any]] = {
    "": {"figure.facecolor": "white", "axes.facecolor": "white"},
    "-dark": {
        **{f"{part}.facecolor": "#131416" for part in ("figure", "axes", "savefig")},
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), "#cfd0d0"),
    },
}
SHARED = {"svg.hashsalt": "avfusion", "svg.fonttype": "path", "font.size": 10}


def _figure(height: float) -> Figure:
    return Figure(figsize=(9, height), layout="constrained")


def synchronisation() -> Figure:
    """Two frames and twelve tokens a second; the sound begins a little before the pictures and outlasts them."""
    synchronise = FrameSynchroniser(visual_dim=1, stream_dims={"audio": 1}, slots=6)
    streams = {
        "visual": Frames.from_rate(torch.zeros(1, 6, 4, 1), frame_rate=2.0),
        "audio": TokenStream.from_rate(torch.zeros(1, 44, 1), rate=12.0, start=-0.15),
    }
    figure = _figure(4.0)
    above, below = figure.subplots(2, 1, height_ratios=[1, 1.4], sharex=True)
    plot_timeline(synchronise, streams, ax=above).set_xlabel("")
    plot_slots(synchronise, streams, ax=below)
    return figure


def windows() -> Figure:
    """Eleven frames in windows of four, beside each other and one each second frame."""
    frames = Frames.from_rate(torch.zeros(1, 11, 1, 1), frame_rate=2.0)
    figure = _figure(5.2)
    axes = figure.subplots(2, 1, height_ratios=[4, 6], sharex=True)
    for ax, stride in zip(axes, (4, 2), strict=True):
        plot_windows(frames, window_frames=4, stride_frames=stride, num_queries=4, ax=ax)
        ax.set_title(f"window_frames=4, stride_frames={stride}", fontsize=9, loc="left", family="monospace")
    axes[0].set_xlabel("")
    return figure


def mask() -> Figure:
    """Four frames of three tokens, of which the last lacks one."""
    real = torch.ones(12, dtype=torch.bool)
    real[11] = False
    return plot_mask(FrameCausalMask(num_frames=4, tokens_per_frame=3), real).figure


def streaming() -> Figure:
    """After 15 s of pictures and 14.2 s of sound, in windows of 5 s, one each 2.5 s."""
    qformer = CausalQFormer(input_dim=16, hidden_size=8, num_heads=2, num_queries=2, tokens_per_frame=6)
    connector = AudioVisualConnector(
        synchroniser=FrameSynchroniser(visual_dim=8, stream_dims={"audio": 8}, stream_rates={"audio": 12.0}, slots=6),
        projector=SlidingWindowProjector(window_encoder=qformer, window_frames=10, stride_frames=5, llm_dim=8),
    ).eval()
    state = connector.initial_state()
    pictures, sound = torch.zeros(1, 30, 6, 8), torch.zeros(1, 170, 8)
    for frame in range(30):
        chunk = {"visual": pictures[:, frame : frame + 1], "audio": sound[:, 6 * frame : 6 * frame + 6]}
        _, state = connector.step(chunk, state)
    return plot_streaming_state(connector, state, since=7.0).figure


def budget() -> Figure:
    """The published sizes, with other windows and queries."""
    return plot_budget(60.0, window_frames=(5, 10, 20), num_queries=(32, 12))


FIGURES: dict[str, Callable[[], Figure]] = {
    "synchronisation": synchronisation,
    "windows": windows,
    "mask": mask,
    "streaming": streaming,
    "budget": budget,
}


def draw(folder: Path = FOLDER) -> None:
    """Writes every figure for light and for dark pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for ending, style in STYLES.items():
        with mpl.rc_context({**SHARED, **style}), torch.no_grad():
            for name, make in FIGURES.items():
                make().savefig(folder / f"{name}{ending}.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw()

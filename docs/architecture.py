"""Draws the picture of the whole: ``python docs/architecture.py`` writes ``_static/architecture.svg``."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

TARGET = Path(__file__).parent / "_static" / "architecture.svg"
VISUAL, AUDIO, QUERY, TEXT, LINE = "#3d7ab8", "#e0782f", "#3f9c6b", "#8c929c", "#5b6270"


def _box(ax: Any, x: float, y: float, width: float, height: float, title: str, note: str = "", **style: Any) -> None:
    options = {"facecolor": "#f4f6f9", "edgecolor": LINE, "linewidth": 1.2, **style}
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=1.2", **options))
    ax.text(x + width / 2, y + height - 1.2, title, ha="center", va="top", fontsize=10, weight="bold", color="#20242b")
    ax.text(x + width / 2, y + 1.2, note, ha="center", va="bottom", fontsize=8, color=LINE, linespacing=1.35)


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
    options = {"arrowstyle": "-|>", "color": LINE, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0, **style}
    ax.annotate("", end, start, arrowprops=options)


def _film(ax: Any, x: float, y: float) -> None:
    for place in range(4):
        ax.add_patch(Rectangle((x + 2.1 * place, y), 1.8, 3.4, facecolor=VISUAL, alpha=0.35 + 0.18 * place))
    ax.text(x + 4.1, y - 1, "pictures", ha="center", va="top", fontsize=9)


def _wave(ax: Any, x: float, y: float) -> None:
    heights = [0.5, 1.3, 2.6, 1.7, 3.2, 2.2, 0.9, 1.8, 3.0, 1.4, 0.7, 1.9, 1.1, 0.4]
    for place, height in enumerate(heights):
        left = x + 0.6 * place
        ax.plot([left, left], [y - height / 2, y + height / 2], color=AUDIO, linewidth=1.8, solid_capstyle="round")
    ax.text(x + 4.0, y - 2.8, "sound", ha="center", va="top", fontsize=9)


def _slots(ax: Any, x: float, y: float) -> None:
    for frame in range(4):
        for slot in range(4):
            left, top = x + 3.3 * frame + 0.9 * (frame // 2), y - 1.15 * slot
            ax.add_patch(Rectangle((left, top), 1.4, 0.85, facecolor=VISUAL, alpha=0.85))
            ax.add_patch(Rectangle((left + 1.4, top), 1.4, 0.85, facecolor=AUDIO if slot < 3 else "#e3e6ea"))
    for window in range(2):
        left = x - 0.35 + 7.5 * window
        ax.add_patch(Rectangle((left, y - 4.0), 6.8, 5.4, fill=False, edgecolor=LINE, linestyle=":", linewidth=1.1))


def _row(ax: Any, x: float, y: float, colours: str, size: float = 0.75) -> None:
    kinds = {"q": QUERY, "t": TEXT}
    for place, kind in enumerate(colours):
        ax.add_patch(Circle((x + 1.9 * place, y), size, facecolor=kinds[kind], edgecolor="white", linewidth=0.6))


def draw() -> Figure:
    """The figure."""
    figure = Figure(figsize=(11, 4.5), facecolor="white")
    ax = figure.add_axes((0.005, 0.005, 0.99, 0.99))
    ax.set_xlim(0, 110)
    ax.set_ylim(0, 45)
    ax.axis("off")

    _film(ax, 1, 31)
    _wave(ax, 1.2, 13)
    frozen = {"facecolor": "#eef1f5", "edgecolor": TEXT}
    _box(ax, 13.5, 28, 14.5, 9.5, "visual encoder", "CLIP, DINO, ViT …\nframes of tokens", **frozen)
    _box(ax, 13.5, 8, 14.5, 9.5, "audio encoders", "Whisper, AST …\ntokens in time", **frozen)
    _arrow(ax, (10.5, 32.7), (13.2, 32.7))
    _arrow(ax, (10.5, 12.8), (13.2, 12.8))

    ax.add_patch(
        FancyBboxPatch(
            (32, 3.5),
            50,
            38,
            boxstyle="round,pad=0,rounding_size=1.6",
            facecolor="#fbfcfe",
            edgecolor=VISUAL,
            linewidth=1.2,
            linestyle="--",
        )
    )
    ax.text(57, 40.2, "AudioVisualConnector", ha="center", va="top", fontsize=10, color=VISUAL, weight="bold")
    _box(
        ax,
        33.5,
        11,
        19,
        23.5,
        "FrameSynchroniser",
        "each token into the frame\nduring which it sounds",
        facecolor="white",
    )
    _slots(ax, 36.1, 24)
    _arrow(ax, (28.3, 32.7), (33.2, 27.5))
    _arrow(ax, (28.3, 12.8), (33.2, 18))

    _box(ax, 59, 11, 21.5, 23.5, "SlidingWindowProjector", "", facecolor="white")
    _box(ax, 60.6, 19.5, 18.3, 10.5, "CausalQFormer", "each window: a few queries\nread it, causal by frame")
    _row(ax, 66.9, 24.8, "qqqq")
    _box(ax, 60.6, 12.6, 18.3, 4.6, "linear map", "")
    _arrow(ax, (52.8, 22.7), (58.7, 22.7))
    ax.text(55.7, 23.4, "windows", ha="center", va="bottom", fontsize=7.5, color=LINE)
    _arrow(ax, (69.75, 19.3), (69.75, 17.4))

    ax.text(69.75, 6.2, "DiversityLoss", ha="center", va="center", fontsize=9, color=QUERY, weight="bold")
    _arrow(ax, (69.75, 10.8), (69.75, 7.6), color=QUERY, linestyle="--")
    ax.text(62, 6.2, "keeps queries different", ha="right", va="center", fontsize=8, color=LINE)

    _box(ax, 87, 24, 20.5, 10.5, "language model", "any causal one of transformers,\nLoRA or whole")
    _row(ax, 88.7, 18.2, "ttqqqqqqtt")
    ax.text(
        97.2,
        15.2,
        "text, with embeddings of the clip\nat its placeholders, in time order",
        ha="center",
        va="top",
        fontsize=8,
        color=LINE,
    )
    _arrow(ax, (80.8, 14.9), (87.2, 17.7))
    _arrow(ax, (97.2, 19.5), (97.2, 23.7))
    _arrow(ax, (97.2, 34.8), (97.2, 38))
    ax.text(97.2, 39.8, "answer", ha="center", va="center", fontsize=9)
    return figure


if __name__ == "__main__":
    with mpl.rc_context({"svg.hashsalt": "avfusion", "svg.fonttype": "path", "text.color": "#20242b"}):
        draw().savefig(TARGET, metadata={"Date": None})

"""The picture: what was seen, what was heard, and which frames each query looked at."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from avfusion.media import Media, load_media
from avfusion.models import AudioVisualLanguageModel
from examples.tiny_avllm.data import SAMPLE_RATE, SCENE, TONES, read


@torch.no_grad()
def frames_of_queries(model: AudioVisualLanguageModel, media: Media) -> Tensor:
    """``(query, frame)``: how much each query of each window looks at each frame, over all layers and heads."""
    connector = model.connector
    frames = connector.synchronise(**model.encode(media.video, media.waveform))
    windows = connector.projector.cut(frames)
    maps = connector.projector.window_encoder.attention_maps(windows.tokens, windows.mask)
    looks = maps.mean((0, 2)).sum(-1)  # over layers and heads, then over a frame's tokens
    count, queries, length = looks.shape
    placed = looks.new_zeros(count, queries, count, length)
    placed[torch.arange(count), :, torch.arange(count)] = looks  # windows follow each other without overlap
    real = int(frames.frame_mask.sum())
    return placed.reshape(count * queries, count * length)[:, :real]


def draw(model: AudioVisualLanguageModel, path: Path, target: Path, lines: list[str]) -> None:
    """Draws a clip that has pictures and sound, with ``lines`` (questions and answers) below."""
    mpl.use("Agg")  # no screen is needed
    shown = load_media(path, frame_rate=1 / SCENE, require=("video", "audio"))
    looks = frames_of_queries(model, read(path))
    assert shown.video is not None  # both are required above
    assert shown.waveform is not None
    seconds = shown.duration
    figure, axes = plt.subplots(3, 1, figsize=(9, 6.2), height_ratios=[1, 1.6, 2.2], sharex=True, layout="constrained")
    _draw_frames(axes[0], shown.video.pixels[0])
    _draw_sound(axes[1], shown.waveform.samples[0])
    _draw_queries(axes[2], looks)
    axes[2].set_xlim(0, seconds)
    axes[2].set_xlabel("seconds")
    figure.text(0.01, -0.02, "\n".join(lines), va="top", family="monospace", fontsize=9)
    figure.savefig(target, dpi=130, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def _draw_frames(axis: Axes, pixels: Tensor) -> None:
    for place, picture in enumerate(pixels):
        edges = (place * SCENE + 0.02, (place + 1) * SCENE - 0.02)
        axis.imshow(picture.permute(1, 2, 0).numpy(), extent=(*edges, 0, 1), aspect="auto")
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.set_ylabel("seen")
    axis.spines[:].set_visible(False)


def _draw_sound(axis: Axes, samples: Tensor) -> None:
    axis.specgram((samples + 1e-6).numpy(), NFFT=1024, noverlap=768, Fs=SAMPLE_RATE, cmap="magma", vmin=-120, vmax=-30)
    axis.set_yscale("log")
    axis.set_ylim(170, 3300)
    axis.set_yticks([*TONES.values()], [f"{name} {pitch:.0f} Hz" for name, pitch in TONES.items()], fontsize=7)
    axis.minorticks_off()
    axis.set_ylabel("heard")


def _draw_queries(axis: Axes, looks: Tensor) -> None:
    queries, frames = looks.shape
    axis.imshow(looks.numpy(), extent=(0, frames * SCENE, queries, 0), aspect="auto", cmap="Blues", vmin=0, vmax=1)
    for place in range(1, frames):
        axis.axvline(place * SCENE, color="0.85", linewidth=0.8)
    axis.set_yticks([place + 0.5 for place in range(queries)], [f"{place + 1}" for place in range(queries)])
    axis.set_ylabel("embedding")
    axis.set_title("which frame the query of each embedding looks at", fontsize=10, loc="left")

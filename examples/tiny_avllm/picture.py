"""The picture: what was seen, what was heard, and which frames each query looked at."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from avfusion.media import Media, load_media
from avfusion.models import AudioVisualLanguageModel
from avfusion.viz import plot_attention
from examples.tiny_avllm.data import SAMPLE_RATE, SCENE, TONES, read


@torch.no_grad()
def attention_of_queries(model: AudioVisualLanguageModel, media: Media) -> tuple[Tensor, Tensor]:
    """Where each query of each window looks, over the tokens of its frames; and the seconds of the clip's frames."""
    connector = model.connector
    frames = connector.synchronise(**model.encode(media.video, media.waveform))
    windows = connector.projector.cut(frames)
    maps = connector.projector.window_encoder.attention_maps(windows.tokens, windows.mask)
    return maps, frames.spans[0, frames.frame_mask[0]]


def draw(model: AudioVisualLanguageModel, path: Path, target: Path, lines: list[str]) -> None:
    """Draws a clip that has pictures and sound, with ``lines`` (questions and answers) below."""
    mpl.use("Agg")  # no screen is needed
    shown = load_media(path, frame_rate=1 / SCENE, require=("video", "audio"))
    maps, spans = attention_of_queries(model, read(path))
    assert shown.video is not None  # both are required above
    assert shown.waveform is not None
    seconds = shown.duration
    figure, axes = plt.subplots(3, 1, figsize=(9, 6.2), height_ratios=[1, 1.6, 2.2], sharex=True, layout="constrained")
    _draw_frames(axes[0], shown.video.pixels[0])
    _draw_sound(axes[1], shown.waveform.samples[0])
    plot_attention(maps, spans=spans, ax=axes[2])
    axes[2].set_title("which frame the query of each embedding looks at", fontsize=10, loc="left")
    axes[2].set_xlim(0, seconds)
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

"""A synchronised clip: video, audio, and the slots of its frames."""

from typing import Any

import torch

from avfusion.errors import InvalidValueError
from avfusion.modules import FrameSynchroniser
from avfusion.types import Video, Waveform
from avfusion.viz._canvas import (
    STREAMS,
    check_row,
    new_figure,
    numbers,
    only_left_and_bottom,
)
from avfusion.viz._layout import Streams, lay_out
from avfusion.viz.slots import draw_slots


def plot_clip(
    synchroniser: FrameSynchroniser,
    streams: Streams,
    *,
    video: Video | None = None,
    waveform: Waveform | None = None,
    clip: int = 0,
    figure: Any = None,
) -> Any:
    """Draws a clip's video frames, its audio, and the slots of its frames on one time axis.

    Each box is a slot of a frame. It has a part for each stream, which is filled if the stream has a token there.

    Args:
        synchroniser: assigns the tokens to frames.
        streams: its input by name: ``"visual"`` frames, and token streams.
        video: the frames ``(batch, frame, 3, height, width)``.
        waveform: the audio ``(batch, sample)``.
        clip: row of the batch.
        figure: figure or subfigure to draw on; a new one by default.

    Returns:
        The figure, with axes for video, audio and slots, as far as they are given.

    Raises:
        InvalidValueError: no such clip, unknown streams, or media of another number of clips.

    Example:
        >>> import torch
        >>> from avfusion import Frames, FrameSynchroniser, TokenStream, Video, Waveform
        >>> from avfusion.viz import plot_clip
        >>> synchronise = FrameSynchroniser(visual_dim=8, stream_dims={"audio": 8}, slots=6)
        >>> pictures = Frames.from_rate(torch.randn(1, 4, 6, 8), frame_rate=2.0)
        >>> audio = TokenStream.from_rate(torch.randn(1, 24, 8), rate=12.0)
        >>> figure = plot_clip(
        ...     synchronise,
        ...     {"visual": pictures, "audio": audio},
        ...     video=Video.from_rate(torch.rand(1, 4, 3, 8, 8), frame_rate=2.0),
        ...     waveform=Waveform.from_samples(torch.randn(1, 16000), sample_rate=8000),
        ... )
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['seen', 'heard', 'slot']
    """
    layout = lay_out(synchroniser, streams)
    batch = len(layout.grid.mask)
    check_row(clip, batch, "clip")
    for name, value in (("video", video), ("waveform", waveform)):
        if value is not None and len(value.mask) != batch:
            raise InvalidValueError(f"{name}: must be of {batch} clips, found {len(value.mask)}")
    heights = [1.0] * (video is not None) + [0.9] * (waveform is not None) + [2.2]
    figure = new_figure(9, 0.5 + 1.1 * sum(heights)) if figure is None else figure
    axes = list(figure.subplots(len(heights), 1, height_ratios=heights, sharex=True, squeeze=False)[:, 0])
    if video is not None:
        _draw_pictures(axes[0], video, clip)
    if waveform is not None:
        _draw_sound(axes[-2], waveform, clip)
    draw_slots(axes[-1], layout, clip)
    return figure


def _draw_pictures(ax: Any, video: Video, clip: int) -> None:
    for frame in video.mask[clip].nonzero().flatten().tolist():
        start, end = video.spans[clip, frame].clamp(-1e6, 1e6).tolist()
        gap = 0.02 * (end - start)
        picture = video.pixels[clip, frame].permute(1, 2, 0).cpu()
        picture = picture if picture.dtype == torch.uint8 else picture.float().clamp(0, 1)
        ax.imshow(picture.numpy(), extent=(start + gap, end - gap, 0, 1), aspect="auto")
    ax.set_ylim(0, 1)
    ax.set_yticks([])
    ax.set_ylabel("seen")
    ax.spines[:].set_visible(False)
    ax.tick_params(axis="x", length=0)


def _draw_sound(ax: Any, waveform: Waveform, clip: int) -> None:
    samples = waveform.samples[clip, : int(waveform.lengths[clip])].detach().float().cpu()
    step = max(1, -(-len(samples) // 2000))  # at most 2000 points: the range of each interval
    start = waveform.start[clip].item()
    if len(samples):
        padded = torch.nn.functional.pad(samples, (0, -len(samples) % step), value=float(samples[-1]))
        pieces = padded.unflatten(0, (-1, step))
        times = start + (torch.arange(len(pieces), dtype=torch.float64) + 0.5) * step / waveform.sample_rate
        low, high = (numbers(value) for value in (pieces.amin(1), pieces.amax(1)))
        ax.fill_between(numbers(times), low, high, color=STREAMS[0], linewidth=0.6)
    ax.set_yticks([])
    ax.set_ylabel("heard")
    ax.spines[["left"]].set_visible(False)
    only_left_and_bottom(ax)

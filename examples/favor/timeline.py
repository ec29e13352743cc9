"""Which moments each embedding of a clip was made from, as numbers and as a picture."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from avfusion import InvalidValueError, Video, Waveform
from avfusion.models import Clip
from examples.favor.connector import active_connector
from examples.favor.streams import feature_names, media_inputs

# A slot holds what was seen and what was heard side by side. Attention to such a slot is to both: it is not split.
KINDS = ("seen", "both", "heard")
COLOURS = {"seen": "#2a78d6", "both": "#4a3aa7", "heard": "#eb6834"}


class Timeline(NamedTuple):
    """What the queries of one clip attended to.

    Attributes:
        spans: ``(frame, 2)`` seconds.
        attention: ``(embedding, frame)``: mean over layers and heads; a row sums to one.
        windows: ``(embedding,)``: the window of each embedding.
        window_spans: ``(embedding, 2)`` seconds: the stretch that its window covers.
        kinds: ``(frame, kind)``: the attention to a frame's slots that hold pictures only, both, and sound only,
            mean over the embeddings whose window holds the frame.
    """

    spans: Tensor
    attention: Tensor
    windows: Tensor
    window_spans: Tensor
    kinds: Tensor


@torch.no_grad()
def attention_timeline(model: Any, inputs: Mapping[str, Tensor]) -> Timeline:
    """The timeline of one clip.

    With two resolutions it is that of the whole windows' queries.

    Args:
        model: FAVOR, adapted or not.
        inputs: of one conversation with media, as the processor makes them.

    Raises:
        InvalidValueError: inputs without media or of several clips, or a model without windows of both streams.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    connector: Any = active_connector(model) if hasattr(model, "connector") else None
    if not hasattr(getattr(connector, "projector", None), "cut") or not hasattr(connector, "synchroniser"):
        raise InvalidValueError("model: must join pictures and sound in windows to have a timeline, this one does not")
    given = {name: value for name, value in inputs.items() if name in {*media_inputs(), *feature_names()}}
    clips = {len(value) for value in given.values()}
    if clips != {1}:
        raise InvalidValueError(f"inputs: must hold one clip, found {max(clips, default=0)}")
    features = given if set(given) <= set(feature_names()) else model.encode(**given)
    frames = connector.synchronise(**model.media_streams(**features))  # the very frames that the projector gets
    projector = connector.projector
    windows = projector.cut(frames)
    maps = projector.window_encoder.attention_maps(windows.tokens, windows.mask).float().mean((0, 2))
    count, queries, length = maps.shape[:3]
    stride = getattr(projector, "stride_frames", None) or length
    total = (count - 1) * stride + length
    held = _held(windows.tokens, connector.synchroniser.dims)
    sums = torch.einsum("wqft,wftk->wfk", maps, held.to(maps)) / queries
    looks, kinds, seen = maps.new_zeros(count, queries, total), maps.new_zeros(total, 3), maps.new_zeros(total, 1)
    for number in range(count):
        place = slice(number * stride, number * stride + length)
        looks[number, :, place] = maps[number].sum(-1)
        kinds[place] += sums[number]
        seen[place] += 1
    real = int(frames.frame_mask[0].sum())
    spans = windows.spans[0].repeat_interleave(queries, 0)
    return Timeline(
        spans=_finite(frames.spans[0, :real]).cpu(),
        attention=looks.flatten(0, 1)[:, :real].cpu(),
        windows=torch.arange(count).repeat_interleave(queries),
        window_spans=_finite(spans).cpu(),
        kinds=(kinds / seen.clamp(min=1))[:real].cpu(),
    )


def _held(tokens: Tensor, dims: Mapping[str, int]) -> Tensor:
    """``(window, frame, slot, kind)``: what each slot holds. A stream's part of an empty slot is zero."""
    parts = dict(zip(dims, tokens.split(list(dims.values()), -1), strict=True))
    nothing = torch.zeros_like(tokens[..., 0], dtype=torch.bool)
    seen = (parts["visual"] != 0).any(-1) if "visual" in parts else nothing
    heard = torch.stack([nothing, *((part != 0).any(-1) for name, part in parts.items() if name != "visual")]).any(0)
    return torch.stack([seen & ~heard, seen & heard, heard & ~seen], -1)


def _finite(spans: Tensor) -> Tensor:
    """A still image without sound has no length: it is shown as one second."""
    start = spans[:, 0].nan_to_num(neginf=0.0)
    return torch.stack([start, torch.where(spans[:, 1].isfinite(), spans[:, 1], start + 1)], -1)


def draw_timeline(timeline: Timeline, clip: Clip, *, width: float = 9.0) -> Figure:
    """The clip over time, and below it what each embedding attended to.

    Args:
        timeline: of the clip.
        clip: as the processor loads it.
        width: of the picture, in inches.
    """
    spans = timeline.spans
    edges = [*spans[:, 0].tolist(), float(spans[-1, 1])]
    seen = clip.video is not None and bool(clip.video.mask.any())
    heard = clip.waveform is not None and bool(clip.waveform.mask.any())
    rows = [*(["seen"] if seen else []), *(["heard"] if heard else []), "attention", "kinds"]
    heights = {"seen": 0.9, "heard": 0.6, "attention": 2.4, "kinds": 0.9}
    total = sum(heights[row] for row in rows) + 0.9
    figure = Figure(figsize=(width, total), layout="constrained")
    grid = figure.subplots(
        len(rows), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [heights[row] for row in rows]}
    )
    axes = dict(zip(rows, grid[:, 0], strict=True))
    if clip.video is not None and seen:
        _draw_pictures(axes["seen"], clip.video, edges, width)
    if clip.waveform is not None and heard:
        _draw_sound(axes["heard"], clip.waveform)
    _draw_attention(axes["attention"], timeline, edges)
    _draw_kinds(axes["kinds"], timeline, edges)
    last = axes["kinds"]
    last.set_xlim(edges[0], edges[-1])
    last.set_xlabel("seconds")
    if not heard and len(spans) == 1:  # a picture has no time
        last.set_xticks([])
        last.set_xlabel("")
    return figure


def _draw_pictures(axis: Axes, video: Video, edges: list[float], width: float) -> None:
    pixels, spans = video.pixels[video.mask], _finite(video.spans[video.mask])
    if not pixels.is_floating_point():
        pixels = pixels / 255
    if len(pixels) == 1:
        spans = torch.tensor([[edges[0], edges[-1]]])
    most = max(1, round(width * 1.1))  # so many are told apart at this width
    low, high = float(spans[0, 0]), float(spans[-1, 1])
    count = min(most, len(pixels))
    chosen = ((np.arange(count) + 0.5) * len(pixels) / count).astype(int)
    for number, place in enumerate(chosen):
        start, end = (low + (high - low) * at / len(chosen) for at in (number, number + 1))
        picture = pixels[place].float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()
        axis.imshow(picture, extent=(start, end, 0, 1), aspect="auto")
        axis.axvline(start, color="white", linewidth=1.5)
    axis.set_ylim(0, 1)
    _bare(axis, "seen")


def _draw_sound(axis: Axes, waveform: Waveform) -> None:
    samples = waveform.samples[waveform.mask].float().cpu().numpy()
    bins = np.array_split(samples, min(600, len(samples)))
    start = float(waveform.start[0])
    times = start + np.linspace(0, len(samples) / waveform.sample_rate, len(bins))
    low, high = [part.min() for part in bins], [part.max() for part in bins]
    axis.fill_between(times, low, high, color="0.35", linewidth=0.4)
    loudest = max(1e-3, float(np.abs(samples).max()))
    axis.set_ylim(-1.1 * loudest, 1.1 * loudest)
    _bare(axis, "heard")


def _draw_attention(axis: Axes, timeline: Timeline, edges: list[float]) -> None:
    looks = timeline.attention.numpy()
    borders = np.arange(len(looks) + 1)
    mesh = axis.pcolormesh(edges, borders, looks, cmap="Blues", vmin=0, vmax=max(1e-6, float(looks.max())))
    axis.set_ylim(len(looks), 0)
    for place in np.flatnonzero(np.diff(timeline.windows.numpy())) + 1:
        axis.axhline(float(place), color="0.8", linewidth=0.8)
    axis.set_ylabel("embedding")
    axis.set_title("attention of each embedding's query to each frame", fontsize=9, loc="left")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar = axis.figure.colorbar(mesh, ax=axis, fraction=0.03, pad=0.01)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _draw_kinds(axis: Axes, timeline: Timeline, edges: list[float]) -> None:
    names = {"seen": "only seen", "both": "seen and heard", "heard": "only heard"}
    below = np.zeros(len(timeline.kinds))
    for place, kind in enumerate(KINDS):
        values = timeline.kinds[:, place].numpy()
        if values.any():
            axis.bar(
                edges[:-1], values, np.diff(edges), below, align="edge", color=COLOURS[kind], label=names[kind],
                edgecolor="white", linewidth=0.5,
            )  # fmt: skip
        below = below + values
    axis.set_title("the same by what the attended slots hold, mean over the window's queries", fontsize=9, loc="left")
    axis.set_ylim(0, max(1e-6, 1.1 * float(below.max())))
    axis.legend(fontsize=8, frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.28), borderaxespad=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def _bare(axis: Axes, name: str) -> None:
    axis.set_yticks([])
    axis.set_ylabel(name)
    axis.spines[:].set_visible(False)
    axis.tick_params(bottom=False)

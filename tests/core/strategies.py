"""Batches of clips as Python lists, and the same clips as padded tensors with rubbish in the padding."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from avfusion import Frames, TokenStream

RUBBISH = (float("nan"), float("inf"), -float("inf"), 1e30)

rates = st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.3, 25.0, 29.97, 50.0, 100.0]) | st.floats(0.3, 120.0)
frame_rates = st.sampled_from([0.5, 1.0, 2.0, 3.0, 10.0, 25.0, 29.97, 100.0]) | st.floats(0.4, 60.0)
offsets = st.sampled_from([0.0, -0.25, 0.3, 1.0]) | st.floats(-2.0, 2.0)


class Clip(NamedTuple):
    """One clip: frames as ``(start, end)`` and, for each stream, the centres of its tokens; all in seconds."""

    spans: list[tuple[float, float]]
    streams: dict[str, list[float]]


def grid_spans(count: int, rate: float, start: float = 0.0) -> list[tuple[float, float]]:
    return [(start + k / rate, start + (k + 1) / rate) for k in range(count)]


def centres(count: int, rate: float, start: float = 0.0) -> list[float]:
    return [start + (k + 0.5) / rate for k in range(count)]


@st.composite
def video_spans(draw: st.DrawFn) -> list[tuple[float, float]]:
    """No video, a regular one, one of variable frame rate, or one whose last picture is held."""
    kind = draw(st.sampled_from(["none", "regular", "variable", "held", "image"]))
    if kind == "none":
        return []
    if kind == "image":
        return [(-torch.inf, torch.inf)]
    if kind == "regular":
        return grid_spans(draw(st.integers(1, 6)), draw(frame_rates), draw(offsets))
    times = [draw(offsets)]
    for gap in draw(st.lists(st.floats(0.01, 0.7), min_size=1, max_size=6)):
        times.append(times[-1] + gap)
    spans = list(pairwise(times))
    return [*spans, (times[-1], torch.inf)] if kind == "held" else spans


@st.composite
def token_centres(draw: st.DrawFn) -> list[float]:
    """Nothing, evenly spaced tokens, or tokens at any times, several at once included."""
    kind = draw(st.sampled_from(["none", "regular", "regular", "irregular"]))
    if kind == "none":
        return []
    if kind == "regular":
        return centres(draw(st.integers(1, 12)), draw(rates), draw(offsets))
    return sorted(draw(st.lists(st.floats(-2.0, 4.0) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=12)))


def clips(names: Sequence[str] = ("audio", "speech")) -> st.SearchStrategy[Clip]:
    streams = st.fixed_dictionaries({name: token_centres() for name in names})
    return st.builds(Clip, spans=video_spans(), streams=streams)


def scattered_mask(draw: st.DrawFn, length: int, width: int) -> list[int]:
    """``length`` places among ``width``: at the left, at the right, or anywhere."""
    return sorted(draw(st.permutations(range(width)))[:length])


def rubbish(shape: Sequence[int], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    pick = torch.randint(len(RUBBISH), tuple(shape), generator=torch.Generator().manual_seed(seed))
    return torch.tensor(RUBBISH, dtype=dtype)[pick]


def token_values(clip: int, name: str, index: int, dim: int) -> Tensor:
    """What token ``index`` of a stream of a clip is: the same numbers in every layout."""
    seed = hash((clip, sum(map(ord, name)), index)) % 2**31
    return torch.rand(dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1.0


def pad_stream(batch: Sequence[Clip], name: str, dim: int, draw: st.DrawFn, first: int = 0) -> TokenStream:
    times = [clip.streams[name] for clip in batch]
    width = max(map(len, times)) + draw(st.integers(0, 3))
    tokens = rubbish((len(batch), width, dim), draw(st.integers(0, 9)))
    stamps = rubbish((len(batch), width), draw(st.integers(0, 9)))
    mask = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, clip in enumerate(times):
        for index, place in enumerate(scattered_mask(draw, len(clip), width)):
            tokens[row, place] = token_values(first + row, name, index, dim)
            stamps[row, place] = clip[index]
            mask[row, place] = True
    return TokenStream(tokens, mask, stamps)


def pad_frames(batch: Sequence[Clip], token: int, dim: int, draw: st.DrawFn, first: int = 0) -> Frames:
    width = max(len(clip.spans) for clip in batch) + draw(st.integers(0, 2))
    tokens = rubbish((len(batch), width, token, dim), draw(st.integers(0, 9)))
    spans = rubbish((len(batch), width, 2), draw(st.integers(0, 9)))
    mask = torch.zeros(len(batch), width, token, dtype=torch.bool)
    for row, clip in enumerate(batch):
        for index, place in enumerate(scattered_mask(draw, len(clip.spans), width)):
            tokens[row, place] = token_values(first + row, "visual", index, token * dim).view(token, dim)
            spans[row, place] = torch.tensor(clip.spans[index], dtype=torch.float64)
            mask[row, place] = True
    return Frames(tokens, mask, spans)

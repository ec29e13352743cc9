"""Windows that a step has computed, and their places in its output."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from avfusion.functional.window_batches import WindowRows
from avfusion.functional.windows import spread_over_positions
from avfusion.modules.projector.frame_buffer import FrameBuffer
from avfusion.types import LLMEmbeddings


class ComputedWindows(NamedTuple):
    """Encoded windows of several clips.

    Attributes:
        clips: the clip of each.
        windows: its number in the clip.
        states: ``(window, query, hidden)``.
        embeddings: ``(window, query, llm_dim)``.
        spans: ``(window, 2)`` seconds; zero without real frames.
        mask: ``(window,)`` bool: windows with real frames.
    """

    clips: Sequence[int]
    windows: Sequence[int]
    states: Tensor
    embeddings: Tensor
    spans: Tensor
    mask: Tensor


def no_windows(buffer: FrameBuffer, like: Tensor, queries: int, width: int, llm_dim: int) -> ComputedWindows:
    """No windows, in the dtype of the frames of ``buffer``, or in that of ``like`` before there are any."""
    like = buffer.tokens if buffer.tokens.shape[2] else like
    states, embeddings = like.new_zeros(0, queries, width), like.new_zeros(0, queries, llm_dim)
    spans = buffer.spans.new_zeros(0, 2)
    return ComputedWindows([], [], states, embeddings, spans, spans.new_zeros(0, dtype=torch.bool))


def collect_windows(
    computed: Sequence[ComputedWindows], wanted: Sequence[range], count: int, nothing: ComputedWindows
) -> LLMEmbeddings:
    """Embeddings of the wanted windows of each clip, first windows first; missing ones are masked.

    Args:
        computed: windows, including the wanted ones.
        wanted: numbers of windows, for each clip.
        count: windows that each clip has room for.
        nothing: no windows, of the right dtypes and widths.
    """
    rows = [WindowRows(len(wanted) * count) for _ in range(4)]
    places = [
        [place for place, window in enumerate(part.windows) if window in wanted[part.clips[place]]] for part in computed
    ]
    some = [(part, chosen) for part, chosen in zip(computed, places, strict=True) if chosen]
    for part, chosen in some or [(nothing, [])]:
        targets = [part.clips[at] * count + part.windows[at] - wanted[part.clips[at]].start for at in chosen]
        target = torch.tensor(targets, dtype=torch.int64, device="cpu")
        index = torch.tensor(chosen, dtype=torch.int64, device=part.states.device)
        for to, values in zip(rows, (part.states, part.embeddings, part.spans, part.mask), strict=True):
            to.put(target, values.index_select(0, index))
    states, embeddings, spans, mask = (each.collect() for each in rows)
    spans, mask = (value.unflatten(0, (len(wanted), count)) for value in (spans, mask))
    queries = states.shape[1]
    return LLMEmbeddings(
        embeddings=embeddings.reshape(len(wanted), count * queries, embeddings.shape[2]),
        mask=spread_over_positions(mask, queries),
        spans=spread_over_positions(spans, queries),
        query_states=states,
    )

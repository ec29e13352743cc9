"""What a step has computed of windows, put where it belongs."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avfusion.functional.windows import spread_over_positions
from avfusion.modules.real_windows import WindowRows
from avfusion.modules.streaming.at_hand import FramesAtHand
from avfusion.types import LLMEmbeddings

if TYPE_CHECKING:
    from avfusion.modules.sliding_window_projector import SlidingWindowProjector


class WindowOutputs:
    """Windows of each clip, put where they belong."""

    def __init__(self, projector: "SlidingWindowProjector", batch: int, count: int, at_hand: FramesAtHand) -> None:
        self._shape, self._projector, self._at_hand = (batch, count), projector, at_hand
        self._states, self._embeddings, self._spans = (WindowRows(batch * count) for _ in range(3))
        self._some = False

    def put(self, clips: list[int], places: list[int], states: Tensor, embeddings: Tensor, spans: Tensor) -> None:
        """Windows, by their clip and their place among its."""
        rows = [clip * self._shape[1] + place for clip, place in zip(clips, places, strict=True)]
        index = torch.tensor(rows, dtype=torch.int64, device=states.device)
        self._some = True
        self._states.put(index, states)
        self._embeddings.put(index, embeddings)
        self._spans.put(index, spans)

    def collect(self) -> LLMEmbeddings:
        """All of them; masked where nothing was put."""
        (batch, count), projector = self._shape, self._projector
        queries, like = projector.num_queries, self._at_hand
        if self._some:
            states, embeddings, spans = (part.collect() for part in (self._states, self._embeddings, self._spans))
        else:
            tokens = projector.proj.weight if not like.tokens.shape[0] else like.tokens
            states = tokens.new_zeros(batch * count, queries, projector.states_dim)
            embeddings = tokens.new_zeros(batch * count, queries, projector.llm_dim)
            spans = like.spans.new_zeros(batch * count, 2)
        spans = spans.unflatten(0, (batch, count))
        return LLMEmbeddings(
            embeddings=embeddings.reshape(batch, count * queries, projector.llm_dim),
            mask=spread_over_positions(spans[..., 1] > spans[..., 0], queries),
            spans=spread_over_positions(spans, queries),
            query_states=states,
        )

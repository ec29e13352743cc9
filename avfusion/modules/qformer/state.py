"""The state of windows that a causal Q-Former gets frame by frame.

What a frame contributes does not depend on later frames, so each layer's keys and values, for the causal attention and
for the queries, are computed once and cached.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Int
from avfusion.functional.ragged import places_to_keep
from avfusion.modules.attention.multi_head_attention import KeyValues


class LayerCache(NamedTuple):
    """A layer's keys and values of the tokens so far.

    Attributes:
        causal: of the causal attention, ``input_dim`` wide; of no tokens in a layer without one.
        cross: of the queries' attention to the tokens, ``hidden`` wide.
    """

    causal: KeyValues
    cross: KeyValues

    def select(self, places: Int[Tensor, "row kept"]) -> "LayerCache":
        """The keys and values of some tokens of each row."""
        return LayerCache(*(KeyValues(*(_select(value, places) for value in cached)) for cached in self))


class CausalQFormerState(NamedTuple):
    """Windows that are not complete yet, one a row.

    Attributes:
        layers: each layer's cache.
        mask: ``(row, token)`` bool: which cached tokens are real.
        num_frames: ``(row,)`` int64: frames so far.
    """

    layers: tuple[LayerCache, ...]
    mask: Bool[Tensor, "row token"]
    num_frames: Int[Tensor, " row"]

    def without_padding(self) -> "CausalQFormerState":
        """The state with each row's real tokens first, and as many places as some row needs."""
        places = places_to_keep(self.mask)
        if places is None:
            return self
        layers = tuple(cache.select(places) for cache in self.layers)
        return self._replace(layers=layers, mask=self.mask.gather(1, places))


def empty_state(rows: int, num_layers: int, input_dim: int, hidden_size: int, like: Tensor) -> CausalQFormerState:
    """Windows without frames.

    Args:
        rows: windows.
        num_layers: layers of the module.
        input_dim: width of the windows' tokens.
        hidden_size: width of the queries.
        like: a tensor of the module's dtype and device.
    """

    def empty(width: int) -> KeyValues:
        return KeyValues(like.new_zeros(rows, 0, width), like.new_zeros(rows, 0, width))

    layers = tuple(LayerCache(empty(input_dim), empty(hidden_size)) for _ in range(num_layers))
    num_frames = torch.zeros(rows, dtype=torch.int64, device=like.device)
    return CausalQFormerState(layers, num_frames.new_zeros(rows, 0, dtype=torch.bool), num_frames)


def _select(value: Tensor, places: Tensor) -> Tensor:
    if not value.shape[1]:
        return value
    return value.gather(1, places[..., None].expand(-1, -1, value.shape[2]))

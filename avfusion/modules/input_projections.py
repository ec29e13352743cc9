"""Linear maps from the encoders' widths to the synchroniser's."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from avfusion.errors import InvalidValueError
from avfusion.functional.stream_table import VISUAL
from avfusion.types import Frames, TokenStream

T = TypeVar("T", Frames, TokenStream, Frames | TokenStream, Frames | TokenStream | Tensor)


class InputProjections(nn.ModuleDict):
    """A map for each stream that needs one.

    Args:
        input_dims: width of the encoder's tokens, by stream.
        dims: width that the synchroniser takes, by stream.
    """

    def __init__(self, input_dims: Mapping[str, int], dims: Mapping[str, int]) -> None:
        super().__init__({name: nn.Linear(width, dims[name]) for name, width in input_dims.items()})
        self.input_dims = dict(input_dims)

    def forward(self, given: Mapping[str, Frames | TokenStream]) -> dict[str, Frames | TokenStream]:
        """The streams of whole clips, mapped; an absent one is empty, so that its map stays in the graph."""
        mapped = dict(given)
        if mapped:
            like = next(iter(mapped.values())).tokens
            for name in self:
                if name not in mapped:
                    mapped[name] = self._empty(name, like)
        return {name: self.project(name, value) for name, value in mapped.items()}

    def project(self, name: str, value: T) -> T:
        """A stream, or a part of one, mapped; as it is, if it has no map."""
        if name not in self:
            return value
        tokens, width = value if isinstance(value, Tensor) else value.tokens, self.input_dims[name]
        if tokens.shape[-1] != width:
            raise InvalidValueError(f"{name}: must have width {width}, found {tokens.shape[-1]}")
        if isinstance(value, Tensor):
            return self[name](value)
        # Masked places are cleared first: NaN there would reach the map's gradient.
        return value._replace(tokens=self[name](torch.where(value.mask[..., None], tokens, 0)))

    def _empty(self, name: str, like: Tensor) -> Frames | TokenStream:
        batch, width = like.shape[0], self.input_dims[name]
        if name == VISUAL:
            return Frames.empty(batch, 1, width, dtype=like.dtype, device=like.device)
        return TokenStream.empty(batch, width, dtype=like.dtype, device=like.device)

r"""A window's embedded tokens, in the factors that let their linear maps share work.

The causal attention of every layer starts from the tokens :math:`x = g \odot u + o`: :math:`u` is normalised without
gain and bias and depends on the frame alone; :math:`o`, the sum of the bias and the position embedding, is the same in
all windows. A linear map of them is

.. math:: W x + b = (W g) u + (W o + b)

Its second part is computed once for all windows. The first is computed once for each frame, however many windows hold
it; and where the frames want no gradients, as those of frozen encoders do not, no gradient with respect to :math:`x`, a
third of the map's training cost, is ever formed.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class FactoredTokens(NamedTuple):
    """Tokens in factors.

    Attributes:
        unit: ``(window, token, dim)`` or, with :attr:`frame_index`, ``(row, token of a frame, dim)``: normalised.
        gain: ``(dim,)``.
        offset: ``(token, dim)``, of the tokens of a window.
        frame_index: ``(window, frame)`` int64: rows of each window's frames; ``None`` if each has its own.
    """

    unit: Tensor
    gain: Tensor
    offset: Tensor
    frame_index: Tensor | None

    def embedded(self) -> Tensor:
        """The tokens themselves, ``(window, token, dim)``."""
        return torch.addcmul(self.offset, self._of_windows(self.unit), self.gain)

    def through(self, projection: nn.Linear) -> Tensor:
        """``projection(embedded())``, within rounding: ``(window, token, out)``."""
        by_frame = functional.linear(self.unit, projection.weight * self.gain)
        # In place, because a pass over fresh memory costs a few percent of the product.
        return self._of_windows(by_frame).add_(functional.linear(self.offset, projection.weight, projection.bias))

    def _of_windows(self, by_frame: Tensor) -> Tensor:
        if self.frame_index is None:
            return by_frame
        rows = by_frame.index_select(0, self.frame_index.flatten())
        return rows.unflatten(0, tuple(self.frame_index.shape)).flatten(1, 2)


def factoring_pays(tokens: Tensor, windows: int, frame_index: Tensor | None, *, wants_gradients: bool) -> bool:
    """Whether the shared part, which costs what a window does, and in training three times that, is won back.

    On other devices than a CPU, the additional kernels cost more than the saved products unless windows share frames.

    Args:
        tokens: what is to be normalised.
        windows: how many there are.
        frame_index: rows of frames that windows share.
        wants_gradients: of the parameters.
    """
    if torch.compiler.is_compiling():  # one graph for all numbers of windows
        return False
    if frame_index is not None:
        return tokens.shape[0] + frame_index.shape[1] < 0.9 * frame_index.numel()
    return tokens.device.type == "cpu" and wants_gradients and not tokens.requires_grad and windows >= 6

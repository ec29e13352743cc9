"""The diversity loss."""

from typing import Literal

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.functional.diversity import mean_over_windows, query_similarity
from avfusion.modules.component import Component


class DiversityLoss(Component):
    r"""Keeps the queries of a window from saying the same thing (FAVOR, section 3.3).

    .. math:: L = \frac{\lambda}{W} \sum_w \frac{1}{Q(Q-1)} \sum_{i \ne j} \cos(q_{w,i}, q_{w,j})

    Computed in float32 at least; finite, with finite gradients, for zero vectors, for one query and in half precision.
    Too large a weight makes a language model hear words that nobody said.

    Args:
        weight: λ, at least 0.
        reduction: ``"mean"`` over real windows, or ``"none"``: one value a window, zero for masked ones.

    Raises:
        InvalidValueError: a negative weight or an unknown reduction.

    Example:
        >>> import torch
        >>> from avfusion import DiversityLoss
        >>> loss = DiversityLoss(weight=0.01)
        >>> loss(torch.ones(2, 4, 8), torch.tensor([True, False]))
        tensor(0.0100)
    """

    def __init__(self, *, weight: float = 0.01, reduction: Literal["mean", "none"] = "mean") -> None:
        super().__init__()
        if not weight >= 0:
            raise InvalidValueError(f"weight: must be at least 0, found {weight}")
        if reduction not in ("mean", "none"):
            raise InvalidValueError(f'reduction: must be "mean" or "none", found {reduction!r}')
        self.weight = weight
        self.reduction = reduction

    def forward(
        self,
        query_states: Float[Tensor, "window query hidden"],
        window_mask: Bool[Tensor, " window"] | None = None,
    ) -> Float[Tensor, "*window"]:
        """The weighted loss.

        Args:
            query_states: ``(window, query, hidden)``.
            window_mask: ``(window,)`` bool: real windows; all without it.

        Returns:
            A scalar, or ``(window,)`` values for ``reduction="none"``; float32 or float64. Zero if no window is real.

        Raises:
            InvalidValueError: shapes that do not fit.
            InvalidTypeError: a mask that is not boolean.
        """
        if query_states.ndim != 3:
            raise InvalidValueError(
                f"query_states: must be (window, query, hidden), found shape {tuple(query_states.shape)}"
            )
        if window_mask is None:
            window_mask = torch.ones(query_states.shape[0], dtype=torch.bool, device=query_states.device)
        if window_mask.dtype != torch.bool:
            raise InvalidTypeError(f"window_mask: must be boolean (True = real), found {window_mask.dtype}")
        if window_mask.shape != query_states.shape[:1]:
            raise InvalidValueError(
                f"window_mask: must be (window,) = {tuple(query_states.shape[:1])}, found {tuple(window_mask.shape)}"
            )
        similarity = query_similarity(torch.where(window_mask[:, None, None], query_states, 0))
        if self.reduction == "none":
            return self.weight * similarity
        return self.weight * mean_over_windows(similarity, window_mask)

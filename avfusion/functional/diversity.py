"""Similarity between the queries of a window."""

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float


def query_similarity(query_states: Float[Tensor, "*window query hidden"]) -> Float[Tensor, "*window"]:
    r"""Mean cosine similarity between different queries of the same window (FAVOR, section 3.3).

    .. math:: s = \frac{1}{Q(Q-1)} \sum_{i \ne j} \hat q_i \cdot \hat q_j
                = \frac{\lVert \sum_i \hat q_i \rVert^2 - \sum_i \lVert \hat q_i \rVert^2}{Q(Q-1)},
              \qquad \hat q = q / \lVert q \rVert

    Args:
        query_states: ``(..., query, hidden)``, any floating dtype; computed in float32 at least. A vector of zeros (or
            with no entry as large as its dtype's smallest normal number) has similarity 0 and zero gradient.

    Returns:
        ``(...)`` in -1 … 1, float32 or float64; zero for a single query.

    Example:
        >>> import torch
        >>> query_similarity(torch.tensor([[1.0, 0.0], [0.0, 2.0]])).item()
        0.0
        >>> query_similarity(torch.tensor([[3.0, 4.0], [6.0, 8.0]], dtype=torch.float64)).item()
        1.0
    """
    count = query_states.shape[-2]
    with torch.autocast(query_states.device.type, enabled=False):
        largest = query_states.detach().abs().amax(-1, keepdim=True)
        # The gradient is proportional to 1 / norm: for a shorter vector it would overflow.
        directed = ~(largest < torch.finfo(query_states.dtype).tiny)
        states = torch.where(directed, query_states, 0).to(torch.promote_types(query_states.dtype, torch.float32))
        # Scaling by the largest entry first keeps the squares finite and above zero for any input.
        states = states / torch.where(directed, largest, 1)
        unit = states / torch.where(directed, states.square().sum(-1, keepdim=True), 1).sqrt()
        together = unit.sum(-2).square().sum(-1) - unit.square().sum((-1, -2))
        return together / max(count * (count - 1), 1)


def mean_over_windows(values: Float[Tensor, " window"], mask: Bool[Tensor, " window"] | None) -> Float[Tensor, ""]:
    """Mean over the real windows; zero, and still part of the graph, if there are none.

    Args:
        values: ``(window,)``.
        mask: ``(window,)`` bool: real windows; all by default.

    Example:
        >>> import torch
        >>> mean_over_windows(torch.tensor([0.5, float("nan")]), torch.tensor([True, False])).item()
        0.5
    """
    if mask is None:
        mask = torch.ones_like(values, dtype=torch.bool)
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)

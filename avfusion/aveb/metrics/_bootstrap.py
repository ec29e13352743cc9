"""The percentile bootstrap over items."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

_CHUNK = 2**22  # drawn items held at once


def interval(
    statistics: Tensor, of_sums: Callable[[Tensor], Tensor], *, resamples: int, seed: int
) -> tuple[tuple[float, float], float]:
    """Draws as many items as there are with replacement, again and again, and scores each draw.

    The percentile interval of Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Its bounds are
    values that were drawn.

    Args:
        statistics: ``(item, statistic)`` float64: what sums over items.
        of_sums: values ``(resample,)`` of sums ``(resample, statistic)``.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        The bounds of the middle 95 %, and the value of the items themselves.
    """
    count = len(statistics)
    draws = torch.Generator().manual_seed(seed)
    sums = [statistics.sum(0, keepdim=True)]
    step = max(1, _CHUNK // count)
    for start in range(0, resamples, step):
        drawn = torch.randint(count, (min(step, resamples - start), count), generator=draws)
        sums.append(torch.stack([column[drawn].sum(1) for column in statistics.unbind(1)], 1))
    values = of_sums(torch.cat(sums))
    ordered = values[1:].sort().values
    last = resamples - 1
    low, high = ordered[math.floor(0.025 * last)], ordered[math.ceil(0.975 * last)]
    return (float(low), float(high)), float(values[0])

"""SPIDEr."""

from typing import Any

import torch
from torch import Tensor

from avfusion.aveb.metrics._captions import CaptionMetric, Tokeniser
from avfusion.aveb.metrics.cider import cider_d
from avfusion.aveb.metrics.spice import require_spice, spice


class SPIDEr(CaptionMetric):
    r"""The mean of CIDEr-D and SPICE of the same captions, over items.

    .. math:: \mathrm{SPIDEr} = \tfrac{1}{2} (\mathrm{CIDEr\text{-}D} + \mathrm{SPICE})

    (Liu et al., Improved Image Captioning via Policy Gradient Optimization of SPIDEr, 2017), from 0 to 5.5. Needs all
    that :class:`SPICE` needs and refuses where it does.

    Args:
        tokeniser: ``"penn"``, as in the COCO caption evaluation, or ``"words"``, in Python.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        **options: of :class:`torchmetrics.Metric`.

    Raises:
        RuntimeError: as :class:`SPICE`.
        ImportError: as :class:`SPICE`.

    Example:
        >>> from avfusion.aveb.metrics import METRICS
        >>> METRICS["spider"].higher_is_better
        True
    """

    def __init__(self, *, tokeniser: Tokeniser = "penn", resamples: int = 1000, seed: int = 0, **options: Any) -> None:
        require_spice()
        super().__init__(tokeniser=tokeniser, resamples=resamples, seed=seed, **options)

    def _scores(self, predictions: list[str], references: list[list[str]]) -> Tensor:
        both = torch.tensor([cider_d(predictions, references), spice(predictions, references)], dtype=torch.float64)
        scores = both.mean(0)
        return torch.stack([scores, torch.ones_like(scores)], dim=1)

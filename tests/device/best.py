"""The best device there is: a GPU where one is found, else the CPU."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

BEST = "cuda" if torch.cuda.is_available() else "cpu"
needs_gpu = pytest.mark.skipif(BEST == "cpu", reason="needs a GPU")


def move(value: Any) -> Any:
    """Tensors, and values, lists and mappings of them, on that device."""
    return torch.utils._pytree.tree_map_only(Tensor, lambda tensor: tensor.to(BEST), value)


def assert_near(found: Sequence[Tensor], wanted: Sequence[Tensor], error: float) -> None:
    """By the norm of the difference, as a share of the wanted one's or, if that is small, of a fifth of the largest's.

    Small gradients are sums that cancel: their rounding is that of what is summed.
    """
    pairs = [(one.detach().double().cpu(), two.detach().double().cpu()) for one, two in zip(found, wanted, strict=True)]
    least = max(two.norm() for _, two in pairs) / 5
    for one, two in pairs:
        assert one.isfinite().all()
        found_error = ((one - two).norm() / two.norm().clamp(min=least)).item()
        assert found_error <= error

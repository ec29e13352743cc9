"""Nothing is timed before it is known to compute the same."""

import torch
from torch import Tensor

TOLERANCE = 1e-3


def check_agreement(what: str, ours: Tensor, theirs: Tensor) -> None:
    """Raises :class:`RuntimeError` unless both are finite and equal, in float32, within a thousandth of their scale."""
    scale = max(1.0, theirs.abs().max().item())
    difference = (ours.float() - theirs.float()).abs().max().item() / scale
    if not torch.isfinite(ours).all() or not difference <= TOLERANCE:
        raise RuntimeError(f"{what}: outputs must agree within {TOLERANCE:g}, found a difference of {difference:g}")

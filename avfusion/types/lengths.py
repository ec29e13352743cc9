"""Masks from the numbers of real places."""

import torch
from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError


def within_lengths(lengths: Tensor, batch: int, count: int, axis: str = "batch") -> Tensor:
    """``(batch, count)`` bool: the first ``lengths`` places of each row.

    Args:
        lengths: ``(batch,)`` int64.
        batch: rows.
        count: places of a row.
        axis: what a row is, for messages.

    Raises:
        InvalidTypeError: lengths that are no whole numbers.
        InvalidValueError: lengths that do not fit the rows or their places.
    """
    if lengths.is_floating_point():
        raise InvalidTypeError(f"lengths: must be whole numbers, found {lengths.dtype}")
    if lengths.shape != (batch,):
        raise InvalidValueError(f"lengths: must be ({axis},) = ({batch},), found shape {tuple(lengths.shape)}")
    if bool(((lengths < 0) | (lengths > count)).any()):
        raise InvalidValueError(f"lengths: must be between 0 and {count}, found {lengths.tolist()}")
    return torch.arange(count, device=lengths.device) < lengths[:, None]

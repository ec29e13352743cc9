"""Times: seconds on the clip's own clock."""

from collections.abc import Sequence

import torch
from torch import Tensor

from avfusion.errors import InvalidValueError


def check_rate(rate: float, name: str) -> None:
    """Raises :class:`~avfusion.InvalidValueError` unless ``rate`` is positive and finite."""
    if not (0 < rate < float("inf")):
        raise InvalidValueError(f"{name}: must be a positive, finite number per second, found {rate}")


def time_dtype(device: torch.device) -> torch.dtype:
    """The dtype of times on a device."""
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64


def regular_grid(count: int, rate: float, device: torch.device, *, first: float = 0.0) -> Tensor:
    """``(first + [0, 1, …, count - 1]) / rate``."""
    # Divided, not multiplied by 1/rate: k/rate is then the same number in every grid, so that ties are exact.
    return (torch.arange(count, device=device, dtype=time_dtype(device)) + first) / rate


def as_offset(start: "float | Tensor | Sequence[float]", batch: int, name: str, device: torch.device) -> Tensor:
    """``(batch,)`` seconds from one number or one a clip."""
    value = torch.as_tensor(start, dtype=time_dtype(device), device=device)
    if value.ndim > 1 or (value.ndim == 1 and value.shape[0] != batch):
        raise InvalidValueError(
            f"{name}: must be one number or (batch,) = ({batch},), found shape {tuple(value.shape)}"
        )
    return value.expand(batch)

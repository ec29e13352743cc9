"""Times: seconds on the clip's own clock.

Two computations of one time, such as ``start + (i + 0.5) / rate`` and ``k / frame_rate``, differ by rounding. A centre
on a frame's edge must fall on the same side everywhere. Every comparison of times therefore uses :func:`latest` of the
time that must not be too early: a time that equals the edge within rounding has reached it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from avfusion.errors import InvalidValueError

TICK = 1e-9  # seconds: far above the rounding of float64 times, far below the distance of times that are not equal


def check_rate(rate: float, name: str) -> None:
    """Raises :class:`~avfusion.InvalidValueError` unless ``rate`` is positive and finite."""
    if not (0 < rate < float("inf")):
        raise InvalidValueError(f"{name}: must be a positive, finite number per second, found {rate}")


def time_dtype(device: torch.device) -> torch.dtype:
    """The dtype of times on a device."""
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64


def regular_grid(count: int, rate: float, device: torch.device, *, first: float = 0.0) -> Tensor:
    """``(first + [0, 1, …, count - 1]) / rate``."""
    # Division instead of multiplication by 1/rate: k/rate is the same number in every grid, so ties are exact.
    return (torch.arange(count, device=device, dtype=time_dtype(device)) + first) / rate


def as_offset(start: "float | Tensor | Sequence[float]", batch: int, name: str, device: torch.device) -> Tensor:
    """``(batch,)`` seconds from one number or one per clip."""
    if isinstance(start, (int, float)):  # filled on the device, without the synchronisation of a copy
        return torch.full((batch,), start, dtype=time_dtype(device), device=device)
    value = torch.as_tensor(start, dtype=time_dtype(device), device=device)
    if value.ndim > 1 or (value.ndim == 1 and value.shape[0] != batch):
        raise InvalidValueError(
            f"{name}: must be one number or (batch,) = ({batch},), found shape {tuple(value.shape)}"
        )
    return value.expand(batch)


def as_durations(durations: "float | Tensor | Sequence[float]") -> Tensor:
    """Seconds of clips in any shape: float tensors in their dtype, everything else in float64.

    Raises:
        InvalidValueError: durations that are negative or not finite.
    """
    seconds = durations if isinstance(durations, Tensor) else torch.as_tensor(durations, dtype=torch.float64)
    seconds = seconds if seconds.is_floating_point() else seconds.double()
    if bool((~(seconds >= 0) | seconds.isinf()).any()):
        raise InvalidValueError(f"durations: must be finite and at least 0 seconds, found {seconds.tolist()}")
    return seconds


def rounding(dtype: torch.dtype) -> float:
    """The rounding error of a time, relative to the power of two below it.

    Twice the spacing of its dtype, for short computations; in half precision half of one spacing, because these times
    are rounded once, and a larger tolerance would reach into the next token.
    """
    spacing = torch.finfo(dtype).eps
    return 2 * spacing if torch.finfo(dtype).bits >= 32 else spacing / 2


def latest(times: Tensor, edges: "float | Tensor" = 0.0) -> Tensor:
    """The latest times that rounded times may represent, in the dtype of times; infinite values are unchanged.

    Args:
        times: seconds in any floating dtype.
        edges: :func:`rounding` of the times they are compared with, if not float64; broadcasts against ``times``.
    """
    exact = times.to(time_dtype(times.device))
    share = max(rounding(times.dtype), rounding(exact.dtype))
    return later(torch.where(exact.isfinite(), exact + (TICK + _power_of_two(exact) * share), exact), edges)


def later(times: Tensor, share: "float | Tensor") -> Tensor:
    """Times plus a share of the power of two below them; infinite values are unchanged."""
    if not isinstance(share, Tensor) and share == 0.0:
        return times
    return torch.where(times.isfinite(), times + _power_of_two(times) * share, times)


def earliest(times: Tensor) -> Tensor:
    """The earliest times that rounded times may represent, without :data:`TICK`."""
    exact = times.to(time_dtype(times.device))
    return later(exact, -max(rounding(times.dtype), rounding(exact.dtype)))


def frames_until(ends: Tensor, frame_rate: float) -> Tensor:
    """Number of frames of a regular grid that clips of this many seconds need, int64.

    An end within a microsecond of an edge is on the edge, because files state their durations in microseconds.
    """
    return ((earliest(ends) - 1e-6) * frame_rate).ceil().clamp(min=0).long()


def _power_of_two(times: Tensor) -> Tensor:
    """The power of two at or below each time; 0 for 0."""
    # The small addend keeps powers of two unchanged, however the logarithm is rounded.
    return times.abs().log2().add(1e-12).floor().exp2()

"""Which windows a session goes on to remember."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError


@runtime_checkable
class RetentionPolicy(Protocol):
    """Selects the windows of a session to keep; any function with this signature.

    It is called after each step that finished windows. If it drops any, the language model processes all kept windows
    again, so that dropping several at once is cheaper than one at a time.

    Example:
        >>> import torch
        >>> from avfusion.models import RetentionPolicy
        >>> def first_minute(numbers, spans):
        ...     return spans[:, 1] <= 60
        >>> isinstance(first_minute, RetentionPolicy)
        True
        >>> first_minute(torch.arange(2), torch.tensor([[55.0, 60.0], [60.0, 65.0]])).tolist()
        [True, False]
    """

    def __call__(self, numbers: Int[Tensor, " window"], spans: Float[Tensor, "window 2"], /) -> Bool[Tensor, " window"]:
        """Which to keep.

        Args:
            numbers: ``(window,)`` int64: how many windows the session had finished before each; they increase.
            spans: ``(window, 2)`` seconds, float64.

        Returns:
            ``(window,)`` bool. What is dropped does not come back.
        """
        ...


class KeepNewest:
    """Keeps the windows of the most recent seconds.

    When the kept windows cover more than ``seconds``, the oldest are dropped until they cover ``(1 - slack) ×
    seconds``. So between ``(1 - slack) × seconds`` and ``seconds`` are kept, and the language model processes each
    embedding at most ``1 / slack`` times.

    Args:
        seconds: maximal length; the newest window is always kept.
        slack: fraction that is dropped at once, from 0 to below 1.

    Raises:
        InvalidValueError: a number is out of range.

    Example:
        >>> import torch
        >>> from avfusion.models import KeepNewest
        >>> ends = torch.arange(5.0, 35.0, 5.0, dtype=torch.float64)
        >>> spans = torch.stack([ends - 5, ends], -1)  # six windows of 5 s
        >>> KeepNewest(seconds=20, slack=0.5)(torch.arange(6), spans).tolist()
        [False, False, False, False, True, True]
        >>> KeepNewest(seconds=30)(torch.arange(6), spans).all().item()
        True
    """

    def __init__(self, seconds: float, *, slack: float = 0.25) -> None:
        _check(seconds, slack)
        self.seconds, self.slack = seconds, slack

    def __call__(self, numbers: Tensor, spans: Tensor) -> Tensor:
        """As :class:`RetentionPolicy` says."""
        return _newest(spans, self.seconds, self.slack)


class KeepEveryNth:
    """Keeps all windows of the most recent seconds, and every n-th older window.

    When a window becomes older than ``seconds``, all windows older than ``(1 - slack) × seconds`` are thinned at once.

    Args:
        n: older windows whose number is a multiple of ``n`` are kept.
        seconds: maximal length of the recent part.
        limit: maximal age in seconds of any window, also applied with ``slack``; without it, the context grows without
            bound, ``n`` times slower.
        slack: fraction of ``seconds`` that is thinned, and of ``limit`` that is dropped, at once; from 0 to below 1.

    Raises:
        InvalidValueError: a number is out of range.

    Example:
        >>> import torch
        >>> from avfusion.models import KeepEveryNth
        >>> ends = torch.arange(5.0, 55.0, 5.0, dtype=torch.float64)
        >>> spans = torch.stack([ends - 5, ends], -1)  # ten windows of 5 s
        >>> KeepEveryNth(3, seconds=20, slack=0)(torch.arange(10), spans).int().tolist()
        [1, 0, 0, 1, 0, 0, 1, 1, 1, 1]
    """

    def __init__(self, n: int, *, seconds: float, limit: float | None = None, slack: float = 0.25) -> None:
        _check(seconds, slack)
        if n < 1:
            raise InvalidValueError(f"n: must be at least 1, found {n}")
        if limit is not None and not seconds <= limit < float("inf"):
            raise InvalidValueError(f"limit: must be finite and at least seconds = {seconds}, found {limit}")
        self.n, self.seconds, self.limit, self.slack = n, seconds, limit, slack

    def __call__(self, numbers: Tensor, spans: Tensor) -> Tensor:
        """As :class:`RetentionPolicy` says."""
        spare = numbers % self.n != 0
        keep = ~spare
        keep[spare] = _newest(spans[spare], self.seconds, self.slack, spans[-1, 1])
        if self.limit is not None:
            keep &= _newest(spans, self.limit, self.slack)
        return keep


def _newest(spans: Tensor, seconds: float, slack: float, now: Tensor | None = None) -> Tensor:
    """All, or if they reach further back than ``seconds``, those that reach back no further than the rest of it."""
    now = spans[-1, 1] if now is None else now
    age = now - spans[:, 0]
    if not bool((age > seconds).any()):
        return torch.ones_like(age, dtype=torch.bool)
    keep = age <= seconds * (1 - slack)
    return keep | (spans[:, 1] >= now)  # the newest always


def _check(seconds: float, slack: float) -> None:
    if not 0 < seconds < float("inf"):
        raise InvalidValueError(f"seconds: must be positive and finite, found {seconds}")
    if not 0 <= slack < 1:
        raise InvalidValueError(f"slack: must be from 0 to below 1, found {slack}")

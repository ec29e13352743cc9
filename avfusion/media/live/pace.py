"""Playback clock, lag, and what is skipped to reduce it."""

import math
from collections.abc import Callable
from typing import Literal

from avfusion.media._time import TICK

OnLag = Literal["skip", "slow", "wait"]

_HIGH, _LOW = 0.5, 0.25  # fractions of max_lag: above the first the rate falls, below the second it may rise
_CALM = 4  # consecutive chunks with little lag before it does


class Pace:
    """Keeps the consumer of chunks in step with the source.

    Args:
        policy: what to do about lag; None to ignore time.
        max_lag: largest lag in seconds.
        chunk_seconds: length of a chunk.
        halvings: how often the frame rate may be halved.
        clock: returns the time in seconds.
        sleep: waits for a number of seconds.
        head: returns the newest time of a live source; None for a file, which is played by the clock.
    """

    def __init__(
        self,
        *,
        policy: OnLag | None,
        max_lag: float,
        chunk_seconds: float,
        halvings: int,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
        head: Callable[[], float] | None,
    ) -> None:
        self.every = 1  # every so many-th frame is returned
        self._policy, self._max_lag, self._chunk, self._halvings = policy, max_lag, chunk_seconds, halvings
        self._clock, self._sleep, self._head = clock, sleep, head
        self._began: float | None = None
        self._lag = 0.0
        self._calm = 0
        self._changed = False

    def now(self) -> float:
        """Seconds on the source's clock."""
        if self._head is not None:
            return self._head()
        self._began = self._clock() if self._began is None else self._began
        return self._clock() - self._began

    def resume(self, index: int, *, at_least: float = 0.0) -> int:
        """The index of the chunk to return next: ``index``, or the latest complete one."""
        if self._policy is None:
            return index
        now = self.now()
        if self._policy != "wait" and now - (index + 1) * self._chunk > self._max_lag + TICK:
            index = max(index, math.floor((now + TICK) / self._chunk) - 1)
            if self._policy == "slow":
                self._slow()
        return max(index, math.ceil((at_least - TICK) / self._chunk))

    def wait_until(self, time: float) -> None:
        """Waits until a file's playback reaches a time."""
        if self._policy is not None and self._head is None and (ahead := time - self.now()) > 0:
            self._sleep(ahead)

    def lag(self, end: float, *, until: float = math.inf) -> float:
        """Seconds from the end of a chunk to the newest data, of a source that ends at ``until``; adapts the frame
        rate.
        """
        if self._policy is None:
            return 0.0
        lag = max(0.0, min(self.now(), until) - end)
        if self._policy == "slow":
            self._follow(lag)
        self._lag = lag
        return lag

    def _follow(self, lag: float) -> None:
        self._calm = self._calm + 1 if lag <= _LOW * self._max_lag else 0
        if self._changed:  # the lag is still that of the previous rate
            self._changed = False
        elif lag > _HIGH * self._max_lag and lag >= self._lag:
            self._slow()
        elif self._calm >= _CALM and self.every > 1:
            self.every, self._calm = self.every // 2, 0

    def _slow(self) -> None:
        self.every, self._changed = min(2 * self.every, 2**self._halvings), True

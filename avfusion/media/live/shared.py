"""State shared by the readers of a source."""

import threading
from typing import NamedTuple

from avfusion.media._limits import MediaLimits


class Kept(NamedTuple):
    """Format of the frames and audio to keep."""

    frame_rate: float
    sample_rate: int
    size: tuple[int, int] | None
    limits: MediaLimits


class Start:
    """Time 0 of several live sources: the arrival of the first data of any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began: float | None = None

    def since(self, now: float) -> float:
        """Seconds since time 0."""
        with self._lock:
            self._began = now if self._began is None else self._began
            return max(0.0, now - self._began)

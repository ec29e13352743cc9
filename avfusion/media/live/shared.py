"""What the readers of a source's inputs share."""

import threading
from typing import NamedTuple

from avfusion.media._limits import MediaLimits


class Kept(NamedTuple):
    """What is kept of pictures and sound."""

    frame_rate: float
    sample_rate: int
    size: tuple[int, int] | None
    limits: MediaLimits


class Start:
    """The moment that several sources call 0: when the first of them began to come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began: float | None = None

    def since(self, now: float) -> float:
        """Seconds from that moment."""
        with self._lock:
            self._began = now if self._began is None else self._began
            return max(0.0, now - self._began)

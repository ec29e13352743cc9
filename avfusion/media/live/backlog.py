"""A bounded queue of decoded pieces."""

import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from avfusion.media._audio import AudioSegment
from avfusion.media._frames import CollectedFrame
from avfusion.media.live.chunk import LiveFault, Stream, merged


class Piece(NamedTuple):
    """Decoded frames or audio.

    Attributes:
        stream: ``"visual"`` or ``"audio"``.
        seen: frames.
        heard: audio.
        base: time in seconds of audio sample 0.
        watermark: seconds up to which the stream is complete.
        faults: faults since the previous piece.
        ended: whether this is the last piece of the stream.
        error: an error to raise in the thread that reads chunks.
    """

    stream: Stream
    seen: Sequence[CollectedFrame]
    heard: Sequence[AudioSegment]
    base: float
    watermark: float
    faults: tuple[LiveFault, ...]
    ended: bool = False
    error: BaseException | None = None


class Dropped(NamedTuple):
    """Data that was dropped because the backlog was full: its end time, and its faults."""

    until: float = 0.0
    faults: tuple[LiveFault, ...] = ()


class ClosedError(Exception):
    """The consumer of the backlog has closed it."""


class Backlog:
    """A queue of pieces between a decoding thread and a consumer, bounded in seconds.

    Args:
        seconds: capacity.
        live: whether a full queue drops its oldest piece; otherwise ``put`` blocks.
    """

    def __init__(self, *, seconds: float, live: bool) -> None:
        self.head = 0.0  # newest time of the source
        self.wanted = 0.0  # seconds before which data is no longer wanted
        self._seconds, self._live = seconds, live
        self._pieces: deque[tuple[float, Piece]] = deque()  # each with the head when it came
        self._changed = threading.Condition()
        self._closed = False
        self._dropped = Dropped()

    def put(self, piece: Piece) -> None:
        """Adds a piece.

        Raises:
            ClosedError: the backlog is closed.
        """
        with self._changed:
            while not self._live and self._is_full() and not self._closed:
                self._changed.wait()
            if self._closed:
                raise ClosedError
            self.head = max(self.head, piece.watermark)
            self._pieces.append((self.head, piece))
            while self._live and self._is_full() and not self._pieces[0][1].ended:
                self._drop(self._pieces.popleft()[1])
            self._changed.notify_all()

    def get(self) -> Piece | None:
        """Waits for the oldest piece, and removes it; None after :meth:`close`."""
        with self._changed:
            while not self._pieces and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            _, piece = self._pieces.popleft()
            self._changed.notify_all()
            return piece

    def take_dropped(self) -> Dropped:
        """What was dropped since the last call."""
        with self._changed:
            dropped, self._dropped = self._dropped, Dropped()
            return dropped

    def close(self) -> None:
        """Wakes both sides, and ends the queue."""
        with self._changed:
            self._closed = True
            self._pieces.clear()
            self._changed.notify_all()

    def _is_full(self) -> bool:
        return bool(self._pieces) and self.head - self._pieces[0][0] > self._seconds

    def _drop(self, piece: Piece) -> None:
        before = self._dropped
        self._dropped = Dropped(max(before.until, piece.watermark), merged((*before.faults, *piece.faults)))

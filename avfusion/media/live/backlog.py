"""What a source has decoded and nobody has taken yet."""

import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from avfusion.media._pictures import Seen
from avfusion.media._sound import Heard
from avfusion.media.live.chunk import LiveFault, Stream, merged


class Piece(NamedTuple):
    """Pictures or sound, as they were decoded.

    Attributes:
        stream: which of the two.
        seen: pictures.
        heard: sound.
        base: seconds at which the sound's place 0 is heard.
        watermark: seconds up to which the stream has come.
        faults: noticed since the piece before.
        ended: whether nothing more will come.
        error: that has to be raised where the chunks are taken.
    """

    stream: Stream
    seen: Sequence[Seen]
    heard: Sequence[Heard]
    base: float
    watermark: float
    faults: tuple[LiveFault, ...]
    ended: bool = False
    error: BaseException | None = None


class Dropped(NamedTuple):
    """What the backlog could not hold: up to when that was, and what went wrong in it."""

    until: float = 0.0
    faults: tuple[LiveFault, ...] = ()


class ClosedError(Exception):
    """Nobody takes pieces any more."""


class Backlog:
    """A queue of pieces between a thread that decodes and one that takes, of a bounded number of seconds.

    Args:
        seconds: that it holds.
        live: whether the oldest is dropped when it is full; otherwise, whoever puts has to wait.
    """

    def __init__(self, *, seconds: float, live: bool) -> None:
        self.head = 0.0  # seconds that the source has come to
        self.wanted = 0.0  # seconds before which nothing is wanted any more
        self._seconds, self._live = seconds, live
        self._pieces: deque[tuple[float, Piece]] = deque()  # each with the head when it came
        self._changed = threading.Condition()
        self._closed = False
        self._dropped = Dropped()

    def put(self, piece: Piece) -> None:
        """Adds a piece.

        Raises:
            ClosedError: the other side has gone.
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
        """The oldest piece, as soon as there is one; None when closed."""
        with self._changed:
            while not self._pieces and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            _, piece = self._pieces.popleft()
            self._changed.notify_all()
            return piece

    def tell_dropped(self) -> Dropped:
        """What was dropped since this was last asked."""
        with self._changed:
            dropped, self._dropped = self._dropped, Dropped()
            return dropped

    def close(self) -> None:
        """Ends both sides' waiting."""
        with self._changed:
            self._closed = True
            self._pieces.clear()
            self._changed.notify_all()

    def _is_full(self) -> bool:
        return bool(self._pieces) and self.head - self._pieces[0][0] > self._seconds

    def _drop(self, piece: Piece) -> None:
        before = self._dropped
        self._dropped = Dropped(max(before.until, piece.watermark), merged((*before.faults, *piece.faults)))

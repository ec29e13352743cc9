"""A live source: an iterator of chunks."""

import math
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from avfusion.errors import MediaError
from avfusion.media._limits import LimitError
from avfusion.media.live.assembly import Assembly
from avfusion.media.live.backlog import Backlog
from avfusion.media.live.chunk import LiveChunk, LiveReport, Stream
from avfusion.media.live.opening import Opened
from avfusion.media.live.pace import Pace
from avfusion.media.live.reader import Reader


class LiveSource:
    """Iterator of :class:`~avfusion.media.LiveChunk`, returned by :func:`~avfusion.media.open_live`.

    Leaving its ``with`` block closes it.

    Attributes:
        name: name of the source.
        streams: its streams, ``"visual"``, ``"audio"`` or both.
        chunk_seconds: length of each chunk except the last.

    Example:
        >>> import tempfile, torch
        >>> from avfusion.media import open_live, write_video
        >>> clip = tempfile.mkdtemp() + "/clip.mp4"
        >>> write_video(clip, torch.zeros(10, 3, 32, 32), frame_rate=10.0, samples=torch.zeros(16000))
        >>> with open_live(clip, realtime=False) as live:
        ...     print(live.streams, sum(1 for chunk in live) >= 2)
        ('visual', 'audio') True
    """

    def __init__(
        self,
        inputs: Sequence[Opened],
        readers: Sequence[Reader],
        assembly: Assembly,
        pace: Pace,
        backlog: Backlog,
        closed: threading.Event,
        *,
        chunk_seconds: float,
        frame_rate: float,
    ) -> None:
        self.name = " + ".join(opened.name for opened in inputs)
        self.streams: tuple[Stream, ...] = tuple(assembly.watermarks)
        self.chunk_seconds = chunk_seconds
        self._inputs, self._assembly, self._pace, self._backlog = inputs, assembly, pace, backlog
        self._frame_rate = frame_rate
        self._index = 0  # index of the next chunk
        self._ended = False
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=reader.run, name="avfusion-live", daemon=True) for reader in readers]
        self._close = weakref.finalize(self, _close, backlog, inputs, closed)
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def close(self) -> None:
        """Ends the iteration at once, and closes the source. May be called from any thread.

        A network connection or device that sends nothing is released after its timeout.
        """
        self._close()
        for thread, opened in zip(self._threads, self._inputs, strict=True):
            if opened.can_stop and thread is not threading.current_thread():
                thread.join()

    def __next__(self) -> LiveChunk:
        if self._ended or not self._close.alive:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            raise StopIteration
        self._skip(always=True)
        while not self._assembly.ready(self._end):
            piece = self._backlog.get()
            if piece is None:
                raise StopIteration
            self._error = self._error or piece.error
            self._assembly.add(piece)
            self._skip(always=False)
        self._ended = self._assembly.is_over
        end = max(self._assembly.watermarks.values()) if self._ended else self._end
        self._pace.wait_until(end)
        if not self._close.alive:  # closed while waiting
            raise StopIteration
        every = self._pace.every
        try:
            cut = self._assembly.cut(self._end, every=every)
        except LimitError as error:
            raise MediaError(f"{self.name}: {error}") from error
        report = LiveReport(
            start=min(self._index * self.chunk_seconds, end),
            end=end,
            lag=self._pace.lag(end, until=end if self._ended else math.inf),
            frame_rate=self._frame_rate / every,
            skipped_frames=cut.skipped_frames,
            skipped_audio=cut.skipped_audio,
            faults=cut.faults,
        )
        self._index += 1
        return LiveChunk(cut.video, cut.waveform, cut.watermark, self._ended and self._error is None, report)

    @property
    def _end(self) -> float:
        return (self._index + 1) * self.chunk_seconds

    def _skip(self, *, always: bool) -> None:
        """Skips to the current time if the next chunk is too late, or its data was dropped."""
        dropped = self._backlog.take_dropped()
        if not always and not dropped.until:
            return
        index = self._pace.resume(self._index, at_least=dropped.until)
        if index > self._index or dropped.faults:
            start, to = self._index * self.chunk_seconds, index * self.chunk_seconds
            self._assembly.skip(start, to, dropped.faults)
            self._index, self._backlog.wanted = index, to


def _close(backlog: Backlog, inputs: Sequence[Opened], closed: threading.Event) -> None:
    closed.set()
    backlog.close()
    for opened in inputs:
        opened.stop()

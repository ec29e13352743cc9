"""A session that watches a source in a thread, and is asked from others."""

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from avfusion.media import LiveReport, LiveSource
from avfusion.models import LiveSession, Watched


class Seen(NamedTuple):
    """What became of a chunk: the source's report, the session's, and whether it was the last."""

    report: LiveReport
    watched: Watched
    ended: bool


class Watcher:
    """Watches a source to its end, or until it is left.

    Args:
        session: that watches; only through this from now on.
        source: what it watches, or a function that opens it, in the thread that watches.
        tell: is called with each chunk's :class:`Seen`, in that thread too.
    """

    def __init__(
        self,
        session: LiveSession,
        source: LiveSource | Callable[[], LiveSource],
        tell: Callable[[Seen], None] | None = None,
    ) -> None:
        self._session, self._tell = session, tell
        self._source = source if isinstance(source, LiveSource) else None
        self._open: Callable[[], LiveSource] | None = None if isinstance(source, LiveSource) else source
        self._names = sorted(session.model.encoders)
        self._lock = threading.Lock()  # what is asked and what comes do not meet half-way
        self._left = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends watching."""
        self._left.set()
        if self._source is not None:
            self._source.close()
        self._thread.join()

    @property
    def is_watching(self) -> bool:
        """Whether more may come."""
        return self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until the source has ended, and tells whether it has; raises what went wrong with watching."""
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def ask(self, question: str, **options: Any) -> Iterator[str]:
        """The answer to what has been seen so far, piece by piece; watching goes on meanwhile."""
        with self._lock:
            return self._session.ask(question, **options)

    def _watch(self) -> None:
        try:
            if self._open is not None:
                self._source = self._open()
            assert self._source is not None
            with self._source:
                if not self._left.is_set():
                    self._take(self._source)
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            self._error = None if self._left.is_set() else error

    def _take(self, source: LiveSource) -> None:
        for chunk in source:
            # Every ear hears the same sound.
            watermark = {name: chunk.watermark["visual" if name == "visual" else "audio"] for name in self._names}
            with self._lock:
                watched = self._session.watch(chunk.video, chunk.waveform, watermark=watermark, ended=chunk.ended)
            if self._tell is not None:
                self._tell(Seen(chunk.report, watched, chunk.ended))


def lines(seen: Seen) -> list[str]:
    """What is worth telling of a chunk, a line each."""
    report, told = seen.report, []
    for start, end in seen.watched.spans.tolist():
        lag = f", {report.lag:.1f} s behind" if report.lag >= 0.05 else ""
        told.append(f"{report.end:7.1f} s  window {start:.1f} to {end:.1f} s{lag}")
    if report.skipped_frames or report.skipped_audio:
        told.append(
            f"{report.end:7.1f} s  skipped {report.skipped_frames} pictures and {report.skipped_audio:.1f} s of "
            f"sound; now {report.frame_rate:g} pictures a second"
        )
    told += [f"{report.end:7.1f} s  {fault.kind}: {fault.message}" for fault in report.faults]
    late = {name: count for name, count in seen.watched.late.items() if count}
    if late:
        told.append(f"{report.end:7.1f} s  too late for their frame: {late}")
    if seen.ended:
        told.append(f"{report.end:7.1f} s  the end")
    return told

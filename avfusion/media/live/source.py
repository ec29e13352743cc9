"""A source of chunks that come as time passes."""

import math
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, get_args

from avfusion.errors import InvalidValueError, MediaError
from avfusion.media._limits import LimitError, MediaLimits
from avfusion.media._request import checked
from avfusion.media.live.assembly import Assembly
from avfusion.media.live.backlog import Backlog
from avfusion.media.live.chunk import LiveChunk, LiveReport, Stream
from avfusion.media.live.opening import Opened, Source, open_source
from avfusion.media.live.pace import OnLag, Pace
from avfusion.media.live.reader import Reader
from avfusion.media.live.shared import Kept, Start

_FILE_WAIT = 30.0  # seconds by which the streams of a file may be apart: they are as they were written
_LIVE_WAIT = 2.0
_AHEAD = 1.0  # seconds, beside those of two chunks, that are decoded before they are needed


class LiveSource:
    """What :func:`~avfusion.media.open_live` opens: an iterator of chunks, and a context that closes it.

    Attributes:
        name: of the source.
        streams: what it has, of ``"visual"`` and ``"audio"``.
        chunk_seconds: that each chunk but the last stands for.

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
        self._index = 0  # of the next chunk
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
        """Ends the source, and the iteration, at once; from any thread.

        A network connection or a device on which nothing comes is released when its timeout is over.
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
        if not self._close.alive:  # meanwhile
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
            skipped_pictures=cut.skipped_pictures,
            skipped_sound=cut.skipped_sound,
            faults=cut.faults,
        )
        self._index += 1
        return LiveChunk(cut.video, cut.waveform, cut.watermark, self._ended and self._error is None, report)

    @property
    def _end(self) -> float:
        return (self._index + 1) * self.chunk_seconds

    def _skip(self, *, always: bool) -> None:
        """Goes to where the source is now if the next chunk is too far behind, or no longer there."""
        dropped = self._backlog.tell_dropped()
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


def open_live(
    source: Source,
    *,
    format: str | None = None,
    options: Mapping[str, str] | None = None,
    sound: Source | None = None,
    sound_format: str | None = None,
    sound_options: Mapping[str, str] | None = None,
    frame_rate: float = 2.0,
    sample_rate: int = 16000,
    size: int | tuple[int, int] | None = None,
    video: bool = True,
    audio: bool = True,
    audio_track: int | None = None,
    chunk_seconds: float = 0.5,
    realtime: bool | None = None,
    on_lag: OnLag = "skip",
    max_lag: float = 2.0,
    lowest_frame_rate: float | None = None,
    max_wait: float | None = None,
    timeout: float = 10.0,
    limits: MediaLimits = MediaLimits(),  # noqa: B008  # it is frozen
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] | None = None,
) -> LiveSource:
    """Opens a file, a camera, a microphone or a stream, to be taken in chunks as it comes.

    The chunks of a file, put together, are what :func:`load_media` gives for it, to the bit: the same pictures, spans
    and samples. A still image comes once, held over all time. They are on one clock, whose 0 is the source's beginning.
    Times rule, not counts: a gap in the sound becomes silence, sound that comes twice is taken once, and where the
    source's clock jumps, back or more than 10 s ahead of what has passed, time goes on. Pictures of another size than
    the first's are given in its size.

    A file is played in real time, or with ``realtime=False`` as fast as it is taken. Anything else comes as it comes;
    with ``realtime=False`` it is made to wait, as a pipe can be. What is done when chunks are taken too slowly:

    - ``on_lag="skip"``: from ``max_lag`` on, the next chunk is one that is just over. What is skipped is missing: the
      clock goes on, and ``watermark`` with it.
    - ``on_lag="slow"``: of the pictures only every second is given, or fourth, as long as the lag is above half of
      ``max_lag`` and does not fall; and twice as many again after 4 chunks with less than a quarter. Each has its
      own span: between them there is none. Where that is not enough, it skips.
    - ``on_lag="wait"``: nothing; the lag grows, and is reported. For files only.

    A stream that ends, stalls, or breaks off ends with what was decoded of it, and a fault in the last report.

    Args:
        source: a path, a pipe (``"-"`` for standard input, the path of a FIFO), a device with its ``format``, an open
            file, or its number; an address as a :class:`~avfusion.media.NetworkStream`. Of a path, a pipe and an open
            file no other file or address is opened, as with :func:`load_media`.
        format: of a device or of what cannot be told from its content: ``"v4l2"``, ``"alsa"``, ``"mpegts"``.
        options: for FFmpeg, such as ``{"video_size": "640x480"}``.
        sound: another source of the sound: a microphone beside a camera.
        sound_format: its format.
        sound_options: its options.
        frame_rate: pictures a second.
        sample_rate: of the sound, in Hz.
        size: ``(height, width)`` of the pictures, or one number for both.
        video: whether to read pictures.
        audio: whether to read sound.
        audio_track: which sound to read where there are several, as for :func:`load_media`.
        chunk_seconds: that a chunk stands for.
        realtime: whether time passes by itself: the clock's for a file.
        on_lag: ``"skip"``, ``"slow"`` or ``"wait"``.
        max_lag: seconds that a chunk may be behind.
        lowest_frame_rate: of ``on_lag="slow"``; a quarter of ``frame_rate`` without it.
        max_wait: seconds that a chunk waits for a stream which is behind another. In a live source, what comes later is
            left out (2 s); in a file, given with a later chunk (30 s).
        timeout: seconds without anything after which a source counts as stalled.
        limits: on what it may take of memory. Those on a total hold for a chunk, and that on gaps for a file.
        clock: tells the time in seconds.
        sleep: waits for so many.

    Returns:
        An iterator of :class:`~avfusion.media.LiveChunk`, to be used in ``with``: a thread decodes ahead until it is
        closed.

    Raises:
        MediaError: a source that cannot be opened, or holds nothing of what is asked for.
        InvalidValueError: an argument out of its range.
        InvalidTypeError: something that is no source.

    Example:
        >>> import tempfile, torch
        >>> from avfusion.media import open_live, write_video
        >>> path = tempfile.mkdtemp() + "/clip.mp4"
        >>> write_video(path, torch.zeros(20, 3, 32, 32), frame_rate=10.0, samples=torch.zeros(32000))
        >>> with open_live(path, realtime=False, chunk_seconds=1.0) as live:
        ...     for chunk in live:
        ...         print(chunk.video.spans[0, -1].tolist(), chunk.waveform.durations.tolist(), chunk.ended)
        [0.5, 1.0] [1.0] False
        [1.5, 2.0] [1.0] True
    """
    if frame_rate is None:
        raise InvalidValueError("frame_rate: must be a positive number per second, found None")
    request = checked(frame_rate, sample_rate, 0.0, None, size, video, audio, (), limits, audio_track)
    kept = Kept(frame_rate, request.sample_rate, request.size, limits)
    halvings = _checked(frame_rate, chunk_seconds, on_lag, max_lag, lowest_frame_rate, max_wait, timeout)
    asked: dict[str, Any] = {"audio_track": audio_track, "timeout": timeout, "limits": limits}
    inputs = [open_source(source, format=format, options=options, video=video, audio=audio and sound is None, **asked)]
    try:
        if sound is not None:
            inputs.append(
                open_source(sound, format=sound_format, options=sound_options, video=False, audio=True, **asked)
            )
        files = {opened.is_file for opened in inputs}
        if len(files) > 1:
            raise InvalidValueError("sound: must be a file if the source is one, found one of each")
        live, paced = False in files and realtime is not False, True in files and realtime is not False
        if live and on_lag == "wait":
            raise InvalidValueError('on_lag: must be "skip" or "slow" for what is no file, found "wait"')
    except InvalidValueError:
        for opened in inputs:
            opened.close()
        raise

    backlog = Backlog(seconds=2 * chunk_seconds + (max_lag if live else _AHEAD), live=live)
    read = {stream for opened in inputs for stream in opened.streams}
    streams: list[Stream] = [stream for stream in get_args(Stream) if stream in read]
    closed, start = threading.Event(), Start() if live and len(inputs) > 1 else None
    return LiveSource(
        inputs,
        [Reader(opened, backlog, kept, clock=clock, start=start) for opened in inputs],
        Assembly(
            streams,
            frame_rate=frame_rate,
            sample_rate=request.sample_rate,
            max_wait=max_wait if max_wait is not None else _LIVE_WAIT if live else _FILE_WAIT,
            late=live,
            limits=limits,
        ),
        Pace(
            policy=on_lag if live or paced else None,
            max_lag=max_lag,
            chunk_seconds=chunk_seconds,
            halvings=halvings,
            clock=clock,
            sleep=closed.wait if sleep is None else sleep,
            head=(lambda: backlog.head) if live else None,
        ),
        backlog,
        closed,
        chunk_seconds=chunk_seconds,
        frame_rate=frame_rate,
    )


def _checked(
    frame_rate: float,
    chunk_seconds: float,
    on_lag: str,
    max_lag: float,
    lowest_frame_rate: float | None,
    max_wait: float | None,
    timeout: float,
) -> int:
    """How often the frame rate may be halved."""
    for name, value in (("chunk_seconds", chunk_seconds), ("max_lag", max_lag), ("timeout", timeout)):
        if not 0 < value < math.inf:
            raise InvalidValueError(f"{name}: must be a positive number of seconds, found {value}")
    if on_lag not in get_args(OnLag):
        raise InvalidValueError(f"on_lag: must be one of {', '.join(get_args(OnLag))}, found {on_lag!r}")
    if max_wait is not None and not max_wait >= 0:
        raise InvalidValueError(f"max_wait: must be seconds from 0 on, found {max_wait}")
    lowest = frame_rate / 4 if lowest_frame_rate is None else lowest_frame_rate
    if not 0 < lowest <= frame_rate:
        raise InvalidValueError(
            f"lowest_frame_rate: must be positive and at most frame_rate = {frame_rate}, found {lowest}"
        )
    return math.floor(math.log2(frame_rate / lowest) + 1e-9)

"""Opens files, devices and network streams as live sources."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, get_args

from avfusion.errors import InvalidValueError
from avfusion.media._limits import MediaLimits
from avfusion.media._request import checked
from avfusion.media.live.assembly import Assembly
from avfusion.media.live.backlog import Backlog
from avfusion.media.live.chunk import Stream
from avfusion.media.live.opening import Source, open_source
from avfusion.media.live.pace import OnLag, Pace
from avfusion.media.live.reader import Reader
from avfusion.media.live.shared import Kept, Start
from avfusion.media.live.source import LiveSource

_FILE_WAIT = 30.0  # seconds by which the streams of a file may be apart, as they are interleaved
_LIVE_WAIT = 2.0
_AHEAD = 1.0  # seconds, beside those of two chunks, that are decoded before they are needed


def open_live(
    source: Source,
    *,
    format: str | None = None,
    options: Mapping[str, str] | None = None,
    audio_source: Source | None = None,
    audio_format: str | None = None,
    audio_options: Mapping[str, str] | None = None,
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
    """Opens a file, camera, microphone or stream, and returns it in chunks as it arrives.

    The concatenated chunks of a file are bit-identical to the output of :func:`load_media`: the same frames, spans and
    samples. A still image is returned once, with a span that covers all time. All chunks share one clock, whose 0 is
    the beginning of the source. Timestamps decide, not counts: a gap in the audio becomes silence, overlapping audio is
    used once, and if the clock of the source jumps back, or ahead by more than 10 s, the chunks' clock continues
    without a jump. Frames are resized to the size of the first frame.

    A file is played in real time, or as fast as it is read with ``realtime=False``. Other sources arrive in real time;
    ``realtime=False`` blocks the sender instead, which works for a pipe. ``on_lag`` sets what happens if the chunks
    are read too slowly:

    - ``"skip"``: once the lag exceeds ``max_lag``, the next chunk is the latest complete one. Skipped time is missing:
      the clock and ``watermark`` advance past it.
    - ``"slow"``: the frame rate is halved while the lag is above half of ``max_lag`` and not falling, and doubled again
      after 4 chunks with a lag below a quarter of it. Frames keep their own spans; there are none in between. If that
      is not enough, chunks are skipped.
    - ``"wait"``: the lag grows and is reported. For files only.

    If a stream ends, stalls or breaks off, all that was decoded of it is returned, and the last report has a fault.

    Args:
        source: a path, a pipe (``"-"`` for standard input, the path of a FIFO), a device with its ``format``, an open
            file, or its file descriptor; an address as a :class:`~avfusion.media.NetworkStream`. As with
            :func:`load_media`, a path, pipe or open file never leads to another file or address.
        format: FFmpeg's name for a device or for data without a header: ``"v4l2"``, ``"alsa"``, ``"mpegts"``.
        options: FFmpeg options, such as ``{"video_size": "640x480"}``.
        audio_source: a separate source of the audio, such as a microphone beside a camera.
        audio_format: ``format`` of ``audio_source``.
        audio_options: ``options`` of ``audio_source``.
        frame_rate: frames per second.
        sample_rate: sample rate of the audio in Hz.
        size: ``(height, width)`` of the frames, or one number for both.
        video: whether to read video.
        audio: whether to read audio.
        audio_track: index of the audio track, as for :func:`load_media`.
        chunk_seconds: length of a chunk.
        realtime: whether to play a file in real time.
        on_lag: ``"skip"``, ``"slow"`` or ``"wait"``.
        max_lag: largest lag of a chunk in seconds.
        lowest_frame_rate: lower bound for ``on_lag="slow"``; by default a quarter of ``frame_rate``.
        max_wait: seconds that a chunk waits for a stream that is behind the other one. Later data of a live source is
            dropped (default 2 s), that of a file is in a later chunk (default 30 s).
        timeout: seconds without data after which a source counts as stalled.
        limits: memory limits. Limits on totals apply to each chunk, and the limit on gaps to files.
        clock: returns the time in seconds.
        sleep: waits for a number of seconds.

    Returns:
        An iterator of :class:`~avfusion.media.LiveChunk` and a context manager: a thread decodes ahead until it is
        closed.

    Raises:
        MediaError: the source cannot be opened, or has none of the requested streams.
        InvalidValueError: an argument is out of range.
        InvalidTypeError: ``source`` is not a source.

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
    inputs = [
        open_source(source, format=format, options=options, video=video, audio=audio and audio_source is None, **asked)
    ]
    try:
        if audio_source is not None:
            inputs.append(
                open_source(audio_source, format=audio_format, options=audio_options, video=False, audio=True, **asked)
            )
        files = {opened.is_file for opened in inputs}
        if len(files) > 1:
            raise InvalidValueError("audio_source: must be a file if the source is one, found one of each")
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
    """Checks arguments, and returns how often the frame rate may be halved."""
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

"""Chunks of a live source."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from avfusion.types import Video, Waveform

Stream = Literal["visual", "audio"]
FaultKind = Literal["died", "stalled", "clock", "format", "corrupt", "gap", "overlap", "missing", "late"]


class LiveFault(NamedTuple):
    """A fault of a live source.

    Attributes:
        kind: one of

            * ``"died"``: the source broke off;
            * ``"stalled"``: no data for longer than the timeout;
            * ``"clock"``: the clock of the source jumped by ``amount`` seconds; the clock of the chunks does not;
            * ``"format"``: the frame size or the audio format changed;
            * ``"corrupt"``: ``amount`` packets or frames were damaged or out of order;
            * ``"gap"``: ``amount`` seconds without audio were replaced by silence;
            * ``"overlap"``: ``amount`` seconds of audio were sent twice and used once;
            * ``"missing"``: the chunk lacks ``amount`` seconds of the stream;
            * ``"late"``: ``amount`` frames or seconds of audio arrived after their chunk and were dropped.
        stream: ``"visual"``, ``"audio"``, or None for both or neither.
        time: seconds on the stream's clock at which the fault was first seen.
        amount: total since the last chunk.
        message: a description.

    Example:
        >>> from avfusion.media import LiveFault
        >>> fault = LiveFault("gap", "audio", 12.5, 0.4, "0.4 s without audio")
        >>> f"{fault.time:.1f} s: {fault.message}"
        '12.5 s: 0.4 s without audio'
    """

    kind: FaultKind
    stream: Stream | None
    time: float
    amount: float
    message: str


class LiveReport(NamedTuple):
    """Timing, skipped data and faults of a chunk.

    Attributes:
        start: start of the chunk in seconds.
        end: end of the chunk in seconds.
        lag: seconds from ``end`` to the newest data of the source when the chunk was returned.
        frame_rate: current frame rate in frames per second.
        skipped_frames: frames skipped since the last chunk to reduce the lag.
        skipped_audio: seconds of audio skipped since the last chunk.
        faults: faults since the last chunk, at most one per kind and stream.

    Example:
        >>> from avfusion.media import LiveReport
        >>> report = LiveReport(0.0, 0.5, lag=0.1, frame_rate=2.0, skipped_frames=0, skipped_audio=0.0, faults=())
        >>> report.end - report.start, bool(report.faults)
        (0.5, False)
    """

    start: float
    end: float
    lag: float
    frame_rate: float
    skipped_frames: int
    skipped_audio: float
    faults: tuple[LiveFault, ...]


class LiveChunk(NamedTuple):
    """Audio and video of one interval of a live source, as a batch of one clip on the source's clock.

    Attributes:
        video: ``(1, frame, 3, height, width)`` uint8 frames whose spans end in the interval, or None.
        waveform: ``(1, sample)`` float32 audio of the interval, or None.
        watermark: seconds up to which ``"visual"`` and ``"audio"`` are complete; ``inf`` for a stream that has ended or
            does not exist.
        ended: whether this is the last chunk, which may be empty.
        report: timing, skipped data and faults.

    Example:
        >>> from avfusion.media import LiveChunk, LiveReport
        >>> report = LiveReport(0.0, 0.5, lag=0.1, frame_rate=2.0, skipped_frames=0, skipped_audio=0.0, faults=())
        >>> chunk = LiveChunk(None, None, {"visual": 0.5, "audio": 0.5}, ended=False, report=report)
        >>> chunk.watermark["audio"]  # for the watermark of the connector or the session
        0.5
    """

    video: Video | None
    waveform: Waveform | None
    watermark: dict[str, float]
    ended: bool
    report: LiveReport


def merged(faults: Iterable[LiveFault]) -> tuple[LiveFault, ...]:
    """Merges faults of the same kind and stream: the first one, with the sum of the amounts."""
    found: dict[tuple[str, str | None], LiveFault] = {}
    for fault in faults:
        known = found.get((fault.kind, fault.stream))
        amount = fault.amount + (known.amount if known else 0)
        found[fault.kind, fault.stream] = (known or fault)._replace(amount=amount)
    return tuple(found.values())

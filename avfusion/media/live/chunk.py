"""What a live source gives."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from avfusion.types import Video, Waveform

Stream = Literal["visual", "audio"]
FaultKind = Literal["died", "stalled", "clock", "format", "corrupt", "gap", "overlap", "missing", "late"]


class LiveFault(NamedTuple):
    """Something that went wrong, and what was done about it.

    Attributes:
        kind: ``"died"`` (the source broke off), ``"stalled"`` (nothing came for longer than the timeout), ``"clock"``
            (its clock jumped by ``amount`` seconds; time goes on), ``"format"`` (the size of its pictures or the kind
            of its sound changed), ``"corrupt"`` (``amount`` packets or pictures that were damaged, or out of order),
            ``"gap"`` (``amount`` seconds without sound, which became silence), ``"overlap"`` (``amount`` seconds of
            sound that came twice, and were taken once), ``"missing"`` (the chunk goes without ``amount`` seconds of the
            stream), ``"late"`` (``amount`` pictures or seconds of sound came after their chunk, and were left out).
        stream: ``"visual"``, ``"audio"``, or None where it is both or neither.
        time: seconds on the stream's clock at which it was first noticed.
        amount: how much of it there was since the last chunk.
        message: the same in words.

    Example:
        >>> from avfusion.media import LiveFault
        >>> fault = LiveFault("gap", "audio", 12.5, 0.4, "0.4 s without sound")
        >>> f"{fault.time:.1f} s: {fault.message}"
        '12.5 s: 0.4 s without sound'
    """

    kind: FaultKind
    stream: Stream | None
    time: float
    amount: float
    message: str


class LiveReport(NamedTuple):
    """How a chunk came about.

    Attributes:
        start: seconds at which the chunk's stretch of time begins.
        end: seconds at which it ends.
        lag: seconds by which ``end`` was behind the source when the chunk was handed out.
        frame_rate: pictures a second at present.
        skipped_pictures: that were left out since the last chunk, to keep up.
        skipped_sound: seconds of sound that were.
        faults: what went wrong since the last chunk, at most one of a kind and stream.

    Example:
        >>> from avfusion.media import LiveReport
        >>> report = LiveReport(0.0, 0.5, lag=0.1, frame_rate=2.0, skipped_pictures=0, skipped_sound=0.0, faults=())
        >>> report.end - report.start, bool(report.faults)
        (0.5, False)
    """

    start: float
    end: float
    lag: float
    frame_rate: float
    skipped_pictures: int
    skipped_sound: float
    faults: tuple[LiveFault, ...]


class LiveChunk(NamedTuple):
    """What was seen and heard for a moment: a batch of one, on the source's clock.

    Attributes:
        video: the pictures ``(1, frame, 3, height, width)`` uint8 of the spans that ended in this moment, or None.
        waveform: the sound ``(1, sample)`` float32 of this moment, or None.
        watermark: seconds up to which ``"visual"`` and ``"audio"`` are complete; ``inf`` for one that has ended, or
            that the source does not have.
        ended: whether this is the last chunk, which may be empty.
        report: lag, what was skipped, and faults.

    Example:
        >>> from avfusion.media import LiveChunk, LiveReport
        >>> report = LiveReport(0.0, 0.5, lag=0.1, frame_rate=2.0, skipped_pictures=0, skipped_sound=0.0, faults=())
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
    """One fault of each kind and stream: the first, with the amounts of all."""
    found: dict[tuple[str, str | None], LiveFault] = {}
    for fault in faults:
        known = found.get((fault.kind, fault.stream))
        amount = fault.amount + (known.amount if known else 0)
        found[fault.kind, fault.stream] = (known or fault)._replace(amount=amount)
    return tuple(found.values())

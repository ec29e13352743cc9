"""A thread that decodes an open source into pieces."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain
from math import inf
from typing import Any

from av import AudioFrame, FFmpegError, VideoFrame
from PIL import Image
from torch import Tensor

from avfusion.errors import MediaError
from avfusion.media._audio import AudioCollector, AudioSegment
from avfusion.media._decoding import decode, packets_of
from avfusion.media._frames import CollectedFrame, FrameCollector
from avfusion.media._limits import LimitError
from avfusion.media._stills import is_animated, read_animation, read_still
from avfusion.media._streams import beginning, first_frames, is_image, key_before
from avfusion.media._time import PREROLL, TICK, seconds
from avfusion.media._timeline import Timeline
from avfusion.media._truncation import Stated, bytes_are_missing
from avfusion.media.live.backlog import Backlog, ClosedError, Piece
from avfusion.media.live.chunk import FaultKind, LiveFault, Stream, merged
from avfusion.media.live.opening import Opened, is_timeout
from avfusion.media.live.shared import Kept, Start

_AHEAD = 10.0  # seconds that a live clock may jump ahead, beyond the time that passed
_FAR = 5.0  # distance in seconds from which seeking is faster than decoding
_STREAMS: dict[str, Stream] = {"video": "visual", "audio": "audio"}


class Reader:
    """Decodes a source until it ends or the backlog is closed.

    Args:
        opened: the source.
        backlog: receives the pieces.
        kept: format of the frames and audio.
        clock: returns the time in seconds.
        start: the shared time 0 of several live sources.
    """

    def __init__(
        self,
        opened: Opened,
        backlog: Backlog,
        kept: Kept,
        *,
        clock: Callable[[], float],
        start: Start | None,
    ) -> None:
        self._opened, self._backlog, self._kept, self._clock, self._start = opened, backlog, kept, clock, start
        self._timeline = Timeline(ahead=min(0.999 * kept.limits.gap_seconds, 1e9) if opened.is_file else _AHEAD)
        self._stated = Stated(opened.container) if opened.container is not None else None
        self._zero = Fraction(0)
        self._pictures, self._sound = self._fresh()
        self._still: Tensor | None = None  # the frame of an image file
        self._count = 0  # number of frames so far
        self._is_image = False
        self._kinds: dict[Stream, tuple[object, ...]] = {}
        self._faults: list[LiveFault] = []
        rate = opened.pictured.average_rate if opened.pictured is not None else None
        self._picture_lasts = float(1 / rate) if rate else TICK
        self._came = clock()
        self._now = 0.0  # newest timestamp of the source in seconds

    def run(self) -> None:
        """The body of the thread: puts pieces, the last of each stream marked as such."""
        error: BaseException | None = None
        try:
            try:
                self._read()
            finally:
                self._opened.close()
        except ClosedError:
            return
        except BaseException as caught:  # noqa: BLE001  # it is raised where the chunks are taken
            error = caught
        with contextlib.suppress(ClosedError):
            self._end(self._finish() if error is None else error)

    def _read(self) -> None:
        opened = self._opened
        if opened.image is not None and not is_animated(opened.image):
            self._still = self._look(opened.image)
            if opened.file is not None:
                opened.file.check()
            return
        frames = self._frames()
        head = first_frames(frames, len(opened.streams))
        if opened.container is not None:
            self._is_image = is_image(opened.container)
            self._zero = beginning(opened.container, head)
        if self._start is not None:
            self._zero -= Fraction(self._start.since(self._clock()))
        self._pictures, self._sound = self._fresh()
        for frame in chain(head, frames):
            if isinstance(frame, VideoFrame):
                self._collect(partial(self._see, frame), "video")
            else:
                self._collect(partial(self._hear, frame), "audio")

    def _look(self, image: Image.Image) -> Tensor:
        """The frame of an image file, or its decoded part."""
        try:
            return read_still(image, self._kept.size)
        except MediaError:
            self._damaged("video")
            return read_still(image, self._kept.size, partial=True)

    def _fresh(self) -> tuple[FrameCollector, AudioCollector]:
        kept, limits = self._kept, self._kept.limits
        if not self._opened.is_file:  # a stream may run for weeks
            limits = replace(limits, total_gap_seconds=inf)
        clip: dict[str, Any] = {"zero": self._zero, "begin": 0.0, "end": inf, "limits": limits}
        return (
            FrameCollector(frame_rate=kept.frame_rate, size=kept.size, one_size=True, **clip),
            AudioCollector(sample_rate=kept.sample_rate, **clip),
        )

    def _frames(self) -> Iterator[VideoFrame | AudioFrame]:
        """All frames of the source, until it ends or fails."""
        opened = self._opened
        streams = opened.pictured, opened.sounding
        try:
            again = True
            while again:
                again = False
                for frame in self._decoded():
                    yield frame
                    if opened.file is not None:
                        opened.file.deadline.restart()  # an error that concerns the next frame
                    if again := self._goes_ahead():
                        break
            if opened.file is not None:
                opened.file.check()
            if self._stated is not None:
                self._stated.check(streams)
            if opened.path is not None and bytes_are_missing(opened.path):
                raise MediaError("is cut short: bytes are missing at its end")
        except MediaError as error:
            late = opened.file is not None and opened.file.deadline.passed
            self._fault("stalled" if late else "died", None, 0.0, "nothing came any more" if late else str(error))
        except (FFmpegError, TimeoutError) as error:
            if is_timeout(error):
                self._fault("stalled", None, 0.0, "nothing came any more")
            else:
                self._fault("died", None, 0.0, f"broke off ({error.strerror})")

    def _decoded(self) -> Iterator[VideoFrame | AudioFrame]:
        opened = self._opened
        if opened.image is not None:
            return read_animation(opened.image)
        assert opened.container is not None
        assert self._stated is not None
        return decode(packets_of(opened.container, (opened.pictured, opened.sounding), self._stated), self._damaged)

    def _goes_ahead(self) -> bool:
        """Seeks to the time that is wanted next, if that is far ahead and the file has an index."""
        wanted = self._backlog.wanted
        container = self._opened.container
        if container is None or not self._opened.is_file or wanted - self._now < _FAR:
            return False
        at, self._now = self._now, wanted  # once per requested time
        stream = self._opened.pictured or self._opened.sounding
        known = None if stream is None else key_before(stream, self._zero + Fraction(wanted - PREROLL))
        if known is None or known - self._zero < at + 1:
            return False
        try:
            container.seek(int(known * 1_000_000))
        except FFmpegError:
            return False
        self._timeline.forget()
        self._pictures, self._sound = self._fresh()
        return True

    def _see(self, frame: VideoFrame) -> None:
        self._notice("visual", (frame.width, frame.height), f"frames of {frame.width} × {frame.height}")
        if not self._fit(frame, "visual", seconds(frame.duration, frame.time_base) or Fraction(0)):
            return
        self._pictures.add(frame)
        self._count += 1
        self._put("visual")

    def _hear(self, frame: AudioFrame) -> None:
        kind = (frame.sample_rate, frame.layout.name, frame.format.name)
        self._notice("audio", kind, f"audio of {kind[0]} Hz, {kind[1]}")
        self._fit(frame, "audio", Fraction(frame.samples, frame.sample_rate))
        jump = self._sound.add(frame)
        if jump > 0:
            self._fault("gap", "audio", jump, "no audio for a while: silence")
        elif jump < 0:
            self._fault("overlap", "audio", -jump, "audio that came twice was taken once")
        self._put("audio")

    def _fit(self, frame: VideoFrame | AudioFrame, stream: Stream, lasts: Fraction) -> bool:
        """Maps the frame's timestamp to the timeline, and returns whether it is in order."""
        live, came = not self._opened.is_file, self._clock()
        waited, self._came = (came - self._came if live else 0.0), came
        at = seconds(frame.pts, frame.time_base)
        if at is None or frame.time_base is None:
            return True
        fit = self._timeline.fit(stream, at - self._zero, lasts, waited=waited)
        if fit.shift:
            at += fit.shift
            frame.pts = round(at / frame.time_base)
        if fit.jump:
            self._fault("clock", None, fit.jump, f"its clock jumped by {fit.jump:.3f} s: time goes on")
        self._now = max(self._now, float(at - self._zero))
        if stream == "visual" and at - self._zero < self._pictures.since - TICK:
            self._fault("corrupt", stream, 1, "packets or frames were damaged, or came out of order")
            return False
        return True

    def _notice(self, stream: Stream, kind: tuple[object, ...], words: str) -> None:
        if self._kinds.setdefault(stream, kind) != kind:
            self._kinds[stream] = kind
            self._fault("format", stream, 1, f"{words} from here on")

    def _damaged(self, kind: str, *told: object) -> None:
        self._fault("corrupt", _STREAMS[kind], 1, "packets or frames were damaged, or came out of order")

    def _fault(self, kind: FaultKind, stream: Stream | None, amount: float, words: str) -> None:
        fault = LiveFault(kind, stream, self._now, amount, f"{self._opened.name}: {words}")
        self._faults = [*merged([*self._faults, fault])]

    def _put(self, stream: Stream, *, ended: bool = False, error: BaseException | None = None) -> None:
        seen: Sequence[CollectedFrame] = self._pictures.take() if stream == "visual" else ()
        if stream == "visual" and ended and self._still is not None:
            seen = [CollectedFrame(None, self._still)]
        heard: Sequence[AudioSegment] = self._sound.take() if stream == "audio" else ()
        watermark = (self._pictures if stream == "visual" else self._sound).watermark
        faults, self._faults = tuple(self._faults), []
        self._backlog.put(Piece(stream, seen, heard, self._sound.begin, watermark, faults, ended, error))

    def _finish(self) -> BaseException | None:
        """Flushes the decoders; returns an error that is not damage."""
        for kind, close in (("video", self._close_pictures), ("audio", self._sound.close)):
            try:
                self._collect(close, kind)
            except BaseException as error:  # noqa: BLE001  # whoever takes the chunks would wait for ever
                return error
        return None

    def _close_pictures(self) -> None:
        if self._count == 1 and self._is_image:
            self._still = self._pictures.still().pixels[0, 0]
        else:
            self._pictures.close(fallback_duration=self._picture_lasts)

    def _collect(self, take: Callable[[], None], kind: str) -> None:
        """Collects a frame. Errors other than limits count as damage."""
        try:
            take()
        except LimitError as error:
            raise MediaError(f"{self._opened.name}: {error}") from error
        except (FFmpegError, MediaError):
            self._damaged(kind)

    def _end(self, error: BaseException | None) -> None:
        # Video last, because the duration of the last frame is known only now: so the last chunk is rarely empty.
        streams = self._opened.streams[::-1]
        faults = self._faults
        for stream in streams:
            self._faults = faults if stream == streams[-1] else []
            try:
                self._put(stream, ended=True, error=error)
            except ClosedError:
                raise
            except BaseException as caught:  # noqa: BLE001  # the end comes in any case
                error = error or caught
                self._backlog.put(Piece(stream, (), (), 0.0, 0.0, (), ended=True, error=error))

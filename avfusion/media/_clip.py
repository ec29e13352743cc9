"""Decoding the part of a file between two times."""

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

from av import AudioFrame, AudioStream, FFmpegError, VideoFrame, VideoStream
from av.container import InputContainer

from avfusion.errors import MediaError
from avfusion.media._audio import AudioCollector
from avfusion.media._damage import Damage
from avfusion.media._decoding import Frames, MissedError, decode, decode_from, packets_of
from avfusion.media._frames import FrameCollector
from avfusion.media._limits import check_sizes, limit_stream
from avfusion.media._media import Media
from avfusion.media._opening import MediaFile, open_container
from avfusion.media._request import Request
from avfusion.media._streams import beginning, choose_streams, first_frames, is_image
from avfusion.media._time import PREROLL, TICK, BackwardsError
from avfusion.media._timeline import Timeline
from avfusion.media._truncation import Stated
from avfusion.types import Video, Waveform

_EXACT = ("mov", "matroska", "webm")  # with an exact index of frames and timestamps
_JOINED = ("ogg", "mpeg", "mpegts")  # files may be concatenated, each with its own clock
_WHOLE = ("gif", "apng", "ogg")  # read from the beginning: seeking is unreliable, or the clock may restart


def read_clip(file: MediaFile, request: Request, damage: Damage) -> tuple[Media, bool]:
    """Decodes the clip of a request."""
    if request.start > 0 and request.video:
        try:
            return _read(file, request, Damage("error"), cut=True)
        except (MissedError, FFmpegError, MediaError):
            file.check()
    return _read(file, request, damage, cut=False)


def _read(file: MediaFile, request: Request, damage: Damage, *, cut: bool) -> tuple[Media, bool]:
    file.seek(0)
    try:
        with open_container(file, limits=request.limits) as container:
            clip = _Clip(file, container, request, damage, cut=cut)
            if not cut:
                found = clip.read_whole(container)
            elif clip.pictured is None or container.start_time is None or _is_one_of(container, _WHOLE):
                raise MissedError
            else:
                found = None
        if found is None:
            found = clip.read_cut()
    except (FFmpegError, MediaError):
        file.check()  # after the deadline a file appears truncated, which says nothing about it
        raise
    file.check()
    return found


class _Clip:
    """One pass over a file."""

    def __init__(
        self, file: MediaFile, container: InputContainer, request: Request, damage: Damage, *, cut: bool
    ) -> None:
        self._file, self._request, self._damage = file, request, damage
        self._choose(container)
        self._exact = _is_one_of(container, _EXACT)
        self._timeline = Timeline(ahead=1e9) if _is_one_of(container, _JOINED) and not cut else None
        damage.since = beginning(container, ()) + Fraction(request.start - PREROLL)
        self._frames = self._decode(container, self.pictured, self.sounding)
        self._head = first_frames(self._frames, (self.pictured is not None) + (self.sounding is not None))
        self._zero = beginning(container, self._head)
        self._pictures, self._sound = to_collectors(request, self._zero)

    def _choose(self, container: InputContainer) -> None:
        request = self._request
        self.pictured, self.sounding = choose_streams(
            container, video=request.video, audio=request.audio, audio_track=request.audio_track
        )
        limit_stream(self.pictured, request.limits)
        self._stated, self._container = Stated(container), container

    def _decode(self, container: InputContainer, *streams: VideoStream | AudioStream | None) -> Frames:
        return decode(packets_of(container, streams, self._stated), self._damaged)

    def _damaged(self, kind: str, what: str, time: Fraction | None, error: FFmpegError | None) -> None:
        if kind == "video" and error is not None and self._damage.policy == "error":
            check_sizes(self._container, self._request.limits, error)
        self._damage.packet(kind, what, time)

    def read_whole(self, container: InputContainer) -> tuple[Media, bool]:
        """Decodes everything up to the end of the clip."""
        complete = self._take(chain(self._head, self._frames), self.pictured, self.sounding)
        return self._finish(container), complete

    def read_cut(self) -> tuple[Media, bool]:
        """Decodes from the last key frame before the clip.

        Raises:
            MissedError: decoding cannot begin there.
        """
        since = self._zero + Fraction(self._request.start - PREROLL)
        self._head = []
        complete = True
        self._file.seek(0)
        with open_container(self._file, limits=self._request.limits) as container:
            self._choose(container)
            pictured, sounding = self.pictured, None if self._exact else self.sounding
            assert pictured is not None
            sought = self._exact and since > self._zero
            if sought:
                container.seek(math.floor(since / (pictured.time_base or 1)), stream=pictured)
            frames = decode_from(
                packets_of(container, (pictured, sounding), self._stated),
                pictured,
                since,
                self._damaged,
                sought=sought,
            )
            complete = self._take(frames, pictured, sounding)
            if self._pictures.first is None or self._pictures.first > 0 or self._pictures.ends_by_guess:
                raise MissedError
            if sounding is self.sounding:
                return self._finish(container), complete
        self._file.seek(0)
        with open_container(self._file, limits=self._request.limits) as container:
            self._choose(container)
            complete &= self._take(self._decode(container, self.sounding), None, self.sounding)
            return self._finish(container), complete

    def _take(self, frames: Frames, pictured: VideoStream | None, sounding: AudioStream | None) -> bool:
        """Collects frames up to the end of the clip, and returns whether the file ended before it."""
        for frame in self._until_broken(frames):
            self._file.deadline.check()
            try:
                self._add(frame)
            except BackwardsError as error:
                self._damage.whole(error)
            if (pictured is None or self._pictures.done) and (sounding is None or self._sound.done):
                return False
        try:
            self._stated.check((pictured, sounding))
        except MediaError as error:
            self._damage.whole(error)
        return True

    def _add(self, frame: VideoFrame | AudioFrame) -> None:
        if self._timeline is not None:
            self._timeline.place(frame, self._zero)
        if isinstance(frame, VideoFrame):
            self._pictures.add(frame)
        else:
            self._sound.add(frame)

    def _until_broken(self, frames: Frames) -> Iterator[VideoFrame | AudioFrame]:
        try:
            yield from frames
        except FFmpegError as error:
            self._file.check()
            if self._damage.policy == "error":
                raise
            self._damage.whole(MediaError(f"breaks off ({error.strerror})"))

    def _finish(self, container: InputContainer) -> Media:
        pictures, request = self._pictures, self._request
        if pictures.count == 1 and is_image(container):
            return Media(pictures.still(), None, 0.0, self._damage.told)
        rate = self.pictured.average_rate if self.pictured is not None else None
        video = pictures.finish(fallback_duration=float(1 / rate) if rate else TICK)
        waveform = self._sound.finish()
        ends = [pictures.end] * (video is not None) + [self._sound.end] * (waveform is not None)
        ends = ends or [pictures.end, self._sound.end]
        return to_media(video, waveform, max(ends), request, self._damage.told)


def to_collectors(request: Request, zero: Fraction) -> tuple[FrameCollector, AudioCollector]:
    """The collectors of the clip's video and audio."""
    clip: dict[str, Any] = {"zero": zero, "begin": request.start, "end": request.end, "limits": request.limits}
    return (
        FrameCollector(frame_rate=request.frame_rate, size=request.size, **clip),
        AudioCollector(sample_rate=request.sample_rate, **clip),
    )


def to_media(
    video: Video | None, waveform: Waveform | None, ends: float, request: Request, skipped: tuple[str, ...] = ()
) -> Media:
    """The clip, which ends at ``ends`` seconds.

    Raises:
        MediaError: the clip is empty.
    """
    if video is not None or waveform is not None:
        return Media(video, waveform, ends, skipped)
    if ends == -math.inf:
        raise MediaError("holds nothing that can be decoded")
    raise MediaError(
        f"holds nothing between {request.start} s and {request.end} s, it ends at {request.start + ends:.3f} s"
    )


def _is_one_of(container: InputContainer, names: tuple[str, ...]) -> bool:
    return any(name in names for name in container.format.name.split(","))

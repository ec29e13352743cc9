"""Selects the decoded frames of a clip and converts them to a :class:`~avfusion.Video`."""

import math
from collections.abc import Iterable
from fractions import Fraction
from mmap import mmap
from typing import NamedTuple

import torch
from av import VideoFrame
from torch import Tensor

from avfusion.errors import MediaError
from avfusion.media._limits import Gaps, MediaLimits, check_picture, check_pictures
from avfusion.media._orientation import Matrix, display_matrix, to_tensor
from avfusion.media._time import TICK, BackwardsError, seconds
from avfusion.types import Video


class CollectedFrame(NamedTuple):
    """The frame of a span.

    Attributes:
        place: index of the span; None for a still image.
        pixels: ``(3, height, width)`` uint8 RGB.
    """

    place: int | None
    pixels: Tensor


class FrameCollector:
    """Collects the frames of a clip ``[begin, end)`` from decoded frames in display order.

    Args:
        zero: seconds on the file's clock at which the clip's clock is 0, before ``begin``.
        begin: start of the clip in seconds.
        end: end of the clip in seconds; ``inf`` for the whole file.
        frame_rate: spans per second, or None to keep every frame with its own span.
        size: ``(height, width)`` of the result, or None for the decoded size.
        limits: limits on frames that were not taken yet.
        one_size: without ``size``, whether to resize all frames to the size of the first.
    """

    def __init__(
        self,
        *,
        zero: Fraction,
        begin: float,
        end: float,
        frame_rate: float | None,
        size: tuple[int, int] | None,
        limits: MediaLimits,
        one_size: bool = False,
    ) -> None:
        self.first: float | None = None
        self.end = -math.inf
        self.since = -math.inf  # start time of the current frame
        self.done = False
        self.count = 0
        self._origin = zero + Fraction(begin)
        self._begin, self._length = begin, end - begin
        self._frame_rate = frame_rate
        self._size = size
        self._limits = limits
        self._gaps = Gaps("frame", limits)
        self._one_size = one_size
        self._shown: VideoFrame | None = None
        self._matrices: dict[int, Matrix] = {}
        self._gap = 0.0
        self._next = 0
        self._pixels: list[Tensor] = []
        self._spans: list[tuple[float, float]] = []

    def add(self, frame: VideoFrame) -> None:
        check_picture(frame.height, frame.width, self._limits)
        shown = seconds(frame.pts, frame.time_base)
        follows = -self._begin if self._shown is None else self.end  # if it has no timestamp
        time = follows if shown is None else float(shown - self._origin)
        if self._shown is None:
            self.first = time
            self._gaps.add(0.0 - self._begin, min(time, self._length), since=0.0 - self._begin)
            if self._frame_rate is not None:
                self._next = max(0, math.floor((time + TICK) * self._frame_rate))
        else:
            if time < self.since - TICK:
                raise BackwardsError(f"frame times go back, from {self.since:.3f} s to {time:.3f} s")
            self._gaps.add(self.end, min(time, max(self.end, self._length)), since=self.since)
            self._keep(until=time)
            self._gap = time - self.since or self._gap
        self.count += 1
        self._shown, self.since = frame, time
        self.end = time + float(seconds(frame.duration, frame.time_base) or self._gap)
        self.done = time >= self._length - TICK

    def _keep(self, until: float) -> None:
        """Keeps the current frame, which is shown until ``until``, if it is in the clip."""
        if self._frame_rate is None:
            span = (max(self.since, 0.0), min(until, self._length))
            if span[1] - span[0] > TICK:
                self._check(1)
                self._pixels.append(_apart(self._picture()))
                self._spans.append(span)
            return
        self._check((min(until, self._length) - TICK) * self._frame_rate - 0.5 - self._next)
        count = 0
        while (self._next + count + 0.5) / self._frame_rate < min(until, self._length) - TICK:
            count += 1
        self._hold(count)

    def _hold(self, count: int) -> None:
        if count > 0:
            self._check(count)
            self._pixels += [_apart(self._picture())] * count
            self._next += count

    def _check(self, more: float) -> None:
        """Raises LimitError if this many copies of the current frame exceed the limits."""
        if self._shown is not None and more > 0:
            height, width = self._size or (self._shown.height, self._shown.width)
            check_pictures(len(self._pixels) + more, height, width, self._limits)

    def _picture(self) -> Tensor:
        assert self._shown is not None
        pixels = to_tensor(self._shown, self._size, self._display())
        if self._one_size and self._size is None:
            self._size = (pixels.shape[1], pixels.shape[2])
        return pixels

    def _display(self) -> Matrix:
        """The display matrix of the current frame; computed once per angle, because a video states it once."""
        assert self._shown is not None
        angle = self._shown.rotation
        if angle not in self._matrices:
            self._matrices[angle] = display_matrix(self._shown)
        return self._matrices[angle]

    def close(self, *, fallback_duration: float) -> None:
        """Ends the stream: the last frame is shown to its end."""
        self.done = True
        if self._shown is None or self.first is None or self.first >= self._length:
            return
        if self.end - self.since <= TICK:
            self.end = self.since + max(fallback_duration, 2 * TICK)
        self.end = min(self.end, self._length)
        if self.end <= TICK:
            return
        self._keep(until=self.end)
        if self._frame_rate is not None:
            # A last span whose middle is past the end shows the last frame, so that its part of the video is not lost.
            self._hold(math.ceil((self.end - TICK) * self._frame_rate) - self._next)

    def take(self) -> list[CollectedFrame]:
        """The frames of all spans that were completed since the last call, in order."""
        first = self._next - len(self._pixels)
        taken = [CollectedFrame(first + place, pixels) for place, pixels in enumerate(self._pixels)]
        self._pixels = []
        return taken

    @property
    def watermark(self) -> float:
        """Seconds up to which all frames have been taken: the end of a span."""
        assert self._frame_rate is not None
        known = self._next / self._frame_rate
        return known if self.done else max(0.0, min(known, self.since))

    @property
    def ends_by_guess(self) -> bool:
        """Whether the duration of the last frame is unknown, because it is the only frame so far."""
        return not self.done and self.end <= self.since

    def finish(self, *, fallback_duration: float) -> Video | None:
        """The frames of the clip, or None."""
        self.close(fallback_duration=fallback_duration)
        if not self._pixels:
            return None
        sizes = {tuple(picture.shape[1:]) for picture in self._pixels}
        if len(sizes) > 1:
            found = " and ".join(f"{height} × {width}" for height, width in sorted(sizes))
            raise MediaError(f"its frames change size ({found}); size=... makes them one")
        pixels = _stacked(self._pixels)
        if self._frame_rate is None:
            spans = torch.tensor(self._spans, dtype=torch.float64)
        else:
            spans = spans_of(range(self._next - len(pixels), self._next), self._frame_rate)
        return Video(pixels[None], torch.ones(1, len(pixels), dtype=torch.bool), spans[None])

    def still(self) -> Video:
        """The frame of an image file."""
        assert self._shown is not None
        return Video.from_image(self._picture()[None])


def _apart(picture: Tensor) -> Tensor:
    """A large frame in a memory mapping of its own, which is returned to the system when freed; the heap would keep
    it.
    """
    if picture.numel() < 2**20:
        return picture
    return torch.frombuffer(mmap(-1, picture.numel()), dtype=torch.uint8).view(picture.shape).copy_(picture)


def _stacked(pictures: list[Tensor]) -> Tensor:
    """Stacks frames into one tensor, and frees each after it is copied, so that memory never holds all twice."""
    stacked = torch.empty(len(pictures), *pictures[0].shape, dtype=torch.uint8)
    for place in reversed(range(len(pictures))):
        stacked[place] = pictures.pop()
    return stacked


def spans_of(places: Iterable[int], frame_rate: float) -> Tensor:
    """``(place, 2)`` seconds: the spans with these indices."""
    first = torch.tensor([*places], dtype=torch.float64)
    return torch.stack([first, first + 1], -1) / frame_rate

"""Decoded pictures to a :class:`~avfusion.Video`, one at a time, keeping only those that are wanted."""

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


class Seen(NamedTuple):
    """The picture of a span.

    Attributes:
        place: of its span on the grid; None for a still image.
        pixels: ``(3, height, width)`` uint8 RGB.
    """

    place: int | None
    pixels: Tensor


class Pictures:
    """Takes decoded pictures in the order they are shown and keeps what a clip ``[begin, end)`` needs of them.

    Args:
        zero: seconds on the file's clock that the clip's clock calls 0, before ``begin``.
        begin: seconds at which the clip begins.
        end: seconds at which it ends; ``inf`` for the whole file.
        frame_rate: spans a second, or None for every picture with its own span.
        size: ``(height, width)`` of what is kept, or None for as decoded.
        limits: on what is kept until it is taken.
        one_size: whether, without a ``size``, all are kept in that of the first.
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
        self.since = -math.inf  # when the picture on display came
        self.done = False
        self.count = 0
        self._origin = zero + Fraction(begin)
        self._begin, self._length = begin, end - begin
        self._frame_rate = frame_rate
        self._size = size
        self._limits = limits
        self._gaps = Gaps("picture", limits)
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
        follows = -self._begin if self._shown is None else self.end  # where nothing tells its time
        time = follows if shown is None else float(shown - self._origin)
        if self._shown is None:
            self.first = time
            self._gaps.add(0.0 - self._begin, min(time, self._length), since=0.0 - self._begin)
            if self._frame_rate is not None:
                self._next = max(0, math.floor((time + TICK) * self._frame_rate))
        else:
            if time < self.since - TICK:
                raise BackwardsError(f"picture times go back, from {self.since:.3f} s to {time:.3f} s")
            self._gaps.add(self.end, min(time, max(self.end, self._length)), since=self.since)
            self._keep(until=time)
            self._gap = time - self.since or self._gap
        self.count += 1
        self._shown, self.since = frame, time
        self.end = time + float(seconds(frame.duration, frame.time_base) or self._gap)
        self.done = time >= self._length - TICK

    def _keep(self, until: float) -> None:
        """Keeps the picture on display, which is replaced at ``until``, if the clip shows it."""
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
        """Raises LimitError if so many more of the picture on display are too many."""
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
        """How the picture on display is to be shown: a video says so once, so it is looked up once for each angle."""
        assert self._shown is not None
        angle = self._shown.rotation
        if angle not in self._matrices:
            self._matrices[angle] = display_matrix(self._shown)
        return self._matrices[angle]

    def close(self, *, fallback_duration: float) -> None:
        """After the last picture, which is shown to its end."""
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
            # A last span whose middle lies past the end shows the last picture: what it covers is not lost.
            self._hold(math.ceil((self.end - TICK) * self._frame_rate) - self._next)

    def take(self) -> list[Seen]:
        """The pictures of the spans that have become known since the last time, in order."""
        first = self._next - len(self._pixels)
        taken = [Seen(first + place, pixels) for place, pixels in enumerate(self._pixels)]
        self._pixels = []
        return taken

    @property
    def watermark(self) -> float:
        """Seconds up to which all pictures have been taken: at the end of a span, not already at its middle."""
        assert self._frame_rate is not None
        known = self._next / self._frame_rate
        return known if self.done else max(0.0, min(known, self.since))

    @property
    def ends_by_guess(self) -> bool:
        """Whether nothing tells how long the last picture is shown, because it is the only one so far."""
        return not self.done and self.end <= self.since

    def finish(self, *, fallback_duration: float) -> Video | None:
        """The pictures of the clip, or None where it has none."""
        self.close(fallback_duration=fallback_duration)
        if not self._pixels:
            return None
        sizes = {tuple(picture.shape[1:]) for picture in self._pixels}
        if len(sizes) > 1:
            found = " and ".join(f"{height} × {width}" for height, width in sorted(sizes))
            raise MediaError(f"its pictures change size ({found}); size=... makes them one")
        pixels = _stacked(self._pixels)
        if self._frame_rate is None:
            spans = torch.tensor(self._spans, dtype=torch.float64)
        else:
            spans = spans_of(range(self._next - len(pixels), self._next), self._frame_rate)
        return Video(pixels[None], torch.ones(1, len(pixels), dtype=torch.bool), spans[None])

    def still(self) -> Video:
        """The one picture of an image file."""
        assert self._shown is not None
        return Video.from_image(self._picture()[None])


def _apart(picture: Tensor) -> Tensor:
    """A large picture in memory that goes back to the system with it; the heap would keep twice as much for all."""
    if picture.numel() < 2**20:
        return picture
    return torch.frombuffer(mmap(-1, picture.numel()), dtype=torch.uint8).view(picture.shape).copy_(picture)


def _stacked(pictures: list[Tensor]) -> Tensor:
    """The pictures in one tensor; each is let go as soon as it is there, so that all are never there twice."""
    stacked = torch.empty(len(pictures), *pictures[0].shape, dtype=torch.uint8)
    for place in reversed(range(len(pictures))):
        stacked[place] = pictures.pop()
    return stacked


def spans_of(places: Iterable[int], frame_rate: float) -> Tensor:
    """``(place, 2)`` seconds: the spans at these places of the grid."""
    first = torch.tensor([*places], dtype=torch.float64)
    return torch.stack([first, first + 1], -1) / frame_rate

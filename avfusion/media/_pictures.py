"""Decoded pictures to a :class:`~avfusion.Video`, one at a time, keeping only those that are wanted."""

import math
import struct
from fractions import Fraction

import torch
from av import VideoFrame
from torch import Tensor

from avfusion.errors import MediaError
from avfusion.media._time import LONGEST_GAP, TICK, seconds
from avfusion.types import Video


class Pictures:
    """Takes decoded pictures in the order they are shown and keeps what a clip ``[begin, end)`` needs of them.

    Args:
        zero: seconds on the file's clock that the clip's clock calls 0, before ``begin``.
        begin: seconds at which the clip begins.
        end: seconds at which it ends; ``inf`` for the whole file.
        frame_rate: spans a second, or None for every picture with its own span.
        size: ``(height, width)`` of what is kept, or None for as decoded.
    """

    def __init__(
        self, *, zero: Fraction, begin: float, end: float, frame_rate: float | None, size: tuple[int, int] | None
    ) -> None:
        self.first: float | None = None
        self.end = -math.inf
        self.done = False
        self.count = 0
        self._origin = zero + Fraction(begin)
        self._length = end - begin
        self._frame_rate = frame_rate
        self._size = size
        self._shown: VideoFrame | None = None
        self._since = 0.0
        self._gap = 0.0
        self._next = 0
        self._pixels: list[Tensor] = []
        self._spans: list[tuple[float, float]] = []

    def add(self, frame: VideoFrame) -> None:
        shown = seconds(frame.pts, frame.time_base)
        time = max(self.end, 0.0) if shown is None else float(shown - self._origin)
        if self._shown is None:
            self.first = time
            if self._frame_rate is not None:
                self._next = max(0, math.floor((time + TICK) * self._frame_rate))
        else:
            if time < self._since - TICK:
                raise MediaError(f"picture times go back, from {self._since:.3f} s to {time:.3f} s")
            if time > self._since + LONGEST_GAP:
                raise MediaError(f"picture times jump, from {self._since:.3f} s to {time:.3f} s")
            self._keep(until=time)
            self._gap = time - self._since or self._gap
        self.count += 1
        self._shown, self._since = frame, time
        self.end = time + float(seconds(frame.duration, frame.time_base) or self._gap)
        self.done = time >= self._length - TICK

    def _keep(self, until: float) -> None:
        """Keeps the picture on display, which is replaced at ``until``, if the clip shows it."""
        assert self._shown is not None
        if self._frame_rate is None:
            span = (max(self._since, 0.0), min(until, self._length))
            if span[1] - span[0] > TICK:
                self._pixels.append(to_tensor(self._shown, self._size))
                self._spans.append(span)
            return
        count = 0
        while (self._next + count + 0.5) / self._frame_rate < min(until, self._length) - TICK:
            count += 1
        self._hold(count)

    def _hold(self, count: int) -> None:
        if count > 0:
            assert self._shown is not None
            self._pixels += [to_tensor(self._shown, self._size)] * count
            self._next += count

    def finish(self, *, fallback_duration: float) -> Video | None:
        """The pictures of the clip, or None where it has none."""
        if self._shown is None or self.first is None or self.first >= self._length:
            return None
        if self.end <= self._since:
            self.end = self._since + fallback_duration
        self.end = min(self.end, self._length)
        if self.end <= TICK:
            return None
        self._keep(until=self.end)
        if self._frame_rate is not None:
            # A last span whose middle lies past the end shows the last picture: what it covers is not lost.
            self._hold(math.ceil((self.end - TICK) * self._frame_rate) - self._next)
        if not self._pixels:
            return None
        sizes = {tuple(picture.shape[1:]) for picture in self._pixels}
        if len(sizes) > 1:
            found = " and ".join(f"{height} × {width}" for height, width in sorted(sizes))
            raise MediaError(f"its pictures change size ({found}); size=... makes them one")
        pixels = torch.stack(self._pixels)[None]
        if self._frame_rate is None:
            spans = torch.tensor(self._spans, dtype=torch.float64)
        else:
            first = self._next - pixels.shape[1]
            edges = (torch.arange(pixels.shape[1] + 1, dtype=torch.float64) + first) / self._frame_rate
            spans = torch.stack([edges[:-1], edges[1:]], -1)
        return Video(pixels, torch.ones(pixels.shape[:2], dtype=torch.bool), spans[None])

    def still(self) -> Video:
        """The one picture of an image file."""
        assert self._shown is not None
        return Video.from_image(to_tensor(self._shown, self._size)[None])


def to_tensor(frame: VideoFrame, size: tuple[int, int] | None) -> Tensor:
    """``(3, height, width)`` uint8 RGB, turned and mirrored as the file says it is to be shown."""
    a, b, c, d = _display_matrix(frame)
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    height, width = size or (None, None)
    if turned:
        height, width = width, height
    frame = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
    plane = frame.planes[0]
    rows = torch.frombuffer(bytearray(plane), dtype=torch.uint8).view(-1, plane.line_size)
    pixels = rows[: frame.height, : frame.width * 3].view(frame.height, frame.width, 3).permute(2, 0, 1)
    # A source pixel (x, y) is shown at (a x + c y, b x + d y).
    if turned:
        pixels, a, d = pixels.transpose(1, 2), c, b
    flips = [axis for axis, sign in ((2, a), (1, d)) if sign < 0]
    return pixels.flip(flips).contiguous()


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    try:
        if "DISPLAYMATRIX" not in frame.side_data:
            return 1, 0, 0, 1
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(frame.side_data["DISPLAYMATRIX"]))
        return a, b, c, d
    except ValueError:  # PyAV knows not every kind of side data, and lists none then; the angle it gives all the same
        cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[round(frame.rotation / 90) % 4]
        return cos, -sin, sin, cos
